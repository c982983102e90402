"""Low-rank fusion: a bilinear interaction of all modalities at the cost of a linear one (Liu et al., ACL 2018, eq. 7).

    fused = sum_r of the product over m of (W_m^r [v_m; 1])

v_m is what the learner that all of PgM's baselines share makes of modality m. Deviations: the sum over ranks has no
weights of its own, as W_m^r can hold them; a modality that a sample lacks has v_m = 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from pgm.trainer.batch import Inputs
from pgm.trainer.head.switches import Positive
from pgm.trainer.methods import Method, MethodOutput, Shape
from pgm.trainer.methods.trunk import TrunkConfig, encode
from torch import nn


@dataclass(frozen=True)
class LowRankConfig(TrunkConfig):
    """rank: terms of the sum. The other fields, and the presets small and paper, are TrunkConfig's."""

    version: ClassVar[int] = 1
    rank: Positive = 4

    def build(self, shape: Shape) -> Method:
        return LowRank(self, shape)


class LowRank(Method):
    """A learner and `rank` projections a modality, one classifier."""

    def __init__(self, config: LowRankConfig, shape: Shape) -> None:
        super().__init__()
        self.rank = config.rank
        self.trunks = config.trunks(shape.widths)
        self.factors = nn.ModuleList(nn.Linear(config.dim, config.rank * config.dim) for _ in shape.widths)
        self.norm = nn.LayerNorm(config.dim)
        self.head = nn.Linear(config.dim, shape.outputs)

    def forward(self, inputs: Inputs) -> MethodOutput:
        vectors, _ = encode(self.trunks, inputs)  # (B, M, dim)
        factors = torch.stack([factor(vectors[:, m]) for m, factor in enumerate(self.factors)], dim=1)
        fused = self.norm(factors.prod(dim=1).unflatten(1, (self.rank, -1)).sum(dim=1))
        return MethodOutput(self.head(fused), fused)
