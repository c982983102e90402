"""The drawing: matplotlib figures that read in print, on a dark page, and without telling colours apart.

White ground and dark ink everywhere (a dark page then shows a white card); the colours are Okabe and Ito's, and every
series also differs in hatch, marker or line style.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from .render import SAME
from .results import TableResult

# Okabe and Ito (2008), without yellow, which is faint on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
HATCHES = ("", "//", "..", "xx")
LINES = (("-", "o"), ("--", "s"), ("-.", "^"), (":", "D"))
INK = "#222222"
STYLE: Any = {
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "hatch.linewidth": 0.6,
    # Text stays text, and the same figure gives the same file.
    "svg.fonttype": "none",
    "svg.hashsalt": "pgm",
}


def bars(result: TableResult) -> Figure:
    """A table as a figure: each row's mean and deviation, every seed as a dot, a line at the reference."""
    figure, axes = figure_of(6.2, 0.42 * len(result.rows) + 1.3)
    rows = [row for row in reversed(result.rows) if row.test]
    metric = result.primary
    for place, row in enumerate(rows):
        score = row.test[metric]
        values = 100 * np.array(score["values"])
        full = row.label == result.reference
        axes.barh(
            place, 100 * score["mean"], xerr=100 * score["std"], color=COLOURS[0] if full else COLOURS[4],
            edgecolor=INK, linewidth=0.6, hatch="" if full else "//", capsize=2, ecolor=INK, height=0.6,
        )  # fmt: skip
        axes.plot(values, np.full(len(values), place), "o", color=INK, markersize=3, zorder=3)
        if full:
            axes.axvline(100 * score["mean"], color=INK, linestyle="--", linewidth=0.8)
    same = {row.label for row in rows if row.comparison is not None and not row.comparison.significant}
    axes.set_yticks(range(len(rows)), [f"{row.label} {SAME}" if row.label in same else row.label for row in rows])
    lows = [100 * min(row.test[metric]["values"]) for row in rows]
    highs = [100 * max(row.test[metric]["values"]) for row in rows]
    margin = max(1.0, 0.5 * (max(highs) - min(lows)))
    axes.set_xlim(max(0.0, min(lows) - margin), max(highs) + margin / 2)
    axes.set_xlabel(f"test {metric} times 100 (the axis does not start at 0)\n{SAME} not significantly different")
    axes.set_title(f"{result.title.split(':')[0]} on {result.dataset}", loc="left")
    return figure


def save(figure: Figure, stem: Path) -> list[Path]:
    """STEM.png at 200 dpi and STEM.svg."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    written = []
    for suffix, options in ((".png", {"dpi": 200}), (".svg", {"metadata": {"Date": None}})):
        path = stem.with_name(stem.name + suffix)
        with matplotlib.rc_context(STYLE):
            figure.savefig(path, **options)
        written.append(path)
    return written


def as_svg(figure: Figure) -> str:
    """The figure as an <svg> element to put into a page."""
    text = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(text, format="svg", metadata={"Date": None})
    whole = text.getvalue()
    return whole[whole.index("<svg") :]


def figure_of(width: float, height: float) -> tuple[Figure, matplotlib.axes.Axes]:
    """An empty figure of this size in inches, and its axes."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots()
