"""Classification and emotion recognition: cross-entropy, accuracy and weighted F1.

Selection is on validation accuracy for classification and on weighted F1 for emotion, whose classes are skewed (a
majority guess on MELD has .48 accuracy and .31 weighted F1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from ..batch import Inputs
from ..methods.base import MethodOutput
from ..protocol import Protocol
from . import metrics
from .base import Forward, Task, Views
from .scores import Columns, SampleScores


class Classification(Task):
    """One class of several a sample; targets (B,) int64 index into `classes`."""

    name: ClassVar[str] = "classification"
    monitor = "accuracy"
    primary: ClassVar[str] = "accuracy"

    def __init__(self, classes: tuple[str, ...]) -> None:
        self.classes = classes
        self.outputs = len(classes)

    @classmethod
    def of(cls, classes: tuple[str, ...], modalities: tuple[str, ...], protocol: Protocol) -> Task:
        return cls(classes)

    def loss(
        self, forward: Forward, inputs: Inputs, targets: Tensor
    ) -> tuple[Tensor, MethodOutput, Mapping[str, Tensor]]:
        output = forward(inputs)
        return nn.functional.cross_entropy(output.logits.float(), targets), output, {}

    def metrics(self, views: Views, targets: NDArray[Any]) -> dict[str, float]:
        guess = views["logits"].argmax(axis=1)
        return {"accuracy": metrics.accuracy(targets, guess), "weighted_f1": metrics.weighted_f1(targets, guess)}

    def predictions(self, views: Views) -> dict[str, Any]:
        probabilities = softmax(views["logits"])
        # Of the logits, as the metrics are: rounded probabilities can tie.
        guess = views["logits"].argmax(axis=1)
        return {
            "prediction": guess.astype(np.int32),
            "predicted_class": [self.classes[i] for i in guess],
            "probabilities": probabilities,
        }

    def sample_scores(self, predictions: Columns) -> SampleScores:
        """Right or wrong."""
        return SampleScores.of_all(predictions["prediction"] == predictions["target"])


class Emotion(Classification):
    """Classification judged by weighted F1."""

    name: ClassVar[str] = "emotion"
    monitor = "weighted_f1"


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows that sum to 1."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    scaled: NDArray[np.float32] = shifted / shifted.sum(axis=1, keepdims=True)
    return scaled
