"""A metric of somebody else's: a number of a split's predictions, on which a run may select its epoch.

`--select-on NAME` takes a metric of the task, or one of these by an entry point `pgm.metrics` or package.module:Class.
Its value stands among the run's metrics under its import path, which no metric of a task can have.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from ...plugins import Plugins
from .scores import Columns


class Metric(ABC):
    """A number of a split. version: raised when the same predictions come to another number."""

    version: ClassVar[int]
    larger_is_better: ClassVar[bool] = True

    @abstractmethod
    def __call__(self, predictions: Columns) -> float:
        """predictions: the columns of the task's predictions table by name, "target" among them, a row a sample."""


METRICS: Plugins[Metric] = Plugins(
    kind="metric",
    wanted="a class that extends pgm.trainer.tasks.Metric",
    group="pgm.metrics",
    base=Metric,  # type: ignore[type-abstract]
)
