"""The balance figure: each modality inside every joint model beside its twin, and its gradient norms over training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from ..laziness import gradient_norms
from ..runs import Run
from ..tables.balance import BalanceResult
from ..tables.plan import TablePlan
from .draw import COLOURS, HATCHES, INK, LINES, STYLE

COLUMNS = 3  # of the small panels
Curves = Mapping[str, NDArray[np.float64]]  # modality -> (seeds, epochs)


def gradient_curves(runs: Sequence[Run]) -> Curves:
    """Gradient norms over the epochs trained on labels, cut to the shortest run; empty where a run has none."""
    found: dict[str, list[list[float]]] = {}
    for run in runs:
        for modality, curve in gradient_norms(run).items():
            found.setdefault(modality, []).append(curve)
    if any(len(curves) < len(runs) for curves in found.values()):
        return {}
    shortest = min((len(curve) for curves in found.values() for curve in curves), default=0)
    return {m: np.array([curve[:shortest] for curve in curves]) for m, curves in found.items()} if shortest else {}


def balance(result: BalanceResult, plan: TablePlan) -> Figure:
    """Left: each modality alone inside every method, its twin as a line. Right: gradient norms, a panel a method."""
    runs = {row.label: [cell.run for cell in plan.of(row) if cell.run.finished] for row in plan.spec.rows}
    curves = {row.label: found for row in result.rows if (found := gradient_curves(runs[row.label]))}
    high = max(3.2, 0.19 * len(result.rows) * (len(result.modalities) + 1) + 1.2, 1.25 * -(-len(curves) // COLUMNS) + 1)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11 if curves else 5.5, high), layout="constrained")
        parts: Any = figure.subfigures(1, 2, width_ratios=(1, 1.15)) if curves else [figure]
        inside(parts[0].subplots(), result)
        if curves:
            norms(parts[1], curves, result.modalities)
    figure.suptitle(f"Balance of modalities on {result.table.dataset}", fontsize=11)
    return figure


def inside(axes: Any, result: BalanceResult) -> None:
    """Horizontal bars, a group a method."""
    rows = [row for row in reversed(result.rows) if row.inside]
    thick = 0.8 / len(result.modalities)
    for place, modality in enumerate(result.modalities):
        scores = [row.inside[modality] for row in rows]
        axes.barh(
            np.arange(len(rows)) + (0.5 * (len(result.modalities) - 1) - place) * thick,
            [100 * score["mean"] for score in scores], thick * 0.92, xerr=[100 * score["std"] for score in scores],
            color=COLOURS[place], edgecolor=INK, linewidth=0.5, hatch=HATCHES[place], ecolor=INK, capsize=1.5,
            label=f"{modality}, inside",
        )  # fmt: skip
        if modality in result.twins:
            twin = 100 * result.twins[modality]["mean"]
            line = LINES[1 + place % (len(LINES) - 1)][0]
            axes.axvline(twin, color=COLOURS[place], linestyle=line, linewidth=1.6, label=f"{modality}, twin alone")
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlim(left=0)
    axes.set_xlabel(f"test {result.table.primary} times 100, shown one modality")
    axes.legend(frameon=False, fontsize=7.5, ncols=2, loc="upper center", bbox_to_anchor=(0.45, -0.06))


def norms(part: Any, curves: Mapping[str, Curves], modalities: Sequence[str]) -> None:
    """Small panels on common axes: mean over seeds, and their range."""
    rows = -(-len(curves) // COLUMNS)
    panels = part.subplots(rows, COLUMNS, squeeze=False, sharex=True, sharey=True).ravel()
    for axes, (label, found) in zip(panels, curves.items(), strict=False):
        for place, modality in enumerate(m for m in modalities if m in found):
            values = found[modality]
            epochs = np.arange(1, values.shape[1] + 1)
            line, marker = LINES[place]
            axes.plot(
                epochs, values.mean(0), line, color=COLOURS[place], marker=marker, markersize=2.5, linewidth=1.1,
                markevery=max(1, len(epochs) // 6), label=modality,
            )  # fmt: skip
            axes.fill_between(epochs, values.min(0), values.max(0), color=COLOURS[place], alpha=0.15, linewidth=0)
        axes.set_title(label, loc="left", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    for axes in panels[len(curves) :]:
        axes.set_visible(False)
    if all((values > 0).all() for found in curves.values() for values in found.values()):
        panels[0].set_yscale("log")
        # The panels share the axis; plain numbers, and few of them, or they run into each other.
        panels[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panels[0].yaxis.set_major_formatter(FormatStrFormatter("%g"))
        panels[0].yaxis.set_minor_formatter(NullFormatter())
    panels[0].legend(frameon=False, fontsize=7)
    part.supxlabel("epoch on labels", fontsize=9)
    part.supylabel("gradient norm of the modality's own parameters", fontsize=9)
