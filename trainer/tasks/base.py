"""The interface of a task: its targets, its loss, how it is evaluated, and which validation metric selects.

A task never sees where its samples come from; the loop hands it training batches, and validation or test outputs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ...cache.errors import UserError
from ...plugins import import_path, is_ours, versions
from ..batch import Inputs
from ..methods.base import MethodOutput
from ..protocol import Protocol as TrainingProtocol
from .linear import Fit, class_probabilities
from .linear import Vectors as Vectors
from .metric import Metric
from .scores import Columns, Recomputed, SampleScores


class Forward(Protocol):
    """A model, as a task runs it. losses: whether the method's own losses are wanted of this pass."""

    def __call__(self, inputs: Inputs, losses: bool = True) -> MethodOutput: ...


Views = Mapping[str, NDArray[np.float32]]  # view name -> (N, outputs) logits or (N, d) embeddings
Predictor = Callable[[Vectors], Views]


class Task(ABC):
    """What is learned, and how well it was learned: a task is a subclass.

    name: the word by which cards ask for one of PgM's own; another's is called by its import path. version: of the
    task's code, raised when training on the same targets comes to other numbers. smaller_is_better: those of its
    metrics.
    """

    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    monitor: str  # the validation metric that selects weights
    primary: str  # the test metric that rows are compared on
    primaries: ClassVar[tuple[str, ...]] = ()  # those that `primary` may be: what `sample_scores` can give
    smaller_is_better: ClassVar[frozenset[str]] = frozenset()
    balanced: bool = False  # classes count by the inverse of their share
    own_metric: Metric | None = None  # another's, to select on
    cross_modal: ClassVar[bool] = False  # an item is looked up in one modality by another, so a sample needs both
    outputs: int  # width of the head
    classes: tuple[str, ...] = ()  # what targets are one of; none for scores

    @classmethod
    @abstractmethod
    def of(cls, classes: tuple[str, ...], modalities: tuple[str, ...], protocol: TrainingProtocol) -> Task:
        """The task of a dataset with these classes, read in these modalities, under this protocol."""

    @property
    def judge(self) -> str:
        """What chooses among models on validation: what the card or `--metric` names, else the task's own."""
        return type(self).monitor if self.primary == type(self).primary else self.primary

    @property
    def code(self) -> int | dict[str, int]:
        """What a run's name says of the task's code: the version; of another's task, those of all that it extends."""
        return self.version if is_ours(type(self)) else versions(type(self))

    def targets(self, labels: NDArray[Any]) -> NDArray[Any]:
        """A label column (N,) as the loss and the metrics take it: int64 classes, unless the task says otherwise."""
        return labels.astype(np.int64)

    @abstractmethod
    def criterion(self, logits: Tensor, targets: Tensor) -> Tensor:
        """L^T (), a mean over samples: logits (N, outputs), targets (N,)."""

    def loss(
        self, forward: Forward, inputs: Inputs, targets: Tensor
    ) -> tuple[Tensor, MethodOutput, Mapping[str, Tensor]]:
        """L^T of a batch, the output of the pass that shows everything, and parts worth reporting: of one pass, unless
        the task says otherwise."""
        output = forward(inputs)
        return self.criterion(output.logits, targets), output, {}

    def views(self, forward: Forward, inputs: Inputs) -> dict[str, Tensor]:
        """What evaluation collects of a batch: rows of logits, unless the task says otherwise."""
        return {"logits": forward(inputs).logits}

    @abstractmethod
    def metrics(self, views: Views, targets: NDArray[Any]) -> dict[str, float]:
        """The task's metrics of one split, as fractions."""

    @abstractmethod
    def predictions(self, views: Views) -> dict[str, Any]:
        """Columns of the predictions table, one value a sample."""

    @abstractmethod
    def sample_scores(self, predictions: Columns) -> SampleScores | Recomputed:
        """The primary metric sample by sample, from the predictions table's columns, its targets included."""

    def constant(self, train: NDArray[Any], count: int) -> Views:
        """What guesses the same for each of `count` samples, the best by the training targets: the most frequent
        class."""
        return {"logits": np.tile(np.bincount(train, minlength=self.outputs).astype(np.float32), (count, 1))}

    def probed(self, vectors: Vectors, train: NDArray[Any], how: Fit) -> Predictor:
        """A linear model fitted on the training vectors, as a function from vectors to views."""
        found = class_probabilities(vectors, train, self.outputs, how)
        return lambda asked: {"logits": np.log(found(asked) + 1e-12)}

    def balance(self, train: NDArray[Any]) -> None:
        """Let classes count in the loss by the inverse of their share of these training targets (N,).

        Raises UserError where there are no classes to weigh.
        """
        raise UserError(
            f"class_weights=balanced weighs the classes of a classification; {self.name} has none to weigh."
        )

    def undefined(self, targets: NDArray[Any]) -> tuple[str, ...]:
        """The metrics that these targets (N,) of a split leave without a value."""
        return ()

    def alone(self) -> Task:
        """The task as one modality can be judged on it; itself unless it needs two."""
        return self

    def scored(self, views: Views, targets: NDArray[Any]) -> dict[str, float]:
        """`metrics`, and another's metric under its import path where one selects."""
        own = self.own_metric
        if own is None:
            return self.metrics(views, targets)
        columns = {name: np.asarray(values) for name, values in self.predictions(views).items()}
        return {**self.metrics(views, targets), import_path(type(own)): float(own({**columns, "target": targets}))}

    def better(self, new: Mapping[str, float], old: Mapping[str, float] | None, on: str | None = None) -> bool:
        """Whether `new` validation metrics beat `old`; equal ones do not, so that the earlier epoch stays.

        on: the metric, by default what the run selects on. A number beats none (nan).
        """
        if old is None:
            return True
        on = on or self.monitor
        own = self.own_metric
        larger = own.larger_is_better if own and on == import_path(type(own)) else on not in self.smaller_is_better
        if np.isnan(old[on]):
            return not np.isnan(new[on])
        return new[on] > old[on] if larger else new[on] < old[on]
