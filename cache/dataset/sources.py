"""The same source in two splits: how many test samples were trained on, by the digests of what they were made from.

Only digests are compared, and only where there are any. Costs one column of the version's index and two hash tables.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..store import Features

Rows = npt.NDArray[np.int64]
SEEN = ("train", "val")


@dataclass(frozen=True)
class SharedSources:
    """One modality: test samples, and how many of them have the same source as one of train, and as one of val."""

    modality: str
    test: int
    train: int
    val: int

    def __str__(self) -> str:
        """A fact for people; empty where nothing is shared."""
        counts = [(self.train, "training"), (self.val, "validation")]
        told = [(f"{count:,}", f"as a {name} sample") for count, name in counts if count]
        if not told:
            return ""
        (first, like), *more = told
        rest = "".join(f", {count} {other}" for count, other in more)
        verb = "has" if first == "1" else "have"
        return f"{first} of {self.test:,} test samples {verb} the same {self.modality} source {like}{rest}."


def shared_sources(store: Features, modality: str, splits: Mapping[str, Rows]) -> SharedSources:
    """Compare the sources of a store's samples; splits: rows of train, val and test."""
    test, unknown = digests(store, splits["test"]), pa.scalar(bytes(16), pa.binary(16))
    test = test.filter(pc.not_equal(test, unknown))
    found = {name: int(pc.sum(pc.is_in(test, digests(store, splits[name]))).as_py() or 0) for name in SEEN}
    return SharedSources(modality, len(splits["test"]), found["train"], found["val"])


def digests(store: Features, rows: Rows) -> pa.Array:
    """What the samples of these rows were made from, 16 bytes each."""
    chosen = np.ascontiguousarray(store.index.source[rows])
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(chosen), [None, pa.py_buffer(chosen)])


def rows_of(column: pa.ChunkedArray) -> dict[str, Rows]:
    """Split -> its rows, of a column of samples.parquet or of a named split."""
    return {
        name: np.flatnonzero(pc.equal(column, name).to_numpy()).astype(np.int64) for name in ("train", "val", "test")
    }
