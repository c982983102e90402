"""A whole store from arrays in memory, in one call: what an import does, and whoever has features and no encoder."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import xxhash

from ..segment import Codec, Format, Items, Segment, Stored, write_segment
from ..segment.contents import Int64s
from ..segment.encoding import Array
from ..storage import Storage
from ..storage.base import as_bytes
from .identity import Identity
from .index import IndexBuilder
from .store import Draft, Store
from .version import Version

SEGMENT_BYTES = 64 << 20


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
    ends = np.cumsum(counts)
    failures = dict(errors or {})
    sources = row_digests(tokens, counts)
    before = store.latest(name)
    held = held_rows(store, before) if before is not None else {}
    kept = {row: held[sources[row]] for row in range(len(ids)) if counts[row] and sources[row] in held}
    fresh = [row for row in range(len(ids)) if row not in kept and (counts[row] or row in failures)]
    written: list[tuple[Int64s, Segment]] = []
    for rows in pieces(fresh, counts, tokens.shape[1] * np.dtype(stored).itemsize, segment_bytes):
        part = np.concatenate([tokens[ends[row] - counts[row] : ends[row]] for row in rows])
        items = Items([ids[r] for r in rows], [sources[r] for r in rows], [failures.get(r, "") for r in rows])
        segment = write_segment(store.storage, identity.whole_digest, items, counts[rows], part, stored, format, codec)
        written.append((np.array(rows, np.int64), segment))

    def draft(latest: int) -> Draft | None:
        builder = IndexBuilder(len(ids))
        builder.missing(np.array([r for r in range(len(ids)) if not counts[r] and r not in failures], np.int64))
        if before is not None and kept:
            builder.take(
                np.array(list(kept), np.int64),
                store.index(before),
                before.segments,
                np.array(list(kept.values()), np.int64),
            )
        for rows, segment in written:
            builder.place(rows, segment)
        new = [segment for _, segment in written if segment.new]
        return Draft(builder, sample_ids, name, len(new), sum(segment.bytes for segment in new))

    if before is not None and not written and before.sample_ids == sample_ids and len(kept) == int((counts > 0).sum()):
        return before
    committed = store.commit(draft)
    assert committed is not None
    return committed


def row_digests(tokens: Array, lengths: Int64s) -> list[str]:
    """(N,) xxh3_128 of each sample's rows: the source of features that came as arrays; "" without rows."""
    ends = np.cumsum(lengths).tolist()
    return [
        xxhash.xxh3_128_hexdigest(as_bytes(tokens[end - length : end])) if length else ""
        for end, length in zip(ends, lengths.tolist(), strict=True)
    ]


def held_rows(store: Store, version: Version) -> dict[str, int]:
    """Source -> a row of a version that has its features."""
    index = store.index(version)
    rows = np.flatnonzero(index.length > 0)
    return {index.source[row].tobytes().hex(): row for row in rows.tolist()}


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
