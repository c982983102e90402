"""The rank of low-rank fusion against concatenation, with a metric that PgM does not have: the calibration error.

A study names its rows and says what it measures of their finished runs; training, statistics and printing are PgM's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pgm.trainer.run.request import Request
from pgm.trainer.run.seeds import spread
from pgm.trainer.studies.engine.options import StudyOptions
from pgm.trainer.studies.engine.plan import Cell, TablePlan
from pgm.trainer.studies.engine.results import TableResult, results_of
from pgm.trainer.studies.engine.runner import Failure
from pgm.trainer.studies.engine.study import Row, Study, TableSpec

METRIC = "calibration_error"
BINS = 10


class Ranks(Study):
    """`pgm table ranks` and `pgm figure ranks`, for tasks with classes."""

    name = "ranks"

    def spec(self, request: Request, options: StudyOptions) -> TableSpec:
        """Concatenation, and low-rank fusion at three ranks."""
        ranks = (Row(f"rank {rank}", "lowrank", {"rank": rank}) for rank in (1, 4, 16))
        return TableSpec("Low-rank fusion", (Row("concat", "concat"), *ranks), "concat")

    def results(self, plan: TablePlan, failures: Sequence[Failure] = ()) -> TableResult:
        """The numbers of every table, and one more metric: mean and deviation over the seeds."""
        found = results_of(plan, failures)
        rows = []
        for row, result in zip(plan.spec.rows, found.rows, strict=True):
            own = [{METRIC: calibration_error_of(cell)} for cell in plan.of(row) if cell.run.finished]
            rows.append(dataclasses.replace(result, test={**result.test, **(spread(own) if own else {})}))
        return dataclasses.replace(found, metrics=(*found.metrics, METRIC), rows=tuple(rows))


def calibration_error_of(cell: Cell) -> float:
    """Of a run's test predictions."""
    predictions = cell.run.predictions("test")
    return calibration_error(np.stack(predictions["probabilities"].tolist()), predictions["target"].to_numpy())


def calibration_error(probabilities: NDArray[np.floating], targets: NDArray[np.integer]) -> float:
    """Mean of |confidence - accuracy| over bins of confidence, by their samples (Guo et al., 2017, eq. 3).

    probabilities: (N, classes); targets: (N,).
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == targets
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    parts = [right[bins == b].mean() - confidence[bins == b].mean() for b in np.unique(bins)]
    shares = [np.mean(bins == b) for b in np.unique(bins)]
    return float(np.dot(shares, np.abs(parts)))


STUDY = Ranks()
