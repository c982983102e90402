"""Features as they would be with some samples' modality missing, or replaced by zeros; nothing is copied.

Both are what a version on disk would be that lacks those samples, or holds zeros for them: index, counts and content
digest say so, and whoever takes features needs to know nothing of masks.
"""

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..segment.contents import Int64s, sample_checksums
from ..segment.encoding import Array
from ..store import Features, Index
from ..store.features import Unavailable
from ..store.index import MISSING, OK
from ..store.store import counts

Fill = Literal["skip", "zero"]
Bools = npt.NDArray[np.bool_]


def masked(features: Features, hidden: Bools, fill: Fill = "skip") -> Features:
    """`features` without the samples where `hidden` (N,) is True, or with zeros of the same token count for them."""
    return Without(features, hidden) if fill == "skip" else Zeroed(features, hidden)


class Masked(Features):
    """Features whose index differs from what is on disk in the hidden samples."""

    def __init__(self, whole: Features, hidden: Bools, index: Index) -> None:
        version = replace(
            whole.version,
            tokens=int(index.length.sum(dtype=np.int64)),
            counts=counts(index),
            content=index.content_digest(whole.dim, whole.store.stored),
        )
        super().__init__(whole.store, version, index)
        self.whole, self.hidden = whole, hidden

    def _why(self, row: int) -> str:
        return f"sample {row} of {self.url} is missing: a mask hides it" if self.hidden[row] else super()._why(row)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.whole, self.hidden)


class Without(Masked):
    """Hidden samples have the status "missing" and no tokens."""

    def __init__(self, whole: Features, hidden: Bools) -> None:
        index = whole.index
        columns = {"checksum": 0, "length": 0, "segment": -1, "start": 0, "status": MISSING}
        cleared = {name: np.where(hidden, value, getattr(index, name)) for name, value in columns.items()}
        typed = {name: values.astype(getattr(index, name).dtype) for name, values in cleared.items()}
        super().__init__(whole, hidden, replace(index, **typed))


class Zeroed(Masked):
    """Hidden samples have their token count, and zeros in it; those that had no tokens still have none."""

    def __init__(self, whole: Features, hidden: Bools) -> None:
        index = whole.index
        rows = np.flatnonzero(hidden & (index.status == OK))
        checksums = index.checksum.copy()
        lengths, inverse = np.unique(index.length[rows], return_inverse=True)
        checksums[rows] = zero_checksums(whole, lengths.astype(np.int64))[inverse]
        super().__init__(whole, hidden, replace(index, checksum=checksums))

    def __getitem__(self, row: int) -> Array:
        tokens = super().__getitem__(row)
        if self.hidden[row]:
            tokens = np.zeros_like(tokens)
            tokens.setflags(write=False)
        return tokens

    def gather(
        self, rows: npt.ArrayLike, out: Array | None = None, unavailable: Unavailable = "error"
    ) -> tuple[Array, Int64s]:
        tokens, lengths = super().gather(rows, out, unavailable)
        tokens[np.repeat(self.hidden[np.asarray(rows, np.int64)], lengths)] = 0
        return tokens, lengths

    def padded(
        self, rows: npt.ArrayLike, out: Array | None = None, unavailable: Unavailable = "error"
    ) -> tuple[Array, Bools]:
        tokens, mask = super().padded(rows, out, unavailable)
        tokens[self.hidden[np.asarray(rows, np.int64)]] = 0
        return tokens, mask


def zero_checksums(features: Features, lengths: Int64s) -> npt.NDArray[np.uint64]:
    """(n,) checksums of samples of `lengths` zero tokens, as a store of these features would have them."""
    stored = features.store.stored
    found = np.zeros(len(lengths), np.uint64)
    for place, length in enumerate(lengths.tolist()):
        # A token of zeros is stored as int8 zeros with a scale of 1 (segment/encoding.py).
        scales = np.ones((length, 1), np.float32) if stored == "int8" else None
        found[place] = sample_checksums(np.zeros((length, features.dim), stored), scales, np.array([length]))[0]
    return found
