"""Which samples make a batch: shuffled, then grouped by length, so that little of a batch is padding.

Shuffled samples are cut into windows of 16 batches, sorted by token count inside each window, cut into batches, and
the batches shuffled. Where all samples have the same length this is a plain shuffle. Order depends on lengths and
seed only, never on the feed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
WINDOW = 16


def training_order(lengths: Rows, batch: int, seed: int) -> list[Rows]:
    """Positions 0..N-1 in batches of `batch`; lengths (N,) tokens a sample."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(lengths))
    if (lengths == lengths[:1]).all():
        return cut(order, batch)
    windows = [w[np.argsort(lengths[w], kind="stable")] for w in cut(order, batch * WINDOW)]
    batches = [b for window in windows for b in cut(window, batch)]
    return [batches[i] for i in generator.permutation(len(batches))]


def evaluation_order(lengths: Rows, batch: int) -> list[Rows]:
    """All positions once, sorted by length."""
    return cut(np.argsort(lengths, kind="stable"), batch)


def cut(order: Rows, size: int) -> list[Rows]:
    """Consecutive pieces of `size`, the last one shorter."""
    return [order[i : i + size].astype(np.int64) for i in range(0, len(order), size)]
