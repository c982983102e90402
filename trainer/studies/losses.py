"""Figure 5 of the paper: PgM's training losses over the epochs of its second stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .engine.of_one_method import OfPgM
from .engine.plan import TablePlan
from .engine.runner import Failure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOSSES = {"ufc": "UFC", "pfc": "PFC", "upr": "UPR", "task": "Task"}


@dataclass(frozen=True)
class LossCurves:
    """loss -> (seeds, epochs) over the second stage."""

    dataset: str
    losses: Mapping[str, NDArray[np.float64]]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"dataset": self.dataset, "losses": {name: curve.tolist() for name, curve in self.losses.items()}}


class Losses(OfPgM):
    """Mean over seeds, and their range."""

    name = "losses"

    def results(self, plan: TablePlan, failures: Sequence[Failure] = ()) -> LossCurves:
        """Epoch by epoch; runs that stopped early are cut to the shortest."""
        curves: dict[str, list[list[float]]] = {}
        for run in (cell.run for cell in plan.cells if cell.run.finished):
            epochs = [entry["losses"] for entry in run.metrics if entry["stage"] == "task"]
            for name in epochs[0]:
                curves.setdefault(name, []).append([losses[name] for losses in epochs])
        shortest = min(len(curve) for several in curves.values() for curve in several)
        arrays = {name: np.array([curve[:shortest] for curve in several]) for name, several in curves.items()}
        named = {LOSSES[name]: arrays[name] for name in LOSSES if name in arrays}
        return LossCurves(plan.cells[0].resolved.data.card.name, named)

    def alt_text(self, plan: TablePlan, results: LossCurves) -> str:
        """In words."""
        return "Training losses of the second stage over its epochs, mean and range over seeds."

    def figure(self, plan: TablePlan, results: LossCurves) -> Figure:
        """A line a loss."""
        from matplotlib.ticker import MaxNLocator

        from .engine.draw import COLOURS, LINES, figure_of

        figure, axes = figure_of(5.5, 3.4)
        for place, (name, curves) in enumerate(results.losses.items()):
            epochs = np.arange(1, curves.shape[1] + 1)
            line, marker = LINES[place]
            axes.plot(
                epochs, curves.mean(0), line, color=COLOURS[place], marker=marker, markersize=3.5, linewidth=1.4,
                label=f"{name} loss", markevery=max(1, len(epochs) // 12),
            )  # fmt: skip
            if len(curves) > 1:
                axes.fill_between(epochs, curves.min(0), curves.max(0), color=COLOURS[place], alpha=0.15, linewidth=0)
        if all((curves > 0).all() for curves in results.losses.values()):
            axes.set_yscale("log")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch of the second stage")
        axes.set_ylabel("loss (training)")
        axes.set_title(f"Losses on {results.dataset}", loc="left")
        axes.legend(frameon=False, fontsize=8)
        return figure


STUDY = Losses()
