"""How figures are told: medians and tails, in tables that can be pasted into bench/README.md."""

import math
import os
from collections.abc import Sequence
from statistics import median


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: a value that was measured, not one in between."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(percent / 100 * len(ranked)) - 1)]


def tell_milliseconds(seconds: Sequence[float]) -> list[str]:
    """Median, p99, least and most."""
    chosen = (median(seconds), percentile(seconds, 99), min(seconds), max(seconds))
    return [f"{value * 1000:.1f} ms" for value in chosen]


def tell_seconds(seconds: Sequence[float]) -> str:
    """Median and range."""
    return f"{median(seconds):.2f} s ({min(seconds):.2f}-{max(seconds):.2f})"


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    cells = [[str(cell) for cell in row] for row in (columns, *rows)]
    widths = [max(len(row[number]) for row in cells) for number in range(len(columns))]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in cells]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    print("\n".join(lines), flush=True)


def print_heading(text: str) -> None:
    """With the load of the machine, without which no figure on a shared one means anything."""
    one_minute, _, _ = os.getloadavg()
    print(f"\n### {text}\n{os.cpu_count()} cores, load average before: {one_minute:.1f}\n", flush=True)


def say(line: str) -> None:
    """What goes on, apart from the figures."""
    print(f"bench: {line}", flush=True)
