"""Concatenation: the modalities' vectors side by side into a two-layer classifier. The baseline to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..batch import Inputs
from .base import Method, MethodOutput, Shape
from .trunk import TrunkConfig, classifier, encode


@dataclass(frozen=True)
class ConcatConfig(TrunkConfig):
    names: ClassVar[tuple[str, ...]] = ("concat",)

    def build(self, shape: Shape) -> Method:
        return Concat(self, shape)


class Concat(Method):
    """[h_1; ...; h_M] -> Linear, GELU -> Linear. A missing modality's block is zero."""

    def __init__(self, config: ConcatConfig, shape: Shape) -> None:
        super().__init__()
        self.trunks = config.trunks(shape.widths)
        self.fuse, self.head = classifier(len(shape.widths) * config.dim, config.dim, shape.outputs, config.dropout)

    def forward(self, inputs: Inputs) -> MethodOutput:
        vectors, _ = encode(self.trunks, inputs)
        fused = self.fuse(vectors.flatten(1))
        return MethodOutput(self.head(fused), fused)
