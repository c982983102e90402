"""Where each sample's tokens lie in a packed table, and a batch of them as one padded index.

The index is made on the device the table lies on, from tables that were sent there once: a step uploads nothing. Its
shape comes from the lengths on the host, so that nothing is read back either.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .order import Rows


class Spans:
    """starts, lengths: (N,) on the host; sample i's tokens are the table's rows starts[i] and lengths[i] - 1 more."""

    def __init__(self, starts: Rows, lengths: Rows, device: torch.device) -> None:
        self.lengths = lengths
        self.on_device = torch.from_numpy(np.stack([starts, lengths])).to(device)

    def padded(self, positions: Rows, where: Tensor, padding: int) -> tuple[Tensor, Tensor]:
        """(B, S) rows of the table with `padding` where a sample has ended, and the mask; S is at least 1.

        positions: (B,) on the host; where: the same on the device.
        """
        longest = max(1, int(self.lengths[positions].max(initial=0)))
        starts, lengths = self.on_device.index_select(1, where).unsqueeze(2).unbind()
        places = torch.arange(longest, device=where.device)
        mask = places < lengths
        return torch.where(mask, starts + places, padding), mask


def starts_of(lengths: Rows) -> Rows:
    """(N,) where each sample's tokens begin when they are packed."""
    starts: Rows = np.cumsum(lengths, dtype=np.int64) - lengths
    return starts
