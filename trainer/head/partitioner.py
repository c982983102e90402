"""The modal partitioner: two monotone gates cut a modality's features into an overlapping prefix and suffix (eqs. 1-3).

Decided: the logits have weights (Table 5 gives the partitioner 1.1M parameters, eq. 1 writes none): one D x D map for
each gate, from the average token; 1,181,184 parameters at width 768. Gates are computed in float32 at least.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from .config import Hard, PgMConfig
from .stacked import Linear


def cumsoftmax(logits: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
    """cumsum(softmax(x)) over the last axis: non-decreasing, and exactly 1 at the end."""
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    shares = torch.softmax(logits, -1)
    ordered = logits.device.type == "cuda" and torch.are_deterministic_algorithms_enabled()
    total = (ordered_sums(shares) if ordered else shares.cumsum(-1)).clamp(max=1.0)
    # The sum of a softmax is 1 only up to rounding; the last gate value is 1 by definition.
    return torch.cat([total[..., :-1], torch.ones_like(total[..., -1:])], -1)


def ordered_sums(shares: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
    """Running sums as one product in float64: torch's scan on a GPU has no fixed order."""
    size = shares.shape[-1]
    upper = torch.ones(size, size, dtype=torch.float64, device=shares.device).triu()
    return (shares.double() @ upper).to(shares.dtype)


class Gates(NamedTuple):
    """Soft gates of one iteration (eq. 1). uni: non-increasing, ends at 0; paired: non-decreasing, ends at 1.

    Shapes (B, 1, D), or (B, S, D) for gate_scope="token"; inside the model (M, B, D) or (T, D).
    """

    uni: Tensor
    paired: Tensor

    @property
    def shared(self) -> Tensor:
        """g_s, the overlap (eq. 2)."""
        return self.uni * self.paired

    def hard(self) -> tuple[Bool[Tensor, "*rows D"], Bool[Tensor, "*rows D"]]:
        """The binary gates of eq. 4: a prefix and a suffix."""
        return self.uni >= 0.5, self.paired >= 0.5


def gates_of(
    uni: Float[Tensor, "*rows bins"], paired: Float[Tensor, "*rows bins"], temperature: float = 1.0, chunk: int = 1
) -> Gates:
    """Eq. 1 from the two gates' logits; each bin covers `chunk` neighbouring features."""
    logits = torch.stack([uni, paired])
    both = cumsoftmax(logits if temperature == 1 else logits / temperature)
    if chunk > 1:
        both = both.repeat_interleave(chunk, -1)
    reversed_uni, later = both.unbind()
    return Gates(1 - reversed_uni, later)


class Partitioner(nn.Module):
    """Gate logits of one modality (eq. 1) from u and p, or I, averaged or token by token: (..., D) -> (..., bins)."""

    def __init__(self, config: PgMConfig) -> None:
        super().__init__()
        self.config = config
        bins = config.dim // config.gate_chunk
        self.uni_gate = self.paired_gate = self.both_gates = None
        if config.gate_logits == "own":
            self.uni_gate = Linear(config.dim, bins)
            self.paired_gate = Linear(config.dim, bins)
        elif config.gate_logits == "shared":
            self.both_gates = Linear(config.dim, 2 * bins)

    def logits(
        self, u: Float[Tensor, "*R D"], p: Float[Tensor, "*R D"], original: Float[Tensor, "*R D"]
    ) -> tuple[Float[Tensor, "*R bins"], Float[Tensor, "*R bins"]]:
        """By `gate_logits`: W_u u and W_p p, one map of I in two halves, or u and p themselves."""
        if self.uni_gate is not None and self.paired_gate is not None:
            return self.uni_gate(u), self.paired_gate(p)
        if self.both_gates is not None:
            uni, paired = self.both_gates(original).chunk(2, -1)
            return uni, paired
        chunk = self.config.gate_chunk
        if chunk > 1:
            u, p = (torch.unflatten(x, -1, (-1, chunk)).mean(-1) for x in (u, p))
        return u, p

    def forward(self, u: Float[Tensor, "*R D"], p: Float[Tensor, "*R D"], original: Float[Tensor, "*R D"]) -> Gates:
        """Eq. 1 for one modality."""
        return gates_of(*self.logits(u, p, original), self.config.gate_temperature, self.config.gate_chunk)


def partition(
    features: Float[Tensor, "2 *rows D"], original: Float[Tensor, "*rows D"], gates: Float[Tensor, "2 *rows D"]
) -> Float[Tensor, "2 *rows D"]:
    """Eqs. 2-3: u' = upper * u + I_s and p' = downer * p + I_s, I_s = g_s * I from the original representation.

    features: u and p; gates: the uni-modal and the paired-modal.
    """
    uni, paired = gates.unbind()
    shared = uni * paired
    return torch.addcmul(shared * original, gates - shared, features)


def harden(gate: Float[Tensor, "*rows D"], how: Hard) -> Float[Tensor, "*rows D"]:
    """The binary gate of eq. 4: 1 where g >= 0.5, with g's gradient (straight-through) or none; or g itself (soft)."""
    if how == "soft":
        return gate
    binary = (gate >= 0.5).to(gate.dtype)
    return binary if how == "detached" else gate + (binary - gate).detach()
