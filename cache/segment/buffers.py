"""Batches' memory, used again when nobody holds it any more: fresh pages cost up to five times the copy into them."""

import sys
import threading

import numpy as np

from .encoding import Array

KEPT = 6  # buffers: what a feed has in hand, four batches ahead of the one that is trained on and the one before
SPARE = 1.25  # room beyond what was asked for: batches of one size differ by some tokens


class Buffers:
    """Hands out (rows, width) arrays of one dtype. Safe between threads.

    An array handed out is a view of a buffer, and so is all that is made of it without a copy (slices, tensors, memory
    views); each counts as a reference to the buffer. One that only this object refers to is free.
    """

    def __init__(self, width: int, dtype: np.dtype[np.generic]) -> None:
        self.width, self.dtype = width, dtype
        self._buffers: list[Array] = []
        self._lock = threading.Lock()

    def get(self, rows: int) -> Array:
        """An array (rows, width) of arbitrary contents that nobody else holds."""
        with self._lock:
            free = [place for place in range(len(self._buffers)) if sys.getrefcount(self._buffers[place]) == 2]
            fitting = [place for place in free if rows <= len(self._buffers[place]) <= 4 * rows]
            if fitting:
                return self._buffers[fitting[0]][:rows]
            if len(self._buffers) == KEPT:
                if not free:
                    return np.empty((rows, self.width), self.dtype)
                del self._buffers[free[0]]
            buffer = np.empty((int(rows * SPARE), self.width), self.dtype)
            self._buffers.append(buffer)
            return buffer[:rows]
