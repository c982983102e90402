"""How many threads a run on a CPU uses: one for a narrow model, all for a wide one.

At width 64 an operation takes tens of microseconds and handing half of it to a second thread as long: two threads
gained a third on an idle machine (650 against 490 samples/s, PgM's small preset) and lost nine tenths on a busy one,
where each waits for the other's core. One thread is the same everywhere, and so are its results.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

NARROW = 128


def is_narrow(model: nn.Module) -> bool:
    """Whether no weight matrix has both sides wider than NARROW."""
    return all(min(p.shape[0], p[0].numel()) <= NARROW for p in model.parameters() if p.ndim > 1)


@contextmanager
def fitting_threads(model: nn.Module, device: torch.device) -> Iterator[None]:
    """One intra-op thread while a narrow model trains on a CPU; the caller's setting otherwise and afterwards."""
    before = torch.get_num_threads()
    if device.type == "cpu" and is_narrow(model):
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
