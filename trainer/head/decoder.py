"""The uni-paired decoder: rebuilds a modality's representation from its two partitions (eq. 7).

Decided: the paper calls it an FFN, a concatenation and a cross-attention; Table 5's 7.1M fits one cross-attention block
(queries u, keys and values u and p side by side in the sequence: 7,087,872) or an FFN on [u, p] (7,081,728). The
original representation is never a query: it would leak through the residual.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .block import FeedForward, attend
from .config import PgMConfig
from .dropout import Dropout
from .layout import TokenLayout
from .stacked import LayerNorm, Linear


class CrossDecoder(nn.Module):
    """One post-LN cross-attention block. Branches (..., K, T, D) -> (..., T, D)."""

    def __init__(self, config: PgMConfig) -> None:
        super().__init__()
        dim = config.dim
        self.heads = config.heads
        self.q = Linear(dim, dim)
        self.kv = Linear(dim, 2 * dim)
        self.out = Linear(dim, dim)
        self.feedforward = FeedForward(dim, config.feedforward)
        self.norm_attention = LayerNorm(dim)
        self.norm_feedforward = LayerNorm(dim)
        self.dropout = Dropout(config.dropout)

    def forward(self, branches: Float[Tensor, "*G K T D"], layout: TokenLayout) -> Float[Tensor, "*G T D"]:
        """Eq. 7: queries are the first of K branches, keys and values all branches."""
        count, query = branches.shape[-3], branches.unbind(-3)[0]
        memory = layout.split(self.kv(branches))
        mixed = []
        for bucket, q, kv in zip(layout.buckets, layout.unpack(self.q(query)), memory, strict=True):
            k, v = bucket.beside(kv).chunk(2, -1)
            bias = bucket.bias(q.dtype)
            mixed.append(attend(q, k, v, self.heads, None if bias is None else bias.repeat(1, count)))
        x = self.norm_attention(query + self.dropout(self.out(layout.pack(mixed))))
        y: Tensor = self.norm_feedforward(x + self.dropout(self.feedforward(x)))
        return y


class FeedForwardDecoder(nn.Module):
    """Linear(2D -> ff), GELU, Linear(ff -> D) on each token's [u, p]. (..., K, T, D) -> (..., T, D)."""

    def __init__(self, config: PgMConfig) -> None:
        super().__init__()
        self.up = Linear(len(config.branches) * config.dim, config.feedforward)
        self.down = Linear(config.feedforward, config.dim)
        self.dropout = Dropout(config.dropout)

    def forward(self, branches: Float[Tensor, "*G K T D"], layout: TokenLayout) -> Float[Tensor, "*G T D"]:
        """Eq. 7 on the feature concatenation."""
        side_by_side = branches.transpose(-3, -2).flatten(-2)
        y: Tensor = self.down(self.dropout(F.gelu(self.up(side_by_side))))
        return y


def build_decoder(config: PgMConfig) -> CrossDecoder | FeedForwardDecoder:
    """The decoder a configuration asks for."""
    return CrossDecoder(config) if config.decoder == "cross" else FeedForwardDecoder(config)
