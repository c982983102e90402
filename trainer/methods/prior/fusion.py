"""The place of Table 4: where a prior model fuses its modalities, and what may stand there.

`Concatenation` is what these models have: their modality vectors side by side. `PgMFusion` is PgM with its fusion head
(eqs. 1-14) over the modalities' token sequences, whose fused vector takes that place; nothing else of the model
changes. PgM then reads cached tokens, as it does alone, so its first stage (L^P without labels) is that of the method
pgm at the same sizes and is shared with it; it brings alpha L^P to the task's stage, and its own learning rates.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ...head import FusionConfig, FusionHead, PgM, PgMConfig


@dataclass(frozen=True)
class Fused:
    """vector: (B, width). pretraining: L^P, None without PgM; losses: its parts, to report."""

    vector: Tensor
    pretraining: Tensor | None = None
    losses: Mapping[str, Tensor] = field(default_factory=dict)


class Fusion(nn.Module, ABC):
    """What makes one vector of the modalities."""

    width: int

    @abstractmethod
    def forward(
        self,
        vectors: Mapping[str, Tensor],
        tokens: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
        totals: Mapping[str, int] | None = None,
    ) -> Fused:
        """vectors: modality -> (B, d_m), zeros where missing; tokens, masks: (B, S_m, D_m) and (B, S_m).

        totals: number of True in each mask, where the host knows it.
        """


class Concatenation(Fusion):
    """[h_1; ...; h_M]; `widths`: modality -> d_m."""

    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__()
        self.width = sum(widths.values())

    def forward(
        self,
        vectors: Mapping[str, Tensor],
        tokens: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
        totals: Mapping[str, int] | None = None,
    ) -> Fused:
        return Fused(torch.cat(list(vectors.values()), dim=1))


class PgMFusion(Fusion):
    """PgM over the tokens; I_hat of eq. 14 is the fused vector."""

    def __init__(self, head: PgMConfig, fusion: FusionConfig) -> None:
        super().__init__()
        self.width = head.dim
        self.pgm = PgM(head)
        self.head = FusionHead(fusion)
        # The fused vector is wanted, not the classifier on top of it.
        self.head.head = nn.Identity()  # type: ignore[assignment]

    def forward(
        self,
        vectors: Mapping[str, Tensor],
        tokens: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
        totals: Mapping[str, int] | None = None,
    ) -> Fused:
        parts = self.pgm(tokens, masks, totals=totals)
        fused = self.head(parts.uni, parts.paired, parts.masks).fused
        return Fused(fused, parts.pretraining_loss if parts.losses else None, parts.losses)

    def pretrain(
        self, tokens: Mapping[str, Tensor], masks: Mapping[str, Tensor], totals: Mapping[str, int] | None = None
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """L^P (eq. 11) and its parts."""
        parts = self.pgm(tokens, masks, True, totals)
        return parts.pretraining_loss, parts.losses
