"""Numbers beside their bars: contests that take turns in one process, and the table they end in.

A shared machine changes speed by the second, and what others take only ever adds. So the contenders take turns of some
milliseconds, and what is told is the ratio of their first quartiles over all batches.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

TURN = 0.02  # seconds
LEAST_TURNS = 9


@dataclass(frozen=True)
class Row:
    """One number. bar: what it must be at least ("least") or less than ("under"); None where nothing was promised."""

    name: str
    value: float | None
    unit: str = ""
    least: float | None = None
    under: float | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """Whether the bar is met."""
        if self.value is None or (self.least is None and self.under is None):
            return ""
        met = self.value >= self.least if self.least is not None else self.value < self.under  # type: ignore[operator]
        return "yes" if met else "NO"

    @property
    def bar(self) -> str:
        """The bar in figures."""
        if self.least is not None:
            return f">= {self.least:g}"
        return f"< {self.under:g}" if self.under is not None else ""


def in_turns(contests: Mapping[str, tuple[Callable[[Any], object], Sequence[Any]]], seconds: float) -> dict[str, float]:
    """Seconds a batch of each contest, which reads its batches over and over, in turns of about TURN."""
    times: dict[str, list[float]] = {name: [] for name in contests}
    until, turns = time.perf_counter() + seconds, 0
    while time.perf_counter() < until or turns < LEAST_TURNS:
        for name, (read, batches) in contests.items():
            ends = time.perf_counter() + TURN
            while True:
                begun = time.perf_counter()
                read(batches[len(times[name]) % len(batches)])
                now = time.perf_counter()
                times[name].append(now - begun)
                if now > ends:
                    break
        turns += 1
    return {name: float(np.quantile(found, 0.25)) for name, found in times.items()}


def seconds_of(work: Callable[[], object], repeat: int = 9) -> float:
    """Median seconds of a call, after one that warms up."""
    work()
    found = []
    for _ in range(repeat):
        begun = time.perf_counter()
        work()
        found.append(time.perf_counter() - begun)
    return statistics.median(found)


def anonymous_mb() -> float:
    """This process's memory that is not page cache."""
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) / 1024


def large_pages(folder: Path) -> float:
    """The share of what this process has mapped of a folder's files that lies in pages of 2 MiB."""
    mapped = large = 0
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        field, *rest = line.split()
        if not field.endswith(":"):
            inside = str(folder) in line
        elif inside:
            mapped += int(rest[0]) if field == "Rss:" else 0
            large += int(rest[0]) if field == "FilePmdMapped:" else 0
    return large / max(mapped, 1)


def machine() -> str:
    """What the numbers were measured on."""
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return (
        f"{model.partition(':')[2].strip()}, {os.cpu_count()} cores, {memory:.0f} GB, load {os.getloadavg()[0]:.1f}; "
        f"Linux {platform.release()}, Python {platform.python_version()}, numpy {np.__version__}"
    )


def print_rows(title: str, rows: Sequence[Row]) -> None:
    """A Markdown table, aligned for reading as it is."""
    cells = [("", "measured", "bar", "met", "")]
    for row in rows:
        value = "-" if row.value is None else f"{row.value:,.3g}" if row.value < 1000 else f"{row.value:,.0f}"
        cells.append((row.name, f"{value} {row.unit}".strip(), row.bar, row.verdict, row.note))
    widths = [max(len(line[column]) for line in cells) for column in range(5)]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
    lines.insert(1, " | ".join("-" * max(width, 3) for width in widths))
    print(f"\n**{title}**\n\n" + "\n".join(f"| {line} |" for line in lines), flush=True)
