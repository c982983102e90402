"""A feature store as it would be with some of its samples' modality missing, or replaced by zeros; nothing is copied.

Both read exactly as a store on disk would that lacks those samples, or holds zeros for them: whoever takes features
(batches, statistics, padding, grouping by length) needs to know nothing of masks.
"""

from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..segment.contents import Int64s
from ..segment.encoding import Array
from ..store import Features
from ..store.features import Unavailable

Fill = Literal["skip", "zero"]
Bools = npt.NDArray[np.bool_]


def masked(store: Features, hidden: Bools, fill: Fill = "skip") -> Features:
    """`store` without the samples where `hidden` (N,) is True, or with zeros of the same token count for them."""
    return Without(store, hidden) if fill == "skip" else Zeroed(store, hidden)


class Without(Features):
    """Hidden samples have the status "missing" and no tokens."""

    def __init__(self, store: Features, hidden: Bools) -> None:
        super().__init__(store.store, store.version, store.index)
        self.whole, self.hidden = store, hidden

    @cached_property
    def status(self) -> npt.NDArray[np.str_]:
        status: npt.NDArray[np.str_] = np.where(self.hidden, "missing", self.whole.status)
        return status

    @cached_property
    def available(self) -> Bools:
        return self.whole.available & ~self.hidden

    @property
    def _complete(self) -> bool:
        return not self.hidden.any() and self.whole._complete

    def _why(self, row: int) -> str:
        return f"sample {row} of {self.url} is hidden by a mask" if self.hidden[row] else super()._why(row)

    def __reduce__(self) -> tuple[Any, ...]:
        return Without, (self.whole, self.hidden)


class Zeroed(Features):
    """Hidden samples have their token count, and zeros in it; those that had no tokens still have none."""

    def __init__(self, store: Features, hidden: Bools) -> None:
        super().__init__(store.store, store.version, store.index)
        self.whole, self.hidden = store, hidden

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

    def padded(self, rows: npt.ArrayLike, unavailable: Unavailable = "error") -> tuple[Array, Bools]:
        tokens, mask = super().padded(rows, unavailable)
        tokens[self.hidden[np.asarray(rows, np.int64)]] = 0
        return tokens, mask

    def __reduce__(self) -> tuple[Any, ...]:
        return Zeroed, (self.whole, self.hidden)
