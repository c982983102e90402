"""Packed arrays as a store: the segments and commit of an extraction, with the rows themselves as the sources.

A sample's source digest is of its own rows, so that importing a file that has grown or changed writes what is new, and
equal arrays have equal content whatever file they came from. What names the store is where in a file the array stood.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from ...cache.segment import Codec, Format, Items, Packed, Stored, pack_features, put_segments, read_segment
from ...cache.storage import Storage
from ...cache.store import Identity, Store, Version
from ..engine.commit import Commit
from ..engine.held import Rows, find_held
from ..engine.journal import Digests
from ..engine.segments import cut, next_attempt, segment_items
from ..engine.sources import spelled

# Of what a layout says of an array, what stands in the store's name: not the file's bytes, which every row has its own
# digest of.
NAMED_BY = ("key", "layout")


@dataclass(frozen=True, eq=False)
class PackedModality:
    """A modality to be stored. tokens: (T, D); lengths: (N,), 0 where missing; source: where the array came from."""

    name: str
    tokens: NDArray[Any]
    lengths: NDArray[np.int64]
    source: Mapping[str, Any]
    stored: Stored

    @property
    def identity(self) -> Identity:
        """What names the store."""
        file = str(self.source.get("file", "arrays"))
        told = {name: self.source[name] for name in NAMED_BY if name in self.source}
        fields = {"provenance": "imported", "file": file, "dim": self.tokens.shape[1], "stored_dtype": self.stored}
        return Identity(self.name, f"imported-{Path(file).stem}", fields | told)

    @property
    def starts(self) -> NDArray[np.int64]:
        """(N,) the first row of each sample's tokens."""
        return np.cumsum(self.lengths) - self.lengths

    def sources(self) -> Digests:
        """(N, 16) digest of each sample's rows and their type; zeros where it has none."""
        kind = f"{self.tokens.dtype} {self.tokens.shape[1]}\n".encode()
        digests = np.zeros((len(self.lengths), 16), np.uint8)
        rows = np.ascontiguousarray(self.tokens).view(np.uint8).reshape(len(self.tokens), -1)
        for row, (start, length) in enumerate(zip(self.starts.tolist(), self.lengths.tolist(), strict=True)):
            if length:
                hasher = xxhash.xxh3_128(kind)
                hasher.update(rows[start : start + length].data)
                digests[row] = np.frombuffer(hasher.digest(), np.uint8)
        return digests

    def of(self, rows: Rows) -> NDArray[Any]:
        """The tokens of some samples, one after another."""
        starts = self.starts
        return np.concatenate([self.tokens[starts[row] : starts[row] + self.lengths[row]] for row in rows.tolist()])


def store_packed(
    dataset: Storage, modality: PackedModality, ids: Sequence[str], format: Format = "zarr", codec: Codec = "none"
) -> tuple[Store, Version]:
    """Write what of a modality is not there yet, and commit the version that has it all."""
    store = Store.create(dataset, modality.identity, modality.tokens.shape[1], modality.stored)
    sources = modality.sources()
    present = modality.lengths > 0
    found = find_held(store, ids, sources, present)
    left = present.copy()
    for held in found.encoded:
        left[held.rows] = False
    commit = Commit(store, ids, np.flatnonzero(~present), found, "")
    written = store.segments() if left.any() else {}
    new: list[Rows] = []

    def packed() -> Iterator[Packed]:
        """Segments to be written; what an import which died left of them takes its place at once."""
        for rows in cut(np.flatnonzero(left), items_of(modality)):
            items = Items([ids[row] for row in rows.tolist()], spelled(sources[rows]), [""] * len(rows))
            attempt, name = next_attempt(store, items.ids, items.sources, written)
            if name is not None:
                commit.place(rows, read_segment(store.storage, name))
                continue
            new.append(rows)
            lengths, tokens, items = modality.lengths[rows], modality.of(rows), replace(items, attempt=attempt)
            yield pack_features(store.identity.whole_digest, items, lengths, tokens, modality.stored, format, codec)

    # The segments first: the rows of one are known once it was packed.
    for segment, rows in zip(put_segments(store.storage, packed()), new, strict=True):
        commit.place(rows, segment)
    return store, commit.publish()[0]


def items_of(modality: PackedModality) -> int:
    """Samples a segment."""
    samples = max(int((modality.lengths > 0).sum()), 1)
    mean = len(modality.tokens) / samples * modality.tokens.shape[1] * np.dtype(modality.stored).itemsize
    return segment_items(samples, max(mean, 1.0))
