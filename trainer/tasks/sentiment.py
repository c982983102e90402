"""Sentiment: regression on the score with an L1 loss (default), or its sign as three classes (spec A22).

The paper says "categories" and its author's code casts labels to integers, but its Table 4 reports regression metrics.
Regression selects on validation MAE, three classes on the three-class accuracy.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from ..protocol import Protocol
from . import metrics
from .base import Predictor, Task, Vectors, Views
from .classification import Classification
from .linear import Fit, scores
from .scores import Columns, SampleScores

POLARITIES = ("negative", "neutral", "positive")


class SentimentRegression(Task):
    """Targets (B,) float32 scores, MOSI's in [-3, 3]."""

    name: ClassVar[str] = "sentiment"
    monitor = "mae"
    primary = "acc2_has0"
    smaller_is_better: ClassVar[frozenset[str]] = frozenset({"mae"})
    outputs = 1

    @classmethod
    def of(cls, classes: tuple[str, ...], modalities: tuple[str, ...], protocol: Protocol) -> Task:
        """As the protocol's switch `sentiment` says."""
        return SentimentClasses() if protocol.sentiment == "classes" else cls()

    def targets(self, labels: NDArray[Any]) -> NDArray[Any]:
        """float32 scores."""
        return labels.astype(np.float32)

    def criterion(self, logits: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.l1_loss(logits.float().squeeze(1), targets)

    def metrics(self, views: Views, targets: NDArray[Any]) -> dict[str, float]:
        return metrics.sentiment_scores(targets.astype(np.float64), views["logits"][:, 0].astype(np.float64))

    def predictions(self, views: Views) -> dict[str, Any]:
        return {"prediction": views["logits"][:, 0]}

    def constant(self, train: NDArray[Any], count: int) -> Views:
        """The median score."""
        return {"logits": np.full((count, 1), np.median(train), np.float32)}

    def probed(self, vectors: Vectors, train: NDArray[Any], how: Fit) -> Predictor:
        found = scores(vectors, train, how)
        return lambda asked: {"logits": found(asked)}

    def sample_scores(self, predictions: Columns) -> SampleScores:
        """Right or wrong about negative or not."""
        return SampleScores.of_all((predictions["prediction"] >= 0) == (predictions["target"] >= 0))


class SentimentClasses(Classification):
    """Targets (B,) int64: 0 negative, 1 neutral, 2 positive."""

    monitor = "acc3"
    primary = "acc3"
    primaries: ClassVar[tuple[str, ...]] = ("acc3",)

    def __init__(self) -> None:
        super().__init__(POLARITIES)

    def targets(self, labels: NDArray[Any]) -> NDArray[Any]:
        """Classes as they are; of scores their sign."""
        return polarity(labels) if labels.dtype.kind == "f" else super().targets(labels)

    def metrics(self, views: Views, targets: NDArray[Any]) -> dict[str, float]:
        return metrics.sentiment_classes(targets, views["logits"])


def polarity(scores: NDArray[np.floating]) -> NDArray[np.int64]:
    """0 negative, 1 neutral (exactly 0), 2 positive."""
    classes: NDArray[np.int64] = np.sign(scores).astype(np.int64) + 1
    return classes
