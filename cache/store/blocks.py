"""Shuffling without random access: runs of neighbouring samples in random order, shuffled within a few runs at a time.

For compressed stores, where a random sample costs a whole chunk, and for stores larger than memory on disks that
dislike seeking. Every chunk is read once; how random the order is depends on POOL_RUNS.
"""

from collections.abc import Iterator

import numpy as np

from ..segment.contents import Int64s
from .index import Index

RUN_TOKENS = 2048
POOL_RUNS = 16


def disk_order(index: Index, rows: Int64s) -> Int64s:
    """The rows in the order their tokens lie: by segment, then by their start in it."""
    ordered: Int64s = rows[np.lexsort((rows, index.start[rows], index.segment[rows]))]
    return ordered


def pools(index: Index, rows: Int64s, rng: np.random.Generator) -> Iterator[Int64s]:
    """Rows in pools of several runs: which runs meet is random, each pool is sorted for one pass over the disk."""
    ordered = disk_order(index, rows)
    if not len(ordered):
        return
    segment, run = index.segment[ordered], index.start[ordered] // RUN_TOKENS
    cuts = np.flatnonzero((np.diff(segment) != 0) | (np.diff(run.astype(np.int64)) != 0)) + 1
    runs = np.split(ordered, cuts)
    shuffled = rng.permutation(len(runs))
    for start in range(0, len(shuffled), POOL_RUNS):
        yield np.concatenate([runs[r] for r in np.sort(shuffled[start : start + POOL_RUNS])])
