"""Batches to a GPU and features back, beside the kernels: pinned memory, a stream of its own each way, no wait.

PyTorch's allocator keeps pinned memory for the next batch. On a CPU nothing is copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Encoded:
    """A batch's features on their way to the host.

    tokens: (T, D), the items' one after another, in memory of the host. lengths: tokens of each item. copied: when the
    device has written them; None where they are there.
    """

    tokens: Tensor
    lengths: Sequence[int]
    copied: torch.cuda.Event | None = None

    def together(self) -> np.ndarray:
        """(T, D) float32, all items' one after another, once they are there. Any thread may wait."""
        if self.copied is not None:
            self.copied.synchronize()
        return self.tokens.float().numpy()

    def arrays(self) -> list[np.ndarray]:
        """One (S, D) float32 array an item, once they are there. Any thread may wait."""
        tokens = self.together()
        ends = list(accumulate(self.lengths, initial=0))
        return [tokens[start:end] for start, end in pairwise(ends)]


def sent(tokens: Tensor, lengths: Sequence[int]) -> Encoded:
    """Features (T, D) that a GPU is still computing, to be copied when they are; a CPU's as they are."""
    if tokens.device.type != "cuda":
        return Encoded(tokens, lengths)
    stream = copy_stream(tokens.device, "out")
    stream.wait_stream(torch.cuda.current_stream(tokens.device))
    with torch.cuda.stream(stream):
        host = torch.empty(tokens.shape, dtype=tokens.dtype, pin_memory=True)
        host.copy_(tokens, non_blocking=True)
        # Its memory is not used again before this copy has read it.
        tokens.record_stream(stream)
        return Encoded(host, lengths, stream.record_event())


def received(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """A batch of the host on a GPU; kernels queued from here on wait for it, the host does not."""
    stream, current = copy_stream(device, "in"), torch.cuda.current_stream(device)
    with torch.cuda.stream(stream):
        there = {key: tensor.pin_memory().to(device, non_blocking=True) for key, tensor in batch.items()}
    current.wait_stream(stream)
    for tensor in there.values():
        tensor.record_stream(current)
    return there


@cache
def copy_stream(device: torch.device, direction: str) -> torch.cuda.Stream:
    """The stream that copies into a device, or out of it."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
