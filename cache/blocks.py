"""Shuffling without random access: contiguous blocks in random order, samples shuffled within a few blocks at a time.

For compressed stores, where a random sample costs a whole chunk, and for stores larger than memory on disks that
dislike seeking. Every chunk is read once; how random the order is depends on `POOL_BLOCKS`.
"""

from collections.abc import Iterator

import numpy as np

from .layout import Int64s, Layout

# A block is about one zarr call; sixteen of them are mixed at a time.
BLOCK_CHUNKS = 4
POOL_BLOCKS = 16


def parts(rows: Int64s, size: int) -> Iterator[Int64s]:
    """Rows in their order, `size` at a time."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def pools(layout: Layout, rows: Int64s, rng: np.random.Generator) -> Iterator[Int64s]:
    """Rows in pools of several blocks: which blocks meet is random, each pool is sorted for one pass over the disk."""
    ordered = np.sort(rows)
    block = layout.offsets[ordered] // (BLOCK_CHUNKS * layout.chunk_tokens)
    blocks = np.split(ordered, np.flatnonzero(np.diff(block)) + 1) if len(ordered) else []
    shuffled = rng.permutation(len(blocks))
    for start in range(0, len(shuffled), POOL_BLOCKS):
        yield np.concatenate([blocks[b] for b in np.sort(shuffled[start : start + POOL_BLOCKS])])
