"""Runs `sparsek bench` and reads the JSON that it writes."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from results import LONGEST_ERROR, Result, Shape, Times

NAME = "sparsek"


def version(binary: Path) -> str:
    """What the binary calls itself; OSError or ValueError when it is no such binary."""
    try:
        ran = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=30)
    except subprocess.TimeoutExpired:
        raise ValueError("it does not answer --version") from None
    words = ran.stdout.split()
    if ran.returncode != 0 or words[:1] != ["sparsek"]:
        raise ValueError("it does not answer --version as sparsek does")
    return " ".join(words)


def bench(
    binary: Path,
    shape: Shape,
    lengths: Sequence[int],
    k: int,
    window: int,
    *,
    iterations: int,
    warmup: int = 5,
    backward: bool = True,
    apart: bool = False,
    device: str = "cuda:0",
    timeout: float = 120.0,
) -> list[Result]:
    """One process for all lengths, in their order; `shape.n` is not read.

    `bench` writes nothing when one length fails, so then all of them have that error.
    """
    failed = [
        Result(NAME, replace(shape, n=n), k=k, window=window, error="not run") for n in lengths
    ]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "bench.json")
        command = [
            str(binary), "bench", "sparsek-value",
            "--device", device, "--elem", "bf16", "--scores", "sd:1",
            "--seq", ",".join(map(str, lengths)),
            "--batch", str(shape.batch),
            "--heads", f"{shape.query_heads}/{shape.kv_heads}",
            "--head-dim", str(shape.head_dim),
            "--k", str(k), "--window", str(window),
            "--iterations", str(iterations), "--warmup", str(warmup),
            "--json", str(out),
        ]  # fmt: skip
        if not backward:
            command.append("--forward-only")
        if apart:
            command.append("--apart")
        try:
            ran = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
            if ran.returncode == 0:
                return parse(json.loads(out.read_text()))
            error = complaint(ran.stderr, ran.returncode)
        except subprocess.TimeoutExpired:
            error = f"stopped after {timeout:.0f} s"
        except (OSError, ValueError) as e:
            error = f"{type(e).__name__}: {e}"
    return [replace(result, error=error) for result in failed]


def complaint(stderr: str, code: int) -> str:
    """The line that says what is wrong, else the last one."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error")]
    return (errors or lines[-1:] or [f"exit code {code}"])[0][:LONGEST_ERROR]


def parse(value: dict) -> list[Result]:
    """The rows of a file of `bench --json`; ValueError when it is something else."""
    try:
        heads, head_dim = value["heads"], value["head_dim"]
        return [
            Result(
                NAME,
                Shape(row["n"], value["batch"], heads[0], heads[1], head_dim),
                keys_seen=row["keys_seen"],
                k=value["k"],
                window=value["window"],
                plan=times(row["plan"]),
                forward=times(row["forward"]),
                backward=times(row["backward"]),
            )
            for row in value["rows"]
        ]
    except (KeyError, IndexError, TypeError) as e:
        raise ValueError(f"bench wrote JSON of another form ({type(e).__name__}: {e})") from None


def times(value: dict | None) -> Times | None:
    if value is None:
        return None
    return Times(value["median_ms"], value["least_ms"], value["most_ms"], value.get("tflops"))
