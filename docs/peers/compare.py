"""Measures sparsek against what torch offers, on one NVIDIA GPU: see README.md."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
from pathlib import Path

import parts
import sparsek


class Problem(Exception):
    """Bad usage: one line on standard error, exit code 2."""


class Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise Problem(message)


def arguments() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    names = ", ".join(parts.ALL)
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"what to measure: {names} [default: all]"
    )
    parser.add_argument(
        "--sparsek", type=Path, default=Path("target/release/sparsek"), metavar="FILE",
        help="the binary [default: target/release/sparsek]",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number there")
    parser.add_argument(
        "--budget", type=float, metavar="SECONDS",
        help="start no measurement after that time, and list what is left",
    )  # fmt: skip
    args = parser.parse_args()
    for name in args.parts:
        if name not in parts.ALL:
            raise Problem(f"there is no part {name}; the parts are {names}")
    if args.budget is not None and not args.budget > 0:
        raise Problem("--budget is a number of seconds above zero")
    if args.json and args.json.is_dir():
        raise Problem(f"--json is a file, and {args.json} is a folder")
    # Each once, in a fixed order.
    args.parts = [name for name in parts.ALL if name in args.parts or not args.parts]
    return args


def machine(binary: Path) -> dict:
    """What the numbers were measured with and on."""
    try:
        version = sparsek.version(binary)
    except (OSError, ValueError) as e:
        reason = e.strerror if isinstance(e, OSError) else e
        hint = "build it with `cargo build --release -p sparsek-cli`"
        raise Problem(f"{binary} cannot be used: {reason}; {hint}") from None
    try:
        import torch
    except ImportError as e:
        raise Problem(f"torch cannot be imported: {e}") from None
    if not torch.cuda.is_available():
        raise Problem("torch sees no CUDA device")
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "gpu": torch.cuda.get_device_name(0),
        "driver": driver(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "sparsek": version,
    }


def driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return ran.stdout.split()[0] if ran.returncode == 0 and ran.stdout.strip() else "unknown"


def write(path: Path, value: dict) -> None:
    """Whole or not at all, so that a run that is killed leaves what it had."""
    beside = path.with_name(path.name + ".part")
    beside.write_text(json.dumps(value, indent=1) + "\n")
    os.replace(beside, path)


def main() -> int:
    args = arguments()
    # A path without a slash would be looked up in PATH.
    binary = args.sparsek.absolute()
    about = machine(binary)

    def save(run: parts.Run) -> None:
        if args.json:
            write(args.json, about | run.parts | {"not_measured": run.not_measured})

    run = parts.Run(binary, args.budget, save)
    try:
        save(run)
    except OSError as e:
        raise Problem(f"cannot write {args.json}: {e.strerror}") from None
    print(
        f"{about['gpu']}, driver {about['driver']}, torch {about['torch']}, "
        f"cuDNN {about['cudnn']}, {about['sparsek']}, {about['date']}",
        flush=True,
    )
    for name in args.parts:
        parts.ALL[name](run)
    save(run)
    if run.not_measured:
        print(f"\nNot measured, {args.budget:.0f} s being over:")
        for line in run.not_measured:
            print(f"  {line}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Problem as problem:
        print(f"compare.py: {problem}", file=sys.stderr)
        sys.exit(2)
