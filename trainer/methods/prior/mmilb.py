"""MMILB: a lower bound on the mutual information of two modalities' vectors (MMIM, Han et al., EMNLP 2021, sec. 3.4).

    I(x; y) >= H(y) + E log q(y|x),      q(y|x) = N(mu(x), diag exp s(x)),  mu and s two-layer perceptrons

`likelihood` is the second term as the authors' code has it, without log-variance and constant: the mean over the batch
of -sum (mu - y)^2 / (2 exp s). It is at most 0 and can be had for nothing by a large s; that is the published one.
`entropy` is the first term under two Gaussians, one for the positive and one for the negative samples of this batch and
of the batch before, on vectors projected to a quarter of their width by a layer that is never trained (in the authors'
code it belongs to the optimiser of a step in which it has no gradient):

    H = 1/4 (ln det S+ + ln det S-),     S the mean outer product of the centred vectors

Decided: where a sign has fewer samples than dimensions, or the vectors no spread in some direction, S is singular and
the published code returns -inf or nan. Here it is S + j I always, j = 1e-4: against variances of about 0.1 that changes
little, and what has no spread costs a finite number. `degenerate` says when j and not S made a determinant what it is,
and the method reports how often.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

JITTER = 1e-4


class MMILB(nn.Module):
    """x (B, d_x) and y (B, d_y) -> the two terms of the bound."""

    def __init__(self, width_x: int, width_y: int) -> None:
        super().__init__()
        self.mean = perceptron(width_x, width_y)
        self.log_variance = perceptron(width_x, width_y)
        self.project = nn.Linear(width_y, max(1, width_y // 4)).requires_grad_(False)

    def likelihood(self, x: Tensor, y: Tensor, both: Tensor) -> Tensor:
        """The mean log-likelihood of y under q, up to the variance's own term, over the samples that have `both`.

        both: (B,) bool; 0 where none has.
        """
        squares = (self.mean(x) - y).square() / (2 * self.log_variance(x).exp())
        return -mean_over(squares.sum(dim=1), both)

    def projected(self, y: Tensor) -> Tensor:
        """(B, d_y / 4): what the entropy is measured on."""
        small: Tensor = self.project(y).tanh()
        return small


def mean_over(values: Tensor, chosen: Tensor) -> Tensor:
    """() the mean of the chosen ones of (B,) values; 0 for none."""
    return (values * chosen).sum() / chosen.sum().clamp(min=1)


def perceptron(width_in: int, width: int) -> nn.Sequential:
    """Two layers with a ReLU between."""
    return nn.Sequential(nn.Linear(width_in, width), nn.ReLU(), nn.Linear(width, width))


def entropy(vectors: Tensor, labels: Tensor) -> Tensor:
    """H of projected vectors (N, k) with labels (N,); the samples labelled zero take no part. Finite for any N >= 1."""
    return 0.25 * (log_determinant(vectors, labels > 0) + log_determinant(vectors, labels < 0))


def log_determinant(vectors: Tensor, chosen: Tensor) -> Tensor:
    """ln det of the chosen rows' covariance + j I."""
    with torch.autocast(vectors.device.type, enabled=False):  # determinants do not exist in bfloat16
        return torch.logdet(jittered(vectors, chosen))


def jittered(vectors: Tensor, chosen: Tensor) -> Tensor:
    """(k, k) S + j I of the chosen rows; in float32 at least, without a look at how many there are."""
    vectors = vectors if vectors.dtype == torch.float64 else vectors.float()
    weight = chosen.to(vectors.dtype).unsqueeze(1)
    count = weight.sum().clamp(min=1)
    centred = (vectors - (vectors * weight).sum(dim=0) / count) * weight
    covariance: Tensor = centred.T @ centred / count
    return covariance + JITTER * torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)


@torch.no_grad()
def degenerate(vectors: Tensor, labels: Tensor) -> Tensor:
    """() 1.0 where the jitter decides a sign's determinant, else 0.0.

    d ln det(S + j I) / d ln j = j tr (S + j I)^-1 counts the directions that have no variance but the jitter's: about
    0 for a good S, 1 for each direction that S lacks. One that is made up by half is called degenerate.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        both = torch.stack([jittered(vectors, labels > 0), jittered(vectors, labels < 0)])
        made_up: Tensor = JITTER * torch.linalg.inv_ex(both).inverse.diagonal(dim1=1, dim2=2).sum(dim=1)
    return (made_up > 0.5).any().float()
