"""What is measured: the headline, the crossover with dense attention, the grid of shapes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import sparsek
from results import Result, Shape, Table, faster_from, milliseconds, rate, ratio

if TYPE_CHECKING:
    import peers  # imports torch, which --help and refusals do without

HEADLINE = Shape(n=65_536)
HEADLINE_K = HEADLINE_WINDOW = 512

CROSSOVER_KEYS = (256, 512, 1024, 2048)
CROSSOVER_LENGTHS = (1024, 2048, 4096, 8192, 16_384)

GRID_HEAD_DIMS = (128, 64)
GRID_KS = (512, 1024, 256, 128)
GRID_WINDOWS = (512, 1024, 256, 0)
GRID_GROUPS = (4, 1, 8)
GRID_LENGTHS = (8192, 65_536)
# Points that see fewer keys than this are measured and not counted.
GRID_KEYS = 512
GRID_SHARE = 0.6
BATCHED = Shape(n=16_384, batch=4)


@dataclass
class Run:
    """One run of the program: where the binary is, what time is left, what came out."""

    binary: Path
    budget: float | None
    save: Callable[[Run], None]
    started: float = field(default_factory=time.monotonic)
    parts: dict[str, dict] = field(default_factory=dict)
    not_measured: list[str] = field(default_factory=list)

    def elapsed(self) -> float:
        return time.monotonic() - self.started

    def measure(
        self, part: str, label: str, measurement: Callable[[], Sequence[Result]]
    ) -> list[Result]:
        """Runs a measurement, unless the budget is spent, and keeps its rows."""
        if self.budget is not None and self.elapsed() >= self.budget:
            self.not_measured.append(f"{part}: {label}")
            return []
        print(f"{self.elapsed():6.0f} s  {part}: {label}", file=sys.stderr, flush=True)
        results = list(measurement())
        rows = self.parts.setdefault(part, {}).setdefault("rows", [])
        rows.extend(asdict(result) for result in results)
        self.save(self)
        return results

    def note(self, part: str, name: str, value: object) -> None:
        """Keeps a number that was derived from rows."""
        self.parts.setdefault(part, {})[name] = value
        self.save(self)

    def sparsek(
        self, part: str, shape: Shape, k: int, window: int, lengths: Sequence[int], **settings
    ) -> list[Result]:
        label = (
            f"sparsek k {k} w {window}, B {shape.batch} D {shape.head_dim} "
            f"heads {shape.query_heads}/{shape.kv_heads}, N {', '.join(map(str, lengths))}"
        )
        return self.measure(
            part, label, lambda: sparsek.bench(self.binary, shape, lengths, k, window, **settings)
        )

    def peer(self, part: str, peer: peers.Peer, shape: Shape) -> list[Result]:
        import peers

        def measurement() -> list[Result]:
            result = peers.measure(peer, shape)
            peers.release()
            return [result]

        return self.measure(part, f"{peer.name}, N {shape.n}", measurement)


def headline(run: Run) -> None:
    import peers

    shape, k, window = HEADLINE, HEADLINE_K, HEADLINE_WINDOW
    results = run.sparsek("headline", shape, k, window, [shape.n], iterations=20)
    # A peer's forwards follow one another, and its backwards; sparsek's took turns: once more, as theirs.
    for result in run.sparsek("headline", shape, k, window, [shape.n], iterations=20, apart=True):
        results.append(replace(result, name="sparsek, apart"))
    for peer in (peers.flex_window(k + window), peers.CUDNN, peers.FLASH):
        results += run.peer("headline", peer, shape)
    own = next((r for r in results if r.name == sparsek.NAME), None)
    table = Table(
        "<attention", "keys seen", "plan ms", "forward ms", "TFLOP/s", "/ sparsek",
        "backward ms", "TFLOP/s", "/ sparsek",
    )  # fmt: skip
    for r in results:
        table.row(
            r.name,
            "-" if r.keys_seen is None else f"{r.keys_seen:,.0f}",
            milliseconds(r.plan),
            milliseconds(r.forward),
            rate(r.forward),
            ratio(r.forward, own and own.forward),
            milliseconds(r.backward),
            rate(r.backward),
            ratio(r.backward, own and own.backward),
            remark=r.error,
        )
    show(f"Headline: {words(shape)}, N {shape.n:,}, k {k}, w {window}", table)


def crossover(run: Run) -> None:
    import peers

    lengths = CROSSOVER_LENGTHS
    dense: dict[int, Result] = {}
    for n in lengths:
        for result in run.peer("crossover", peers.CUDNN, replace(HEADLINE, n=n)):
            dense[n] = result
    table = Table(
        "k + w", "N", "forward ms", "cuDNN ms", "times as fast",
        "backward ms", "cuDNN ms", "times as fast",
    )  # fmt: skip
    summary = Table("k + w", "forward faster from N", "backward faster from N")
    least = {}
    for keys in CROSSOVER_KEYS:
        k = keys // 2
        results = run.sparsek("crossover", HEADLINE, k, keys - k, lengths, iterations=20, warmup=10)
        if not results:
            continue
        own = {result.shape.n: result for result in results}
        for n, result in own.items():
            other = dense.get(n)
            forward, backward = (other.forward, other.backward) if other else (None, None)
            table.row(
                keys,
                n,
                milliseconds(result.forward),
                milliseconds(forward),
                ratio(forward, result.forward),
                milliseconds(result.backward),
                milliseconds(backward),
                ratio(backward, result.backward),
                remark="; ".join(x.error for x in (result, other) if x and x.error),
            )
        cells = []
        least[keys] = {}
        for which in ("forward", "backward"):
            answers = {n: faster(own.get(n), dense.get(n), which) for n in lengths}
            least[keys][which] = faster_from(answers)
            cells.append(from_length(answers))
        summary.row(keys, *cells)
    run.note("crossover", "faster_from", least)
    show(f"Crossover: {words(HEADLINE)}, k = w, against cuDNN dense", table)
    show("The least measured N from which sparsek is faster, up to the longest", summary)


def faster(own: Result | None, other: Result | None, which: str) -> bool | None:
    """None where one of the two was not measured."""
    a, b = getattr(own, which, None), getattr(other, which, None)
    return a.median_ms < b.median_ms if a and b else None


def from_length(answers: dict[int, bool | None]) -> str:
    n, longest = faster_from(answers), max(answers)
    if answers[longest] is None:
        return "not measured"
    if n is None:
        return f"not up to {longest:,}"
    return f"{n:,} or below" if n == min(answers) else f"{n:,}"


def grid(run: Run) -> None:
    # The point that the others are compared with comes first, those that do not count last.
    processes = sorted(
        (
            (replace(HEADLINE, head_dim=d, kv_heads=HEADLINE.query_heads // group), k, window)
            for d in GRID_HEAD_DIMS
            for group in GRID_GROUPS
            for k in GRID_KS
            for window in GRID_WINDOWS
        ),
        key=lambda process: process[1] + process[2] < GRID_KEYS,
    )
    results = []
    settings = {"iterations": 15, "backward": False}
    for at, (shape, k, window) in enumerate(processes):
        results += run.sparsek("grid", shape, k, window, GRID_LENGTHS, **settings)
        if at == 0:
            batches(run)
    whole = next((r for r in results if is_headline(r) and r.forward), None)
    measured = [r for r in results if r.forward]
    counted = [r for r in measured if r.k + r.window >= GRID_KEYS]
    failed = Table("D", "k", "w", "group", "N", "<")
    for r in (r for r in results if r.error):
        s = r.shape
        failed.row(s.head_dim, r.k, r.window, s.group, s.n, r.error)
    show("Grid: failed", failed)
    if whole is None:
        if results:
            print("\nGrid: the headline's shape has no time, so there are no shares", flush=True)
        return
    counted.sort(key=lambda r: r.forward.tflops)
    table = Table("share", "D", "k", "w", "group", "N", "forward ms", "TFLOP/s")
    for r in counted[:10]:
        share = r.forward.tflops / whole.forward.tflops
        table.row(
            f"{100 * share:.0f} %", r.shape.head_dim, r.k, r.window, r.shape.group, r.shape.n,
            milliseconds(r.forward), rate(r.forward),
        )  # fmt: skip
    limit = GRID_SHARE * whole.forward.tflops
    below = sum(r.forward.tflops < limit for r in counted)
    run.note("grid", "points", {"counted": len(counted), "below_share": below, "share": GRID_SHARE})
    show(
        f"Grid: the ten worst of {len(counted)} forwards with k + w >= {GRID_KEYS}, as a share of "
        f"the headline's {rate(whole.forward)} TFLOP/s",
        table,
    )
    print(f"  {below} of {len(counted)} are below {100 * GRID_SHARE:.0f} %", flush=True)


def batches(run: Run) -> None:
    """As many positions in four rows as in one."""
    table = Table("batch", "N", "plan ms", "forward ms", "TFLOP/s", "backward ms", "TFLOP/s")
    for shape in (BATCHED, HEADLINE):
        k, window = HEADLINE_K, HEADLINE_WINDOW
        for r in run.sparsek("batch", shape, k, window, [shape.n], iterations=15):
            table.row(
                shape.batch, shape.n, milliseconds(r.plan), milliseconds(r.forward),
                rate(r.forward), milliseconds(r.backward), rate(r.backward), remark=r.error,
            )  # fmt: skip
    show(f"Batch: {words(HEADLINE)}, k {HEADLINE_K}, w {HEADLINE_WINDOW}", table)


def is_headline(result: Result) -> bool:
    return (result.shape, result.k, result.window) == (HEADLINE, HEADLINE_K, HEADLINE_WINDOW)


def words(shape: Shape) -> str:
    return f"heads {shape.query_heads}/{shape.kv_heads}, D {shape.head_dim}, bf16"


def show(title: str, table: Table) -> None:
    """Nothing where no row was measured."""
    if len(table.rows) > 1:
        print(f"\n{title}\n{table}", flush=True)


ALL = {"headline": headline, "crossover": crossover, "grid": grid}
