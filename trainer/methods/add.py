"""Addition: the sum of the modalities' vectors, over those a sample has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..batch import Inputs
from .base import Method, MethodOutput, Shape
from .trunk import TrunkConfig, classifier, encode


@dataclass(frozen=True)
class AddConfig(TrunkConfig):
    names: ClassVar[tuple[str, ...]] = ("add",)

    def build(self, shape: Shape) -> Method:
        return Add(self, shape)


class Add(Method):
    """M times the mean of the vectors that are there, so that a missing modality does not change the scale."""

    def __init__(self, config: AddConfig, shape: Shape) -> None:
        super().__init__()
        self.trunks = config.trunks(shape.widths)
        self.fuse, self.head = classifier(config.dim, config.dim, shape.outputs, config.dropout)

    def forward(self, inputs: Inputs) -> MethodOutput:
        vectors, present = encode(self.trunks, inputs)
        share = vectors.shape[1] / present.sum(dim=1, keepdim=True).clamp(min=1)
        fused = self.fuse((vectors * present.unsqueeze(-1)).sum(dim=1) * share)
        return MethodOutput(self.head(fused), fused)
