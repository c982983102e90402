"""Late fusion of the modalities' logits at test time: by entropy, equally, or with weights chosen on validation.

MLA weights a sample's modalities by lambda_m = exp(max e - e_m) / sum_u exp(max e - e_u), e_m the entropy of modality
m's class probabilities. The maximum cancels: lambda is the softmax of -e over the modalities. As e lies in [0, ln C],
no weight exceeds another by more than a factor of C. A sample's missing modalities get no weight and the rest sum to 1.
"batch_entropy" is what the released code computes: probabilities over the BATCH axis and one number a modality for all
samples of a batch, so that answers depend on who else is in it.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import Literal

import torch
from torch import Tensor

from .base import Criterion

Weighting = Literal["entropy", "equal", "validated", "batch_entropy"]
GRID_POINTS = 300  # the most combinations of constant weights that are tried
FLOOR = 1e-3  # of a constant weight: a sample that has only the modality nobody trusts still gets its answer


def entropy(logits: Tensor, axis: int = -1) -> Tensor:
    """-sum p ln p along `axis`, finite for any finite logits."""
    log_p = logits.float().log_softmax(axis)
    return -(log_p.exp() * log_p).sum(axis)


def shares_of(weighting: Weighting, logits: Tensor, present: Tensor, constants: Tensor) -> Tensor:
    """Weights (B, M) of the modalities: zero where missing, summing to 1 (to 0 for a sample without any).

    logits: (B, M, C); present: (B, M) bool; constants: (M,), used by "validated".
    """
    if weighting == "entropy":
        return shared(torch.exp(-entropy(logits)) * present)
    if weighting == "batch_entropy":
        uncertain = [released_entropy(logits[present[:, m], m]) for m in range(logits.shape[1])]
        certainty = (-torch.stack(uncertain)).masked_fill(~present, float("-inf"))
        return certainty.softmax(dim=1).nan_to_num(0.0)
    if weighting == "validated":
        return shared(constants * present)
    return shared(present.to(logits.dtype))


def shared(weights: Tensor) -> Tensor:
    """Non-negative weights (B, M) scaled to sum 1."""
    return weights / weights.sum(dim=1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)


def released_entropy(logits: Tensor) -> Tensor:
    """The released code's one number for a whole batch, () from (B, C), up to C ln B."""
    return entropy(logits, axis=0).sum() if len(logits) else logits.new_zeros(())


def fused(logits: Tensor, shares: Tensor) -> Tensor:
    """sum_m lambda_m logits_m: (B, C) from (B, M, C) and (B, M)."""
    return (logits * shares.unsqueeze(-1).to(logits.dtype)).sum(dim=1)


def grid(modalities: int) -> Iterable[tuple[float, ...]]:
    """Weights on the simplex in equal steps, at most 20 and as fine as GRID_POINTS allows."""
    fitting = [n for n in range(20, 0, -1) if points(n, modalities) <= GRID_POINTS]
    steps = fitting[0] if fitting else 1
    for combination in product(range(steps + 1), repeat=modalities - 1):
        if sum(combination) <= steps:
            yield (*(c / steps for c in combination), 1 - sum(combination) / steps)


def points(steps: int, modalities: int) -> int:
    """How many points a grid of so many steps has: the binomial of steps + modalities - 1 and modalities - 1."""
    count = 1
    for i in range(1, modalities):
        count = count * (steps + i) // i
    return count


def validated(logits: Tensor, present: Tensor, targets: Tensor, criterion: Criterion) -> Tensor:
    """The constant weights (M,) with the lowest loss on validation outputs (N, M, C); the first of equal ones."""
    best, lowest = None, float("inf")
    for point in grid(logits.shape[1]):
        constants = torch.tensor(point, device=logits.device).clamp(min=FLOOR)
        loss = float(criterion(fused(logits, shared(constants * present)), targets))
        if best is None or loss < lowest:
            best, lowest = constants / constants.sum(), loss
    assert best is not None
    return best
