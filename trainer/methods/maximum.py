"""Element-wise maximum of the modalities' vectors, over those a sample has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..batch import Inputs
from .base import Method, MethodOutput, Shape
from .trunk import TrunkConfig, classifier, encode


@dataclass(frozen=True)
class MaximumConfig(TrunkConfig):
    names: ClassVar[tuple[str, ...]] = ("max",)

    def build(self, shape: Shape) -> Method:
        return Maximum(self, shape)


class Maximum(Method):
    """max_m h_m per feature; a sample without any modality gets zeros."""

    def __init__(self, config: MaximumConfig, shape: Shape) -> None:
        super().__init__()
        self.trunks = config.trunks(shape.widths)
        self.fuse, self.head = classifier(config.dim, config.dim, shape.outputs, config.dropout)

    def forward(self, inputs: Inputs) -> MethodOutput:
        vectors, present = encode(self.trunks, inputs)
        lowest = torch.finfo(vectors.dtype).min
        largest = vectors.masked_fill(~present.unsqueeze(-1), lowest).amax(dim=1)
        fused = self.fuse(largest.masked_fill(~present.any(dim=1, keepdim=True), 0.0))
        return MethodOutput(self.head(fused), fused)
