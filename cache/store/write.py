"""A whole store from arrays in memory, in one call: what an import does, and whoever has features and no encoder."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from math import inf

import numpy as np
import numpy.typing as npt
import xxhash

from ..segment import Codec, Format, Items, Packed, Stored, pack_features, put_segments
from ..segment.contents import Int64s
from ..segment.encoding import Array
from ..storage import Storage
from ..storage.base import as_bytes
from .features import Features
from .identity import Identity
from .index import FAILED, IndexBuilder
from .store import Draft, Store
from .verified import in_intact_segments
from .version import Version

SEGMENT_BYTES = 64 << 20
HALVED = 240  # bytes: of more than these XXH3's digest of 64 bits is the lower half of that of 128


@dataclass(frozen=True, eq=False)
class Arrays:
    """Samples in memory. lengths: (N,) tokens a sample; tokens: (T, D) floats, the samples' one after another."""

    lengths: Int64s
    tokens: Array
    stored: Stored

    @cached_property
    def ends(self) -> Int64s:
        """(N,) the row after each sample's last."""
        return self.lengths.cumsum()

    def of(self, rows: Sequence[int]) -> Array:
        """The tokens of some samples, ascending, one after another; a view where they lie so."""
        begin, end = self.ends[rows[0]] - self.lengths[rows[0]], self.ends[rows[-1]]
        if end - begin == self.lengths[rows].sum():
            return self.tokens[begin:end]
        return np.concatenate([self.tokens[self.ends[row] - self.lengths[row] : self.ends[row]] for row in rows])

    def digests(self, row: int) -> tuple[str, int]:
        """A sample's source, which is xxh3_128 of its rows, and xxh3_64 of them; ("", 0) without rows."""
        if not self.lengths[row]:
            return "", 0
        values = as_bytes(self.of([row]))
        # The same bytes are other numbers in another type.
        seed = 0 if self.tokens.dtype == self.stored else self.tokens.dtype.itemsize
        whole = xxhash.xxh3_128_intdigest(values, seed)
        short = whole & ((1 << 64) - 1) if len(values) > HALVED else xxhash.xxh3_64_intdigest(values)
        return f"{whole:032x}", short

    def pieces(self, rows: Sequence[int], limit: int) -> Iterator[list[int]]:
        """Rows cut into runs of about `limit` bytes as they are stored."""
        sizes = self.lengths[rows] * self.tokens.shape[1] * np.dtype(self.stored).itemsize
        piece = (sizes.cumsum() - sizes) // max(limit, 1)
        return (run.tolist() for run in np.split(np.asarray(rows), np.flatnonzero(np.diff(piece)) + 1) if len(run))


def write_features(
    dataset: Storage,
    identity: Identity,
    ids: Sequence[str],
    sample_ids: str,
    lengths: npt.ArrayLike,
    tokens: Array,
    stored: Stored = "float16",
    format: Format = "zarr",
    codec: Codec = "none",
    errors: Mapping[int, str] | None = None,
    segment_bytes: int = SEGMENT_BYTES,
    name: str = "",
) -> Version:
    """Write features as a store of a dataset and commit them; at once where the very same are there already.

    ids: (N,) sample ids; sample_ids: the digest of their list. lengths: (N,) tokens a sample, 0 where the modality is
    missing, or failed with a reason in `errors`. tokens: (T, D) floats, all samples' one after another. Rows whose
    bytes an earlier version has are referenced, not written again. Raises RunFailed for values `stored` cannot hold.
    """
    given, failures = Arrays(np.asarray(lengths, np.int64), tokens, stored), dict(errors or {})
    store = Store.create(dataset, identity, tokens.shape[1], stored)
    digests = cache(given.digests)
    rows = IndexBuilder(len(ids))
    rows.missing(np.array([row for row in range(len(ids)) if not given.lengths[row] and row not in failures], np.int64))
    kept = keep_held(rows, store, store.latest(name), digests, failures, sample_ids)
    fresh = [row for row in range(len(ids)) if row not in kept and (given.lengths[row] or row in failures)]

    def packed(part: list[int]) -> Packed:
        sources, checksums = zip(*map(digests, part), strict=True)
        items = Items([ids[row] for row in part], sources, [failures.get(row, "") for row in part])
        known = np.array(checksums, np.uint64) if tokens.dtype == stored else None
        values = given.of(part)
        return pack_features(identity.whole_digest, items, given.lengths[part], values, stored, format, codec, known)

    parts = list(given.pieces(fresh, segment_bytes))
    segments = list(put_segments(store.storage, map(packed, parts)))
    for part, segment in zip(parts, segments, strict=True):
        rows.place(np.array(part, np.int64), segment)
    written = [segment for segment in segments if segment.new]
    draft = Draft(rows, sample_ids, name, len(written), sum(segment.bytes for segment in written))
    committed = store.commit(lambda: draft)
    assert committed is not None
    return committed


def keep_held(
    rows: IndexBuilder,
    store: Store,
    before: Version | None,
    digests: Callable[[int], tuple[str, int]],
    failures: Mapping[int, str],
    sample_ids: str,
) -> set[int]:
    """Let rows be where the version before has their very bytes or, of the same samples, failures; returns them."""
    if before is None:
        return set()
    held = held_rows(store, before)
    again = held_failures(store, before) if before.sample_ids == sample_ids else {}
    every = range(len(rows.index) if held else 0)
    kept = {row: held[source] for row in every if (source := digests(row)[0]) in held}
    kept |= {row: row for row, why in failures.items() if again.get(row) == why}
    if kept:
        known, places = np.array(list(kept.items()), np.int64).T
        rows.take(known, store.index(before), before.segments, places)
    return set(kept)


def held_rows(store: Store, version: Version) -> dict[str, int]:
    """Source -> a row of a version that has its features, in a segment that is what was written."""
    index = store.index(version, inf)
    rows = np.flatnonzero(index.length > 0)
    rows = rows[in_intact_segments(store, version, index, rows)]
    return {index.source[row].tobytes().hex(): row for row in rows.tolist()}


def held_failures(store: Store, version: Version) -> dict[int, str]:
    """Row -> why it failed, of those in segments that are what was written."""
    features = Features(store, version, store.index(version, inf))
    rows = np.flatnonzero(features.index.status == FAILED)
    rows = rows[in_intact_segments(store, version, features.index, rows)]
    return {row: features.error(row) for row in rows.tolist()}
