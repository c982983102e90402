"""Rewriting a store of many small or half-used segments into few full ones; the samples' bytes stay what they are.

Tokens are copied as they are stored and held against the checksum their version keeps, so the content digest of the new
version is that of the old one, and a run's name with it. The old segments stay for the versions that list them, until
`pgm cache gc`.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from ..errors import CorruptStore, RunFailed, UserError
from ..segment import Codec, Contents, Format, Items, SegmentName, open_segment, read_segment
from ..segment.contents import Int64s, sample_checksums
from ..segment.encoding import Array, sum_errors
from ..segment.write import Packed, pack_segment, put_segments
from ..storage import Storage
from ..store import Draft, Features, IndexBuilder, Version, open_features
from ..store.index import MISSING
from .dataset import relist
from .samples import ids_of

SEGMENT_BYTES = 64 << 20


def compact(
    store: Storage,
    version: int | str | None = None,
    format: Format | None = None,
    codec: Codec = "none",
    segment_bytes: int = SEGMENT_BYTES,
) -> Version | None:
    """Commit a version with the rows of another in segments of about `segment_bytes`, in the order of the samples.

    format: that of the version's first segment unless given. Returns None where the version is of such segments
    already. The dataset's latest version of this name lists the new one. Raises UserError for a version that
    is not the latest, CorruptStore for a damaged sample, RunFailed where another writer committed meanwhile.
    """
    features = open_features(store, version)
    before = features.version
    format = format or format_of(before)
    rows = np.flatnonzero(features.index.status != MISSING)
    first, same = distinct(features, rows)
    groups = list(grouped(features, rows[first], segment_bytes))
    if format == format_of(before) and codec == "none" and is_compact(features, groups):
        # Whoever made it so may have died before the dataset listed it.
        list_instead(features, before)
        return None
    latest = features.store.latest(before.name)
    if latest is not None and latest.number != before.number:
        raise UserError(
            f"{features.url} has version {latest.number} by now, and only the latest is compacted, not "
            f"{before.number}: leave --version out, or run the `pgm extract` again that has not published it"
        )
    ids = ids_of(features)
    packed = (rewritten(features, ids, group, format, codec) for group in groups)
    written = list(put_segments(store, packed))
    index = IndexBuilder(len(features))
    index.missing(np.flatnonzero(features.index.status == MISSING))
    ends = np.cumsum([len(group) for group in groups])
    for group, end, segment in zip(groups, ends, written, strict=True):
        begin = end - len(group)
        here = np.flatnonzero((same >= begin) & (same < end))
        index.place(rows[here], segment, same[here] - begin)
    new = [segment for segment in written if segment.new]
    draft = Draft(index, before.sample_ids, before.name, len(new), sum(segment.bytes for segment in new))

    def unless_moved() -> Draft | None:
        latest = features.store.latest(before.name)
        return draft if latest is not None and latest.number == before.number else None

    committed = features.store.commit(unless_moved)
    if committed is None:
        raise RunFailed(f"{store.url} was committed to while it was compacted; run `pgm cache compact` again")
    list_instead(features, committed)
    return committed


def list_instead(features: Features, version: Version) -> None:
    """Let the dataset list this version where it lists an earlier one that holds the same."""
    store = features.store
    folder = store.storage.name

    def changed(stores: dict[str, int]) -> dict[str, int]:
        if stores.get(folder, version.number) < version.number:
            listed = store.version(stores[folder])
            if (listed.sample_ids, listed.content) == (version.sample_ids, version.content):
                return {**stores, folder: version.number}
        return stores

    relist(store.storage.parent, changed, version.name)


def format_of(version: Version) -> Format:
    """The format of a version's first segment."""
    parsed = [found for name in version.segments if (found := SegmentName.parse(name))]
    return parsed[0].format if parsed else "zarr"


def distinct(features: Features, rows: Int64s) -> tuple[Int64s, Int64s]:
    """The first of `rows` in each place of a segment, by position, and for every row which of these has its place.

    Samples of one source share a place: what is written once stays so.
    """
    index = features.index
    places = np.stack([index.segment[rows], index.status[rows], index.start[rows]], axis=1).astype(np.int64)
    _, first, same = np.unique(places, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return first[order], np.argsort(order)[same]


def grouped(features: Features, rows: Int64s, segment_bytes: int) -> Iterator[Int64s]:
    """Rows with tokens or a reason of failure, in order, in groups that begin a new multiple of `segment_bytes`."""
    width = features.dim * np.dtype(features.store.stored).itemsize + 4 * (features.store.stored == "int8")
    sizes = features.lengths[rows] * width
    number = (np.cumsum(sizes) - sizes) // max(segment_bytes, 1)
    return (group for group in np.split(rows, np.flatnonzero(np.diff(number)) + 1) if len(group))


def is_compact(features: Features, groups: Sequence[Int64s]) -> bool:
    """Whether every group is just what one segment holds, in its order."""
    index, store = features.index, features.store.storage
    if len(groups) != len(features.version.segments):
        return False
    for number, rows in enumerate(groups):
        if (index.segment[rows] != number).any():
            return False
        held = read_segment(store, features.version.segments[number])
        if not np.array_equal(held.lengths, features.lengths[rows]):
            return False
    return True


def rewritten(features: Features, ids: Sequence[str], rows: Int64s, format: Format, codec: Codec) -> Packed:
    """One segment of these rows, to be put. Raises CorruptStore where a sample is not what was written."""
    tokens, scales, attempt, quantised = collected(features, rows)
    known = features.index.source[rows]
    items = Items(
        [ids[row] for row in rows.tolist()],
        [source.tobytes().hex() if source.any() else "" for source in known],
        [features.error(row) for row in rows.tolist()],
        attempt,
        sum_errors(quantised) if scales is not None else None,
    )
    lengths = features.lengths[rows]
    contents = Contents(items, lengths, tokens, sample_checksums(tokens, scales, lengths), scales, codec)
    if (wrong := np.flatnonzero(contents.checksums != features.checksums[rows])).size:
        some = ", ".join(items.ids[row] for row in wrong[:5])
        raise CorruptStore(f"{len(wrong)} samples of {features.url} are damaged ({some}); run `pgm cache verify`")
    return pack_segment(features.identity.whole_digest, contents, format)


def collected(features: Features, rows: Int64s) -> tuple[Array, Array | None, int, list[dict[str, float]]]:
    """Tokens (T, D) and scales (T, 1) as they are stored, out of whichever segments they lie in.

    With them the largest attempt of those segments and, for int8, their errors: of one that is used in part the whole
    error, because what some of its rows cost alone was never measured.
    """
    index, store = features.index, features.store
    lengths = features.lengths[rows]
    begins = np.cumsum(lengths) - lengths
    tokens = np.empty((int(lengths.sum()), store.dim), store.stored)
    scales = np.empty((len(tokens), 1), np.float32) if store.stored == "int8" else None
    attempt, quantised = 0, []
    for number in np.unique(index.segment[rows]).tolist():
        name = features.version.segments[number]
        items = read_segment(store.storage, name).items
        attempt = max(attempt, items.attempt)
        quantised += [dict(items.quantisation)] if items.quantisation else []
        places = np.flatnonzero((index.segment[rows] == number) & (lengths > 0)).tolist()
        if not places:
            continue
        opened = open_segment(store.storage, name, store.stored, store.dim)
        for at in places:
            there, here = int(index.start[rows[at]]), int(begins[at])
            length = int(lengths[at])
            tokens[here : here + length] = opened.tokens[there : there + length]
            if scales is not None and opened.scales is not None:
                scales[here : here + length] = opened.scales[there : there + length]
    return tokens, scales, attempt, quantised
