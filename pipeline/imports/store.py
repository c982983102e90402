"""Packed arrays as a store: the segments and commit of an extraction, with the rows themselves as the sources.

A sample's source digest is of its own rows, so that importing a file that has grown or changed writes what is new, and
equal arrays have equal content whatever file they came from. What names the store is where in a file the array stood.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from ...cache.segment import Codec, Format, Items, Segment, Stored, read_segment, write_segment
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
    for rows in cut(np.flatnonzero(left), items_of(modality)):
        items = Items([ids[row] for row in rows.tolist()], spelled(sources[rows]), [""] * len(rows))
        commit.place(rows, stored_segment(store, modality, rows, items, written, format, codec))
    return store, commit.publish()[0]


def items_of(modality: PackedModality) -> int:
    """Samples a segment."""
    samples = max(int((modality.lengths > 0).sum()), 1)
    mean = len(modality.tokens) / samples * modality.tokens.shape[1] * np.dtype(modality.stored).itemsize
    return segment_items(samples, max(mean, 1.0))


def stored_segment(
    store: Store,
    modality: PackedModality,
    rows: Rows,
    items: Items,
    written: Mapping[str, str],
    format: Format,
    codec: Codec,
) -> Segment:
    """The segment of these rows: one that an import which died left, or a new one."""
    attempt, name = next_attempt(store, items.ids, items.sources, written)
    if name is not None:
        return read_segment(store.storage, name)
    items = Items(items.ids, items.sources, items.errors, attempt)
    lengths, tokens = modality.lengths[rows], modality.of(rows)
    return write_segment(
        store.storage, store.identity.whole_digest, items, lengths, tokens, modality.stored, format, codec
    )
