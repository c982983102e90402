"""Classification in which a rare smell counts as much as a common one: balanced accuracy, and a smoothed loss.

A task is a class; what it does not say itself is that of what it extends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pgm.trainer.batch import Inputs
from pgm.trainer.methods import MethodOutput
from pgm.trainer.tasks import Classification, Forward
from torch import Tensor, nn

SMOOTHING = 0.1


class BalancedClassification(Classification):
    """Selected and compared on the mean of the classes' recalls."""

    version: ClassVar[int] = 1
    monitor = "balanced_accuracy"
    primary = "balanced_accuracy"

    def loss(
        self, forward: Forward, inputs: Inputs, targets: Tensor
    ) -> tuple[Tensor, MethodOutput, Mapping[str, Tensor]]:
        """Cross-entropy with smoothed labels."""
        output = forward(inputs)
        loss = nn.functional.cross_entropy(output.logits.float(), targets, label_smoothing=SMOOTHING)
        return loss, output, {}
