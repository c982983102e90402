"""The learner of one modality that all baselines share: tokens in, one vector out.

Projection to the common width, LayerNorm, Transformer blocks over the tokens, mean over the real ones. The block is
the one PgM's learners are made of, at the same width, so that a baseline differs from PgM by how modalities meet and
not by having seen pooled vectors only: on AV-MNIST with random encoders pooled linear probes reach .91 where token
heads reach .95.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..batch import Inputs
from ..head.block import TransformerBlock
from ..head.config import check_heads
from ..head.dropout import Dropout
from ..head.layout import TokenLayout
from ..head.switches import Positive, Share
from .base import MethodConfig, Settings


@dataclass(frozen=True)
class TrunkConfig(MethodConfig):
    """Width, attention heads, feed-forward width, blocks and dropout of every modality's learner; PgM's paper sizes."""

    version: ClassVar[int] = 1
    presets: ClassVar[Mapping[str, Settings]] = {"small": {"dim": 64, "heads": 4, "feedforward": 128}}  # as PgMConfig
    dim: Positive = 768
    heads: Positive = 12
    feedforward: Positive = 3072
    layers: Positive = 1
    dropout: Share = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_heads(self.dim, self.heads)

    def trunks(self, widths: Mapping[str, int]) -> nn.ModuleDict:
        """One trunk a modality."""
        return nn.ModuleDict({name: Trunk(width, self) for name, width in widths.items()})


class Trunk(nn.Module):
    """(B, S, D) tokens and their mask to (B, dim); zeros for a sample without tokens."""

    def __init__(self, width: int, config: TrunkConfig) -> None:
        super().__init__()
        self.project = nn.Linear(width, config.dim)
        self.norm = nn.LayerNorm(config.dim)
        self.blocks = nn.ModuleList(
            TransformerBlock(config.dim, config.heads, config.feedforward, config.dropout) for _ in range(config.layers)
        )

    def forward(self, tokens_BSD: Tensor, mask_BS: Tensor, total: int | None = None) -> Tensor:
        """total: the number of True in the mask, where it is known."""
        batch, length, _ = tokens_BSD.shape
        layout = TokenLayout.build([length], [mask_BS], batch, tokens_BSD.device, [total])
        hidden_TD = self.norm(self.project(layout.pack([tokens_BSD])))
        for block in self.blocks:
            hidden_TD = block(hidden_TD, layout)
        return layout.mean(hidden_TD)


def encode(trunks: nn.ModuleDict, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Every modality through its trunk: vectors (B, M, dim) and presence (B, M) bool, in the order of `trunks`."""
    totals = inputs.totals
    vectors = [trunk(inputs.tokens[name], inputs.masks[name], totals.get(name)) for name, trunk in trunks.items()]
    return torch.stack(vectors, dim=1), torch.stack([inputs.present(name) for name in trunks], dim=1)


def classifier(dim_in: int, dim: int, outputs: int, dropout: float) -> tuple[nn.Module, nn.Linear]:
    """The two layers of eq. 14 (spec A20): fused vector, then task outputs."""
    return nn.Sequential(nn.Linear(dim_in, dim), nn.GELU(), Dropout(dropout)), nn.Linear(dim, outputs)
