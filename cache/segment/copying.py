"""Copying rows in two threads: numpy copies without Python's lock, and one core does not fill memory's bandwidth."""

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from .contents import Int64s
from .encoding import Array

PIECE = 1 << 19  # bytes: below twice of it, handing over costs more than it saves
PIECES = 8
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Second:
    """The other thread, started when first needed; a forked child starts its own."""

    pool: ThreadPoolExecutor | None = None

    @classmethod
    def start(cls) -> ThreadPoolExecutor:
        cls.pool = cls.pool or ThreadPoolExecutor(1, "pgm-copy")
        return cls.pool


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: setattr(_Second, "pool", None))


def in_two(work: Callable[[int, int], None], count: int, size: int) -> None:
    """Do work(0, count), piece by piece in two threads where `size` bytes are worth it.

    Whoever is free takes the next piece: where the other thread gets no processor, nobody waits for it.
    """
    pieces = min(size // PIECE, count, PIECES)
    if pieces < 2 or CORES < 2:
        work(0, count)
        return
    turns = itertools.count()

    def take_turns() -> None:
        while (turn := next(turns)) < pieces:
            work(count * turn // pieces, count * (turn + 1) // pieces)

    other = _Second.start().submit(take_turns)
    try:
        take_turns()
    finally:
        if not other.cancel():
            other.result()


def take_rows(rows: Array, numbers: Int64s, out: Array) -> None:
    """out[i] = rows[numbers[i]], of (R, D) and (n, D); the numbers must be rows that are there."""

    def part(start: int, stop: int) -> None:
        # Without a mode numpy takes into a buffer of its own first, in case a number is out of range.
        rows.take(numbers[start:stop], axis=0, out=out[start:stop], mode="clip")

    in_two(part, len(numbers), out.nbytes)


def row_numbers(first: Int64s, lengths: Int64s, positions: Int64s, count: int) -> Int64s:
    """(count,) which row goes where: first[j] + i to positions[j] + i, for i < lengths[j]; 0 to where nothing goes.

    Positions ascend, and no run reaches into the next.
    """
    # Methods: right after a large copy every Python function of numpy's comes from far memory.
    ends = lengths.cumsum()
    begins = ends - lengths
    total = int(ends[-1]) if len(ends) else 0
    within = np.arange(total)
    numbers: Int64s = (first - begins).repeat(lengths)
    numbers += within
    if total == count:
        return numbers
    every = np.zeros(count, np.int64)
    every[(positions - begins).repeat(lengths) + within] = numbers
    return every
