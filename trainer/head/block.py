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


class ScoreMask(NamedTuple):
    """Eq. 4's mask in the form an attention takes it; None leaves that form out.

    query_key: (T, D) multiplies the input of the query and key projections.
    key: (T,) is added to the scores of a token as key. channel: (R, D) is added to the scores of a feature as key.
    """

    query_key: Tensor | None = None
    key: Tensor | None = None
    channel: Tensor | None = None


UNMASKED = ScoreMask()


def score_bias(bucket: Bucket, key: Float[Tensor, " T"] | None, like: Tensor) -> Float[Tensor, "R 1 1 S"] | None:
    """What is added to the scores of each key token: the padding's, plus the gate's when there is one.

    Finite everywhere, so that a row without any real token softmaxes to something finite; the padding lies so far below
    C = -1e4 that a row whose real tokens are all masked by the gate still does not look at padding.
    """
    bias = None
    if bucket.mask is not None:
        lowest = torch.finfo(like.dtype).min / 2
        bias = torch.zeros_like(bucket.mask, dtype=like.dtype).masked_fill(~bucket.mask, lowest)
    if key is not None:
        gate = bucket.unpack(key.to(like.dtype).unsqueeze(1)).squeeze(2)
        bias = gate if bias is None else bias + gate
    return None if bias is None else level(bias)[:, None, None, :]


def level(bias: Float[Tensor, "*rows K"]) -> Float[Tensor, "*rows K"]:
    """The same mask for a softmax, with its largest value at zero.

    Beside C = -1e4 a float32 score keeps three decimals; where the gate masks every key, only this saves the scores.
    """
    return bias - bias.amax(-1, keepdim=True)


def attend(
    q: Float[Tensor, "R Q D"], k: Float[Tensor, "R K D"], v: Float[Tensor, "R K D"], heads: int, bias: Tensor | None
) -> Float[Tensor, "R Q D"]:
    """Eq. 5: softmax(QK^T / sqrt(d) + M) V per head."""
    rows, queries, dim = q.shape
    q, k, v = (x.view(rows, x.shape[1], heads, dim // heads).transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).reshape(rows, queries, dim)


class SelfAttention(nn.Module):
    """Multi-head self-attention among the tokens of one sample's modality. (T, D) -> (T, D)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def project(self, x: Float[Tensor, "T D"], mask: ScoreMask) -> Float[Tensor, "T 3*D"]:
        if mask.query_key is None:
            qkv: Tensor = self.qkv(x)
            return qkv
        split = 2 * x.shape[1]
        weight, bias = self.qkv.weight, self.qkv.bias
        qk = F.linear(mask.query_key * x, weight[:split], bias[:split])
        return torch.cat([qk, F.linear(x, weight[split:], bias[split:])], 1)

    def forward(self, x: Float[Tensor, "T D"], layout: TokenLayout, mask: ScoreMask = UNMASKED) -> Float[Tensor, "T D"]:
        keys = None if mask.key is None else layout.split(mask.key)
        mixed = []
        for i, (bucket, qkv) in enumerate(zip(layout.buckets, layout.unpack(self.project(x, mask)), strict=True)):
            bias = score_bias(bucket, None if keys is None else keys[i], qkv)
            q, k, v = qkv.chunk(3, 2)
            mixed.append(attend(q, k, v, self.heads, bias))
        attended: Tensor = self.out(layout.pack(mixed))
        return attended


class ChannelAttention(SelfAttention):
    """Attention across features: scores are D/heads x D/heads; eqs. 5-6 add their mask to the key features as written.

    Queries and keys are feature columns over a sample's real tokens; the scale is the square root of their number.
    """

    def forward(self, x: Float[Tensor, "T D"], layout: TokenLayout, mask: ScoreMask = UNMASKED) -> Float[Tensor, "T D"]:
        biases: tuple[Tensor | None, ...] = (None,) * len(layout.buckets)
        if mask.channel is not None:
            biases = layout.split_rows(mask.channel)
        pairs = zip(layout.buckets, self._rows(x, layout), biases, strict=True)
        attended: Tensor = self.out(layout.pack([self._across(bucket, qkv, bias) for bucket, qkv, bias in pairs]))
        return attended

    def _rows(self, x: Tensor, layout: TokenLayout) -> list[Tensor]:
        parts = layout.split(self.qkv(x))
        return [b.padded(part) for b, part in zip(layout.buckets, parts, strict=True)]

    def _across(self, bucket: Bucket, qkv: Float[Tensor, "R S E"], bias: Tensor | None) -> Float[Tensor, "R S E//3"]:
        rows, length, width = qkv.shape
        head = width // 3 // self.heads
        # (R, heads, D/heads, S): features as the attended axis.
        q, k, v = qkv.view(rows, length, 3, self.heads, head).permute(2, 0, 3, 4, 1)
        if bucket.mask is None:
            scores = q @ k.transpose(2, 3) / math.sqrt(length)
        else:
            count = bucket.mask.sum(1).clamp(min=1).to(q.dtype)
            scores = q @ k.transpose(2, 3) / count.sqrt().view(-1, 1, 1, 1)
        if bias is not None:
            scores = scores + level(bias.to(scores.dtype).view(rows, self.heads, 1, head))
        mixed: Tensor = scores.softmax(3) @ v
        return mixed.permute(0, 3, 1, 2).reshape(rows, length, width // 3)


class FeedForward(nn.Module):
    """Linear, GELU, Linear. (T, D) -> (T, D)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(dim, hidden)
        self.down = nn.Linear(hidden, dim)

    def forward(self, x: Float[Tensor, "T D"]) -> Float[Tensor, "T D"]:
        y: Tensor = self.down(F.gelu(self.up(x)))
        return y


class TransformerBlock(nn.Module):
    """x <- LN(x + attention(x)); x <- LN(x + FFN(x)). (T, D) -> (T, D)."""

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float, channel: bool = False) -> None:
        super().__init__()
        self.attention = (ChannelAttention if channel else SelfAttention)(dim, heads)
        self.feedforward = FeedForward(dim, hidden)
        self.norm_attention = nn.LayerNorm(dim)
        self.norm_feedforward = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Float[Tensor, "T D"], layout: TokenLayout, mask: ScoreMask = UNMASKED) -> Float[Tensor, "T D"]:
        x = self.norm_attention(x + self.dropout(self.attention(x, layout, mask)))
        y: Tensor = self.norm_feedforward(x + self.dropout(self.feedforward(x)))
        return y
