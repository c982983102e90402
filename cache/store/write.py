"""A whole store from arrays in memory, in one call: what an import does, and whoever has features and no encoder."""

from collections.abc import Mapping, Sequence
from functools import cache
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
    counts: Int64s = np.asarray(lengths, np.int64)
    store = Store.create(dataset, identity, tokens.shape[1], stored)
    ends, failures = np.cumsum(counts), dict(errors or {})
    flat, row_bytes = as_bytes(tokens), tokens.shape[1] * tokens.dtype.itemsize
    # The same bytes are other numbers in another type.
    seed = 0 if tokens.dtype == stored else tokens.dtype.itemsize

    @cache
    def digests(row: int) -> tuple[str, int]:
        """A sample's source, which is xxh3_128 of its rows, and xxh3_64 of them; ("", 0) without rows."""
        values = flat[(ends[row] - counts[row]) * row_bytes : ends[row] * row_bytes]
        whole = xxhash.xxh3_128_intdigest(values, seed)
        short = whole & ((1 << 64) - 1) if len(values) > HALVED else xxhash.xxh3_64_intdigest(values)
        return (f"{whole:032x}", short) if counts[row] else ("", 0)

    rows = IndexBuilder(len(ids))
    rows.missing(np.array([row for row in range(len(ids)) if not counts[row] and row not in failures], np.int64))
    before = store.latest(name)
    held = held_rows(store, before) if before is not None else {}
    again = held_failures(store, before) if before is not None and before.sample_ids == sample_ids else {}
    kept = {row: held[digests(row)[0]] for row in range(len(ids) if held else 0) if digests(row)[0] in held}
    kept |= {row: row for row, why in failures.items() if again.get(row) == why}
    if before is not None and kept:
        known, places = np.array(list(kept.items()), np.int64).T
        rows.take(known, store.index(before), before.segments, places)
    fresh = [row for row in range(len(ids)) if row not in kept and (counts[row] or row in failures)]

    def packed(part: list[int]) -> Packed:
        sources, checksums = zip(*map(digests, part), strict=True)
        items = Items([ids[r] for r in part], sources, [failures.get(r, "") for r in part])
        values = rows_of(tokens, ends, counts, part)
        known = np.array(checksums, np.uint64) if tokens.dtype == stored else None
        return pack_features(identity.whole_digest, items, counts[part], values, stored, format, codec, known)

    parts = pieces(fresh, counts, tokens.shape[1] * np.dtype(stored).itemsize, segment_bytes)
    segments = list(put_segments(store.storage, map(packed, parts)))
    for part, segment in zip(parts, segments, strict=True):
        rows.place(np.array(part, np.int64), segment)
    written = [segment for segment in segments if segment.new]
    draft = Draft(rows, sample_ids, name, len(written), sum(segment.bytes for segment in written))
    committed = store.commit(lambda: draft)
    assert committed is not None
    return committed


def rows_of(tokens: Array, ends: Int64s, lengths: Int64s, part: list[int]) -> Array:
    """The tokens of these samples, ascending, one after another; a view where they lie so."""
    begin, end = ends[part[0]] - lengths[part[0]], ends[part[-1]]
    if end - begin == lengths[part].sum():
        return tokens[begin:end]
    return np.concatenate([tokens[ends[row] - lengths[row] : ends[row]] for row in part])


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


def pieces(rows: Sequence[int], lengths: Int64s, row_bytes: int, limit: int) -> list[list[int]]:
    """Rows cut into runs of about `limit` bytes."""
    cut: list[list[int]] = []
    size = limit
    for row in rows:
        if size >= limit:
            cut.append([])
            size = 0
        cut[-1].append(row)
        size += int(lengths[row]) * row_bytes
    return cut
