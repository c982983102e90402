"""Dropout whose mask is cheap on a CPU.

Decided: one 64-bit draw serves four elements (16 bits each), because torch's CPU dropout draws a serial double an
element and took more time than the block's matrix products. The rate is rounded to 1/65536. On a GPU, and while a
graph is traced, torch's own dropout runs. Cost: a seed gives different masks than torch's dropout.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LEVELS = 1 << 16


def keep_mask(shape: torch.Size, rate: float) -> Tensor:
    """A bool tensor, False with probability `rate`, from torch's default CPU generator."""
    count = shape.numel()
    bits = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)[:count]
    return bits.ge(round(rate * _LEVELS) - _LEVELS // 2).view(shape)


class Dropout(nn.Module):
    """Zero each element with probability `rate` while training and scale the rest by 1 / (1 - rate)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = round(rate * _LEVELS) / _LEVELS

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return F.dropout(x, self.rate)
        return (x * keep_mask(x.shape, self.rate)).mul_(1 / (1 - self.rate))
