"""Classification in which a rare smell counts as much as a common one: balanced accuracy, and a smoothed loss.

A task is a class; what it does not say itself is that of what it extends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pgm.trainer.batch import Inputs
from pgm.trainer.methods import MethodOutput
from pgm.trainer.tasks import Classification, Columns, Forward, SampleScores, Views
from torch import Tensor, nn

SMOOTHING = 0.1


class BalancedClassification(Classification):
    """Selected and compared on the mean of the classes' recalls."""

    version: ClassVar[int] = 1
    monitor = "balanced_accuracy"
    primary: ClassVar[str] = "balanced_accuracy"

    def loss(
        self, forward: Forward, inputs: Inputs, targets: Tensor
    ) -> tuple[Tensor, MethodOutput, Mapping[str, Tensor]]:
        """Cross-entropy with smoothed labels."""
        output = forward(inputs)
        loss = nn.functional.cross_entropy(output.logits.float(), targets, label_smoothing=SMOOTHING)
        return loss, output, {}

    def metrics(self, views: Views, targets: NDArray[Any]) -> dict[str, float]:
        """Balanced accuracy before what every classification has."""
        scores = self.sample_scores({"prediction": views["logits"].argmax(axis=1), "target": targets})
        return {"balanced_accuracy": scores.metric, **super().metrics(views, targets)}

    def sample_scores(self, predictions: Columns) -> SampleScores:
        """Right or wrong, each class a part of the metric of its own."""
        of_class = predictions["target"][:, None] == np.unique(predictions["target"])
        right = predictions["prediction"] == predictions["target"]
        return SampleScores((of_class & right[:, None]).astype(np.float64), of_class.astype(np.float64))
