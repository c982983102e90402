"""The post-LN Transformer block of learners, decoder and fusion, on flat tokens (T, D).

Decided: BERT's block (the learners of the authors' later code are BLIP-2's Q-Former), 7,087,872 parameters at width
768; dropout on the two residual branches and not on attention probabilities, which keeps fused attention usable.
Cost: attention pads to the longest sample of a bucket, everything else runs on real tokens only.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .dropout import Dropout
from .layout import Bucket, TokenLayout
from .stacked import LayerNorm, Linear


class ScoreMask(NamedTuple):
    """Eq. 4's mask in the form an attention takes it; None leaves that form out.

    query_key: (..., T, D) multiplies the input of the query and key projections.
    key: (..., T) is added to the scores of a token as key. channel: (..., R, D), of a feature as key.
    """

    query_key: Tensor | None = None
    key: Tensor | None = None
    channel: Tensor | None = None


UNMASKED = ScoreMask()


def level(bias: Float[Tensor, "*rows K"]) -> Float[Tensor, "*rows K"]:
    """The same mask for a softmax, with its largest value at zero.

    Beside C = -1e4 a float32 score keeps three decimals; where the gate masks every key, only this saves the scores.
    """
    return bias - bias.amax(-1, keepdim=True)


def attend(
    q: Float[Tensor, "*G R Q D"],
    k: Float[Tensor, "*G R K D"],
    v: Float[Tensor, "*G R K D"],
    heads: int,
    bias: Float[Tensor, "*_ R K"] | None,
) -> Float[Tensor, "*G R Q D"]:
    """Eq. 5: softmax(QK^T / sqrt(d) + M) V per head; bias: what M adds to the scores of each key."""
    if bias is not None:
        bias = bias.expand(*k.shape[:-1]).reshape(-1, 1, 1, k.shape[-2])
    shape = q.shape
    q, k, v = (torch.unflatten(x.flatten(0, -3), -1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).reshape(shape)


class SelfAttention(nn.Module):
    """Multi-head self-attention among the tokens of one sample's modality. (..., T, D) -> (..., T, D)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(dim, 3 * dim)
        self.out = Linear(dim, dim)

    def project(self, x: Float[Tensor, "*G T D"], mask: ScoreMask) -> Float[Tensor, "*G T 3*D"]:
        qkv: Tensor = self.qkv(x)
        if mask.query_key is None:
            return qkv
        split = 2 * x.shape[-1]
        return torch.cat([self.qkv(mask.query_key * x)[..., :split], qkv[..., split:]], -1)

    def forward(
        self, x: Float[Tensor, "*G T D"], layout: TokenLayout, mask: ScoreMask = UNMASKED
    ) -> Float[Tensor, "*G T D"]:
        keys = None if mask.key is None else layout.unpack(mask.key.to(x.dtype).unsqueeze(-1))
        mixed = []
        for i, (bucket, qkv) in enumerate(zip(layout.buckets, layout.unpack(self.project(x, mask)), strict=True)):
            bias = bucket.bias(qkv.dtype)
            if keys is not None:
                gate = keys[i].squeeze(-1).to(qkv.dtype)
                bias = level(gate if bias is None else bias + gate)
            q, k, v = qkv.chunk(3, -1)
            mixed.append(attend(q, k, v, self.heads, bias))
        attended: Tensor = self.out(layout.pack(mixed))
        return attended


class ChannelAttention(SelfAttention):
    """Attention across features: scores are D/heads x D/heads; eqs. 5-6 add their mask to the key features as written.

    Queries and keys are feature columns over a sample's real tokens; the scale is the square root of their number.
    """

    def forward(
        self, x: Float[Tensor, "*G T D"], layout: TokenLayout, mask: ScoreMask = UNMASKED
    ) -> Float[Tensor, "*G T D"]:
        biases: tuple[Tensor | None, ...] = (None,) * len(layout.buckets)
        if mask.channel is not None:
            biases = layout.split_rows(mask.channel)
        parts = layout.split(self.qkv(x))
        rows = [b.padded(part) for b, part in zip(layout.buckets, parts, strict=True)]
        pairs = zip(layout.buckets, rows, biases, strict=True)
        attended: Tensor = self.out(layout.pack([self._across(bucket, qkv, bias) for bucket, qkv, bias in pairs]))
        return attended

    def _across(self, bucket: Bucket, qkv: Float[Tensor, "*G R S E"], bias: Tensor | None) -> Tensor:
        """(..., R, S, 3D) -> (..., R, S, D)."""
        q, k, v = (torch.unflatten(x, -1, (self.heads, -1)).movedim(-3, -1) for x in qkv.chunk(3, -1))
        if bucket.mask is None:
            scores = q @ k.mT / math.sqrt(bucket.length)
        else:
            count = bucket.mask.sum(1).clamp(min=1).to(q.dtype)
            scores = q @ k.mT / count.sqrt().view(-1, 1, 1, 1)
        if bias is not None:
            scores = scores + level(torch.unflatten(bias.to(scores.dtype), -1, (self.heads, 1, -1)))
        # (..., R, heads, D/heads, S): features were the attended axis.
        mixed: Tensor = scores.softmax(-1) @ v
        return mixed.movedim(-1, -3).flatten(-2)


class FeedForward(nn.Module):
    """Linear, GELU, Linear. (..., T, D) -> (..., T, D)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.up = Linear(dim, hidden)
        self.down = Linear(hidden, dim)

    def forward(self, x: Float[Tensor, "*G T D"]) -> Float[Tensor, "*G T D"]:
        y: Tensor = self.down(F.gelu(self.up(x)))
        return y


class TransformerBlock(nn.Module):
    """x <- LN(x + attention(x)); x <- LN(x + FFN(x)). (..., T, D) -> (..., T, D)."""

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float, channel: bool = False) -> None:
        super().__init__()
        self.attention = (ChannelAttention if channel else SelfAttention)(dim, heads)
        self.feedforward = FeedForward(dim, hidden)
        self.norm_attention = LayerNorm(dim)
        self.norm_feedforward = LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "*G T D"], layout: TokenLayout, mask: ScoreMask = UNMASKED
    ) -> Float[Tensor, "*G T D"]:
        x = self.norm_attention(x + self.dropout(self.attention(x, layout, mask)))
        y: Tensor = self.norm_feedforward(x + self.dropout(self.feedforward(x)))
        return y
