"""Where every sample of a version lies: one row a sample, in columns, in one file that is mapped to open a store.

    checksum (N,) u8   xxh3_64 of the sample's stored bytes; 0 without tokens
    source   (N, 16)   digest of what the sample was made from; zeros where unknown
    segment  (N,) i4   which of the version's segments; -1 where the dataset has no such modality for the sample
    start    (N,) u4   its first token row in that segment; of a failed sample, its place among the segment's items
    length   (N,) u4   S, its tokens
    status   (N,) u1   0 ok, 1 failed, 2 missing

Little-endian, one column after another, each beginning at a multiple of 64 bytes; 37 bytes a sample. A hundred million
samples are 3.7 GB of file and no memory: only what is asked for is read.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from ..segment import STATUSES, Segment
from ..segment.contents import Int64s
from ..storage.base import Parts, as_bytes

OK, FAILED, MISSING = (STATUSES.index(name) for name in ("ok", "failed", "missing"))
UNSET = 255
ALIGNED = 64
COLUMNS: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "checksum": ("<u8", ()),
    "source": ("u1", (16,)),
    "segment": ("<i4", ()),
    "start": ("<u4", ()),
    "length": ("<u4", ()),
    "status": ("u1", ()),
}
Column = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Index:
    """The columns of N samples; see the head of this file."""

    checksum: Column
    source: Column
    segment: Column
    start: Column
    length: Column
    status: Column

    def __len__(self) -> int:
        return len(self.status)

    def columns(self) -> Iterator[tuple[str, Column]]:
        """Name and values, in the order they lie in the file."""
        return ((item.name, getattr(self, item.name)) for item in fields(self))

    def to_parts(self) -> Parts:
        """The file in pieces."""
        parts: list[bytes | memoryview] = []
        for name, values in self.columns():
            view = as_bytes(values.astype(COLUMNS[name][0], copy=False))
            parts += [view, bytes(-len(view) % ALIGNED)]
        return parts

    @staticmethod
    def from_bytes(content: npt.NDArray[np.uint8], samples: int) -> "Index":
        """Columns as views of the file's bytes. Raises ValueError where there are not enough of them."""
        columns, at = {}, 0
        for name, (dtype, width) in COLUMNS.items():
            count = samples * int(np.prod(width, dtype=int))
            values = np.frombuffer(content, dtype, count=count, offset=at) if count else np.empty(0, dtype)
            columns[name] = values.reshape(samples, *width)
            at += -(-values.nbytes // ALIGNED) * ALIGNED
        if at != len(content):
            raise ValueError(f"{len(content)} bytes, {at} expected for {samples} samples")
        return Index(**columns)

    @staticmethod
    def empty(samples: int) -> "Index":
        """Columns to be filled; every sample's status is UNSET."""
        columns = {name: np.zeros((samples, *width), dtype) for name, (dtype, width) in COLUMNS.items()}
        columns["segment"][:] = -1
        columns["status"][:] = UNSET
        return Index(**columns)

    def at(self, rows: Int64s) -> "Index":
        """The columns of some rows."""
        return Index(**{name: values[rows] for name, values in self.columns()})

    def content_digest(self, dim: int, stored: str) -> str:
        """32 hex digits of what the samples' features are, wherever they lie: checksums, lengths, statuses in order."""
        hasher = xxhash.xxh3_128(f"{dim} {stored} {len(self)}".encode())
        for name in ("checksum", "length", "status"):
            hasher.update(as_bytes(getattr(self, name)))
        return hasher.hexdigest()


class IndexBuilder:
    """Puts a version's index together from rows of earlier versions and from new segments."""

    def __init__(self, samples: int) -> None:
        self.index = Index.empty(samples)
        self._numbers: dict[str, int] = {}

    def take(self, rows: Int64s, other: Index, segments: Sequence[str], other_rows: Int64s) -> None:
        """Let `rows` be where `other_rows` of another version are; segments: that version's."""
        for name, values in self.index.columns():
            values[rows] = getattr(other, name)[other_rows]
        used, inverse = np.unique(other.segment[other_rows], return_inverse=True)
        numbers = [-1 if number < 0 else self._number(segments[number]) for number in used.tolist()]
        self.index.segment[rows] = np.array(numbers, np.int32)[inverse]

    def place(self, rows: Int64s, segment: Segment, items: Int64s | None = None) -> None:
        """Let `rows` (n,) be the samples of a segment: its n items in their order, or those numbered `items` (n,)."""
        there = placed(segment) if items is None else placed(segment).at(items)
        for name, values in there.columns():
            getattr(self.index, name)[rows] = values
        self.index.segment[rows] = self._number(segment.name)

    def missing(self, rows: Int64s) -> None:
        """The dataset has no such modality for these samples."""
        self.index.status[rows] = MISSING

    def build(self) -> tuple[Index, tuple[str, ...]]:
        """The index and the segments it speaks of, numbered by the first sample in each. ValueError for unset rows."""
        if len(unset := np.flatnonzero(self.index.status == UNSET)):
            raise ValueError(f"{len(unset)} samples are in no segment, the first is row {unset[0]}")
        names = list(self._numbers)
        used, first = np.unique(self.index.segment, return_index=True)
        order = [number for number in used[np.argsort(first)].tolist() if number >= 0]
        renumbered = np.full(len(names) + 1, -1, np.int32)
        renumbered[order] = np.arange(len(order))
        # A new column: a commit that lost its race builds again.
        index = replace(self.index, segment=renumbered[self.index.segment])
        return index, tuple(names[number] for number in order)

    def _number(self, name: str) -> int:
        return self._numbers.setdefault(name, len(self._numbers))


def source_bytes(sources: Sequence[str]) -> Column:
    """(n, 16) of n digests of 32 hex digits, zeros for ""."""
    joined = "".join(source or "0" * 32 for source in sources)
    return np.frombuffer(bytes.fromhex(joined), np.uint8).reshape(-1, 16)


def placed(segment: Segment) -> Index:
    """The rows of a segment's samples, in its order; the number of the segment is the version's to give."""
    failed = np.array([bool(error) for error in segment.items.errors], bool)
    starts = np.cumsum(segment.lengths) - segment.lengths
    index = Index.empty(len(segment.items))
    index.checksum[:] = segment.checksums
    index.source[:] = source_bytes(segment.items.sources)
    index.start[:] = np.where(failed, np.arange(len(failed)), starts)
    index.length[:] = segment.lengths
    index.status[:] = np.where(failed, FAILED, OK)
    return index
