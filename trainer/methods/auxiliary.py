"""The joint network with one more classifier a modality, which supervises its learner alone; the joint part answers."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from .base import Criterion, Shape
from .joint import Joint, Parts, present_loss
from .trunk import TrunkConfig


class Supervised(Joint):
    """Joint, and `auxiliary[m]`: (B, D) vector of modality m to (B, C) logits, used in training only."""

    def __init__(self, config: TrunkConfig, shape: Shape) -> None:
        super().__init__(config, shape)
        self.auxiliary = nn.ModuleDict({m: nn.Linear(config.dim, shape.outputs) for m in shape.widths})

    def losses_alone(self, criterion: Criterion, parts: Parts, targets: Tensor) -> Mapping[str, Tensor]:
        """Each modality's own loss over the samples that have it; without the modalities that none has."""
        found: dict[str, Tensor] = {}
        for i, (modality, head) in enumerate(self.auxiliary.items()):
            loss = present_loss(criterion, head(parts.vectors[:, i]), targets, parts.having[i])
            if loss is not None:
                found[modality] = loss
        return found
