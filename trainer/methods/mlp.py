"""MLP fusion: a multilayer perceptron of two hidden layers over the concatenated vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from ..batch import Inputs
from ..head.dropout import Dropout
from .base import Method, MethodOutput, Shape
from .trunk import TrunkConfig, encode


@dataclass(frozen=True)
class MLPConfig(TrunkConfig):
    names: ClassVar[tuple[str, ...]] = ("mlp",)

    def build(self, shape: Shape) -> Method:
        return MLP(self, shape)


class MLP(Method):
    """[h_1; ...; h_M] -> hidden (M dim) -> hidden (dim) -> outputs, GELU and dropout between."""

    def __init__(self, config: MLPConfig, shape: Shape) -> None:
        super().__init__()
        self.trunks = config.trunks(shape.widths)
        wide, dim = len(shape.widths) * config.dim, config.dim
        hidden = [nn.Linear(wide, wide), nn.GELU(), Dropout(config.dropout)]
        self.fuse = nn.Sequential(*hidden, nn.Linear(wide, dim), nn.GELU(), Dropout(config.dropout))
        self.head = nn.Linear(dim, shape.outputs)

    def forward(self, inputs: Inputs) -> MethodOutput:
        vectors, _ = encode(self.trunks, inputs)
        fused = self.fuse(vectors.flatten(1))
        return MethodOutput(self.head(fused), fused)
