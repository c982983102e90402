"""Contrastive losses with the batch's other samples as negatives: CPC of MMIM, InfoNCE of UniMSE.

    nce = -mean_i ( <a_i, b_i> / T - ln sum_j exp(<a_i, b_j> / T) ),    a, b of length 1

CPC (MMIM, section 3.5): a is a modality's vector, b what a linear layer predicts of it from the fused vector, T = 1.
InfoNCE (UniMSE, section 3.5): a is the text, b audio or vision, T = 0.1. Both are one-sided: a asks, b answers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .mmilb import mean_over

SMALLEST = 1e-12  # length of a vector that is taken for zero


def info_nce(asking: Tensor, answering: Tensor, valid: Tensor, temperature: float = 1.0) -> Tensor:
    """() from two (B, d): row i of one belongs to row i of the other; 0 where no row is valid.

    valid: (B,) bool, the samples that have both sides; the others ask nothing and are nobody's negatives.
    """
    asking, answering = (nn.functional.normalize(x.float(), dim=1, eps=SMALLEST) for x in (asking, answering))
    scores = asking @ answering.T / temperature
    others = scores.masked_fill(~valid, torch.finfo(scores.dtype).min).logsumexp(dim=1)
    return mean_over(others - scores.diagonal(), valid)


class CPC(nn.Module):
    """How well the fused vector (B, d_z) tells the samples' modality vectors (B, d_x) apart."""

    def __init__(self, width_x: int, width_z: int) -> None:
        super().__init__()
        self.predict = nn.Linear(width_z, width_x)

    def forward(self, x: Tensor, z: Tensor, valid: Tensor) -> Tensor:
        return info_nce(x, self.predict(z), valid)
