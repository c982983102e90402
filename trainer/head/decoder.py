"""The uni-paired decoder: rebuilds a modality's representation from its two partitions (eq. 7).

Decided: the paper calls it an FFN, a concatenation and a cross-attention; Table 5's 7.1M fits one cross-attention block
(queries u, keys and values u and p side by side in the sequence: 7,087,872) or an FFN on [u, p] (7,081,728). The
original representation is never a query: it would leak through the residual.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .block import FeedForward, attend, score_bias
from .config import PgMConfig
from .dropout import Dropout
from .layout import TokenLayout


class CrossDecoder(nn.Module):
    """One post-LN cross-attention block. query (T, D), memory: one or two (T, D) -> (T, D)."""

    def __init__(self, config: PgMConfig) -> None:
        super().__init__()
        dim = config.dim
        self.heads = config.heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)
        self.feedforward = FeedForward(dim, config.feedforward)
        self.norm_attention = nn.LayerNorm(dim)
        self.norm_feedforward = nn.LayerNorm(dim)
        self.dropout = Dropout(config.dropout)

    def forward(self, branches: list[Float[Tensor, "T D"]], layout: TokenLayout) -> Float[Tensor, "T D"]:
        """Eq. 7: queries are the first branch, keys and values all branches."""
        query = branches[0]
        memory = [layout.unpack(self.kv(branch)) for branch in branches]
        mixed = []
        for i, (bucket, q) in enumerate(zip(layout.buckets, layout.unpack(self.q(query)), strict=True)):
            kv = torch.cat([m[i] for m in memory], 1)
            bias = score_bias(bucket, None, q)
            bias = None if bias is None else bias.repeat(1, 1, 1, len(branches))
            k, v = kv.chunk(2, 2)
            mixed.append(attend(q, k, v, self.heads, bias))
        x = self.norm_attention(query + self.dropout(self.out(layout.pack(mixed))))
        y: Tensor = self.norm_feedforward(x + self.dropout(self.feedforward(x)))
        return y


class FeedForwardDecoder(nn.Module):
    """Linear(2D -> ff), GELU, Linear(ff -> D) on each token's [u, p]. (T, D) twice -> (T, D)."""

    def __init__(self, config: PgMConfig) -> None:
        super().__init__()
        self.up = nn.Linear(len(config.branches) * config.dim, config.feedforward)
        self.down = nn.Linear(config.feedforward, config.dim)
        self.dropout = Dropout(config.dropout)

    def forward(self, branches: list[Float[Tensor, "T D"]], layout: TokenLayout) -> Float[Tensor, "T D"]:
        """Eq. 7 on the feature concatenation."""
        y: Tensor = self.down(self.dropout(F.gelu(self.up(torch.cat(branches, 1)))))
        return y


def build_decoder(config: PgMConfig) -> CrossDecoder | FeedForwardDecoder:
    """The decoder a configuration asks for."""
    return CrossDecoder(config) if config.decoder == "cross" else FeedForwardDecoder(config)
