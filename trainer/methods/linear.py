"""Linear fusion: one linear combination of the modalities' vectors, and nothing non-linear after it.

The paper says "applies linear combination of features from different modalities" and no more. Read here as sum_m W_m
h_m + b with full matrices W_m, followed by the linear classifier.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from ..batch import Inputs
from .base import Method, MethodOutput, Shape
from .trunk import TrunkConfig, encode


@dataclass(frozen=True)
class LinearConfig(TrunkConfig):
    names: ClassVar[tuple[str, ...]] = ("linear",)

    def build(self, shape: Shape) -> Method:
        return Linear(self, shape)


class Linear(Method):
    """W [h_1; ...; h_M] + b, then the classifier. A missing modality contributes nothing."""

    def __init__(self, config: LinearConfig, shape: Shape) -> None:
        super().__init__()
        self.trunks = config.trunks(shape.widths)
        self.combine = nn.Linear(len(shape.widths) * config.dim, config.dim)
        self.head = nn.Linear(config.dim, shape.outputs)

    def forward(self, inputs: Inputs) -> MethodOutput:
        vectors, _ = encode(self.trunks, inputs)
        fused = self.combine(vectors.flatten(1))
        return MethodOutput(self.head(fused), fused)
