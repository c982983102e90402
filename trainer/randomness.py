"""Where every random number of a run comes from: one seed, and the name of what it is for.

The generators are seeded anew at each use (initialisation; each epoch of each stage), so no generator state has to
survive an interruption: a run that continues after epoch 7 draws exactly what an uninterrupted one draws in epoch 8.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derived(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose; the same on every platform."""
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


@contextmanager
def own_randomness(device: torch.device) -> Iterator[None]:
    """The caller's global torch generators are as they were afterwards."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield
