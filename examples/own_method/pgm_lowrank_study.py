"""The rank of low-rank fusion against concatenation, with a metric that PgM does not have: the calibration error.

A study names its rows and says what it measures of their finished runs; training, statistics and printing are PgM's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from pgm.trainer.run.request import Request
from pgm.trainer.run.seeds import statistics
from pgm.trainer.studies.engine.options import StudyOptions
from pgm.trainer.studies.engine.plan import Cell, TablePlan
from pgm.trainer.studies.engine.results import TableResult, results_of
from pgm.trainer.studies.engine.runner import Failure
from pgm.trainer.studies.engine.study import Row, Study, TableSpec
from pgm_lowrank_metric import calibration_error

METRIC = "calibration_error"


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
            rows.append(dataclasses.replace(result, test={**result.test, **(statistics(own) if own else {})}))
        return dataclasses.replace(found, metrics=(*found.metrics, METRIC), rows=tuple(rows))


def calibration_error_of(cell: Cell) -> float:
    """Of a run's test predictions."""
    predictions = cell.run.predictions("test")
    return calibration_error(np.stack(predictions["probabilities"].tolist()), predictions["target"].to_numpy())


STUDY = Ranks()
