"""The confusion matrix of a method on the test split, all seeds together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ...cache.errors import UserError
from ..run.request import Request, resolve
from .engine.of_one_method import OfOneMethod
from .engine.options import StudyOptions
from .engine.plan import Cell, TablePlan
from .engine.runner import Failure
from .engine.study import TableSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Confusion:
    """counts[i, j]: test samples of class i called j, summed over the seeds."""

    dataset: str
    counts: NDArray[np.int64]
    classes: Sequence[str]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"dataset": self.dataset, "classes": list(self.classes), "counts": self.counts.tolist()}


class ConfusionStudy(OfOneMethod):
    """Rows are true classes."""

    name = "confusion"
    takes = ("method",)

    def spec(self, request: Request, options: StudyOptions) -> TableSpec:
        """The method's runs. Raises UserError for a task without classes."""
        data = resolve(request).data
        if data.task.cross_modal or not data.task.classes:
            raise UserError(
                f"A confusion matrix needs predicted classes, and {data.card.name} is a {data.card.task} task."
            )
        return super().spec(request, options)

    def results(self, plan: TablePlan, failures: Sequence[Failure] = ()) -> Confusion:
        """Counts from the test predictions."""
        data = plan.cells[0].resolved.data
        counts = counted([cell for cell in plan.cells if cell.run.finished])
        return Confusion(data.card.name, counts, data.task.classes)

    def alt_text(self, plan: TablePlan, results: Confusion) -> str:
        """In words."""
        return f"Confusion of {plan.spec.reference} on the test split, all seeds together."

    def figure(self, plan: TablePlan, results: Confusion) -> Figure:
        """Each row to 100 %; numbers stand in the cells of up to 12 classes."""
        from .engine.draw import INK, figure_of

        count = len(results.classes)
        side = min(2.2 + 0.42 * count, 11)
        figure, axes = figure_of(side + 0.8, side)
        shares = 100 * results.counts / np.maximum(results.counts.sum(1, keepdims=True), 1)
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
        if count <= 12:
            for row, column in np.ndindex(shares.shape):
                colour = "white" if shares[row, column] > 55 else INK
                axes.text(column, row, f"{shares[row, column]:.0f}", ha="center", va="center", fontsize=8, color=colour)
        step = max(1, count // 40)
        axes.set_xticks(range(0, count, step), results.classes[::step], rotation=90, fontsize=8)
        axes.set_yticks(range(0, count, step), results.classes[::step], fontsize=8)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.set_title(f"Test confusion on {results.dataset}, % of the true class", loc="left")
        figure.colorbar(image, shrink=0.8)
        return figure


def counted(cells: Sequence[Cell]) -> NDArray[np.int64]:
    """(classes, classes) test samples by true class and predicted class, all runs together."""
    count = len(cells[0].resolved.data.task.classes)
    counts = np.zeros((count, count), np.int64)
    for cell in cells:
        table = pq.read_table(cell.run.predictions_path("test"))
        np.add.at(counts, (table["target"].to_numpy(), table["prediction"].to_numpy()), 1)
    return counts


STUDY = ConfusionStudy()
