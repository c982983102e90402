"""Classification and emotion recognition: cross-entropy; accuracy, weighted F1, balanced accuracy, AUROC and AP.

Selection is on validation accuracy for classification and on weighted F1 for emotion, whose classes are skewed (a
majority guess on MELD has .48 accuracy and .31 weighted F1), or on what the dataset's card or `--metric` names first:
where one class in seven is positive, accuracy says nothing. With `class_weights=balanced` a class counts in the loss by
the inverse of its share of the training samples, scikit-learn's "balanced".
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..protocol import Protocol
from . import metrics, weighted
from .base import Task, Views
from .scores import Columns, Recomputed, SampleScores

CURVES = {"auroc": weighted.auroc, "average_precision": weighted.average_precision}


class Classification(Task):
    """One class of several a sample; targets (B,) int64 index into `classes`."""

    name: ClassVar[str] = "classification"
    version: ClassVar[int] = 2  # 1: results had neither balanced accuracy nor the curves
    monitor = "accuracy"
    primary = "accuracy"
    primaries: ClassVar[tuple[str, ...]] = ("accuracy", "weighted_f1", "balanced_accuracy", *CURVES)

    def __init__(self, classes: tuple[str, ...]) -> None:
        self.classes = classes
        self.outputs = len(classes)
        self.weights: Tensor | None = None  # (C,) of the classes in the loss

    @classmethod
    def of(cls, classes: tuple[str, ...], modalities: tuple[str, ...], protocol: Protocol) -> Task:
        return cls(classes)

    def criterion(self, logits: Tensor, targets: Tensor) -> Tensor:
        if self.weights is not None:
            self.weights = self.weights.to(targets.device)
        return nn.functional.cross_entropy(logits.float(), targets, self.weights)

    def balance(self, train: NDArray[Any]) -> None:
        counts = np.bincount(train, minlength=self.outputs)
        shares = len(train) / np.maximum(counts, 1) / np.count_nonzero(counts)
        self.balanced = True
        self.weights = torch.from_numpy(np.where(counts > 0, shares, 0.0).astype(np.float32))

    def metrics(self, views: Views, targets: NDArray[Any]) -> dict[str, float]:
        guess = views["logits"].argmax(axis=1)
        auroc, precision = weighted.both_curves(targets, softmax(views["logits"]))
        return {
            "accuracy": metrics.accuracy(targets, guess),
            "weighted_f1": metrics.weighted_f1(targets, guess),
            "balanced_accuracy": recalls(targets, guess).metric,
            "auroc": auroc,
            "average_precision": precision,
        }

    def undefined(self, targets: NDArray[Any]) -> tuple[str, ...]:
        """The areas under curves, where there is one class only."""
        return tuple(n for n in CURVES if n in self.primaries) if len(np.unique(targets)) < 2 else ()

    def predictions(self, views: Views) -> dict[str, Any]:
        probabilities = softmax(views["logits"])
        # Of the logits, as the metrics are: rounded probabilities can tie.
        guess = views["logits"].argmax(axis=1)
        return {
            "prediction": guess.astype(np.int32),
            "predicted_class": [self.classes[i] for i in guess],
            "probabilities": probabilities,
        }

    def sample_scores(self, predictions: Columns) -> SampleScores | Recomputed:
        """Right or wrong; for balanced accuracy class by class; what is no mean of these is computed anew."""
        truth, guess = predictions["target"], predictions["prediction"]
        right = truth == guess
        if self.primary == "balanced_accuracy":
            return recalls(truth, guess)
        if self.primary == "weighted_f1":
            return Recomputed(partial(weighted.weighted_f1, truth, guess), right.astype(np.float64))
        curve = CURVES.get(self.primary)
        if curve is None:
            return SampleScores.of_all(right)
        return Recomputed(partial(curve, truth, predictions["probabilities"]), right.astype(np.float64))


class Emotion(Classification):
    """Classification judged by weighted F1."""

    name: ClassVar[str] = "emotion"
    monitor = "weighted_f1"


def recalls(truth: NDArray[Any], guess: NDArray[Any]) -> SampleScores:
    """Right or wrong, each class that is there a part of its own; their mean is balanced accuracy."""
    of_class = truth[:, None] == np.unique(truth)
    right = of_class & (truth == guess)[:, None]
    return SampleScores(right.astype(np.float64), of_class.astype(np.float64))


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows that sum to 1."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    scaled: NDArray[np.float32] = shifted / shifted.sum(axis=1, keepdims=True)
    return scaled
