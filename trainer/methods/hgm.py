"""Head gradient modification: the recursive-least-squares projector of MLA (Zhang et al., CVPR 2024).

P starts as the identity. After a modality's turn with mean vector h (over the samples of the batch that have it):

    k = P h,    P <- P - k k^T / (alpha + h^T k)

so P is (I + sum_t h_t h_t^T / alpha_t)^-1: a matrix that hardly shortens directions no mean has pointed in, and shrinks
the others. A change G P of the head's weight then answers an earlier mean h with G P h, which is nearly zero: what the
head says about the average sample of the modalities before stays. (The released code divides by the matrix
alpha + k h^T instead of the scalar, which is no projector: it can lengthen h.)

P is never reset, so means that differ from batch to batch fill it: over a long run the head comes to rest and the
learners adapt to it. `hgm_free` in metrics.jsonl, the mean eigenvalue of P, tells how far that has gone.

Decided: the update from k alone keeps P symmetric, so P and P^T are the same; means are detached; P lies in a buffer,
float32, and travels with the weights. Cost: D^2 numbers and two matrix-vector products a turn.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Normalise = Literal["none", "fro", "trace"]
Ridge = Literal["released", "constant"]
LARGEST = 0.1  # alpha at the start of an epoch in the released code


class Projector(nn.Module):
    """P (D, D). normalise, after each update: "fro" divides P by its Frobenius norm, as the released code does, which
    also cuts the head's steps to about 1 / sqrt(D); "trace" scales P to the trace D, a mean eigenvalue of 1.
    """

    matrix: Tensor

    def __init__(self, dim: int, normalise: Normalise = "none") -> None:
        super().__init__()
        self.normalise = normalise
        self.register_buffer("matrix", torch.eye(dim))

    @torch.no_grad()
    def observe(self, mean: Tensor, alpha: float, unless: Tensor | None = None) -> None:
        """Take one mean vector (D,) into P; `unless`, () bool, leaves P as it is."""
        mean = mean.to(self.matrix.dtype)
        k = self.matrix @ mean
        seen = self.matrix - torch.outer(k, k) / (alpha + mean @ k)
        if self.normalise == "fro":
            seen = seen / torch.linalg.matrix_norm(seen)
        elif self.normalise == "trace":
            seen = seen / seen.diagonal().mean()
        self.matrix.copy_(seen if unless is None else torch.where(unless, self.matrix, seen))

    @property
    def free(self) -> Tensor:
        """The mean eigenvalue of P, (): the share of a change that is let through; falls from 1 as means add up."""
        return self.matrix.diagonal().mean()

    @torch.no_grad()
    def project(self, change: Tensor) -> Tensor:
        """A change (C, D) of the head's weight, without what would alter its answers to the means so far."""
        return (change.to(self.matrix.dtype) @ self.matrix).to(change.dtype)


def alpha_at(schedule: Ridge, done: float) -> float:
    """alpha when the share `done` of an epoch's batches lies behind: 0.1 falling to 0.01 in every epoch, or 0.1."""
    return LARGEST ** (1.0 + done) if schedule == "released" else LARGEST
