"""What every measurement is: a shape, times, an error; and tables of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# Characters of an error that a row shows.
LONGEST_ERROR = 160


@dataclass(frozen=True)
class Shape:
    """Sizes of one call; bf16 throughout."""

    n: int
    batch: int = 1
    query_heads: int = 32
    kv_heads: int = 8
    head_dim: int = 128

    @property
    def group(self) -> int:
        return self.query_heads // self.kv_heads

    def operations(self, keys_seen: float) -> float:
        """Useful operations of a forward: two products for each pair of a query and a key it sees.

        A backward has five products: 2.5 times as many.
        """
        return 4.0 * self.head_dim * self.query_heads * self.batch * self.n * keys_seen


@dataclass(frozen=True)
class Times:
    """Milliseconds of repeated calls; the rate is that of the median."""

    median_ms: float
    least_ms: float
    most_ms: float
    tflops: float | None = None


@dataclass
class Result:
    """One row: what ran on which shape. What is None was not measured, or failed."""

    name: str
    shape: Shape
    keys_seen: float | None = None
    k: int | None = None
    window: int | None = None
    plan: Times | None = None
    forward: Times | None = None
    backward: Times | None = None
    error: str | None = None


def causal_keys(n: int) -> float:
    """Keys that a query of dense causal attention sees, on average."""
    return (n + 1) / 2


def window_keys(n: int, window: int) -> float:
    """The same for a contiguous window that ends at the query."""
    short = min(n, window)
    return (short * (short + 1) / 2 + (n - short) * window) / n


def faster_from(faster: Mapping[int, bool | None]) -> int | None:
    """The least of the lengths from which it is true for that one and all longer ones.

    None where it is not true for the longest. A length without an answer ends the search.
    """
    found = None
    for n in sorted(faster, reverse=True):
        if not faster[n]:
            break
        found = n
    return found


def milliseconds(times: Times | None) -> str:
    if times is None:
        return "-"
    digits = 3 if times.median_ms < 10 else 1
    return f"{times.median_ms:.{digits}f}"


def rate(times: Times | None) -> str:
    return "-" if times is None or times.tflops is None else f"{times.tflops:.0f}"


def ratio(above: Times | None, below: Times | None) -> str:
    return f"{above.median_ms / below.median_ms:.2f}" if above and below else "-"


class Table:
    """Aligned text. A heading that begins with `<` is of a column of words, aligned left."""

    def __init__(self, *headings: str):
        self.left = [heading.startswith("<") for heading in headings]
        self.rows = [[heading.lstrip("<") for heading in headings]]
        self.remarks = [""]

    def row(self, *cells: object, remark: str | None = None) -> None:
        """A remark, such as an error, stands behind the row and widens no column."""
        self.rows.append([f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in cells])
        self.remarks.append(remark or "")

    def __str__(self) -> str:
        widths = [max(map(len, column)) for column in zip(*self.rows)]
        lines = []
        for row, remark in zip(self.rows, self.remarks):
            cells = (
                cell.ljust(width) if left else cell.rjust(width)
                for cell, width, left in zip(row, widths, self.left)
            )
            lines.append("  ".join(["", *cells, remark]).rstrip())
        return "\n".join(lines)
