"""Writing a segment: check, encode, name by content, put if absent. One call, callable from any process.

Who has several packs one while those before are on their way to the disk: a processor and a disk then work at the same
time, which they do not where two threads each do both in step.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from ..errors import RunFailed
from ..storage import Storage
from ..storage.base import Parts, digest_of, is_whole, joined, total_bytes
from .contents import (
    SEGMENTS,
    Codec,
    Contents,
    Format,
    Int64s,
    Items,
    SegmentName,
    UInt64s,
    check_format,
    inputs_digest,
    sample_checksums,
)
from .encoding import Array, Stored, encode, unfit_rows
from .hdf5 import hdf5_objects
from .zarr import zarr_objects

OBJECTS = {"zarr": zarr_objects, "hdf5": hdf5_objects}
NAMED = 5  # samples an error names before it counts the rest
AT_ONCE = 2  # segments on their way to the disk: while one waits for it, the other is copied to the page cache


@dataclass(frozen=True, eq=False)
class Segment:
    """What a version needs to know of a segment: small enough to travel back from a worker.

    lengths, checksums: (n,) of its samples. bytes: of all its objects. new: whether this call wrote it.
    """

    name: str
    items: Items
    lengths: Int64s
    checksums: UInt64s
    bytes: int
    new: bool


@dataclass(frozen=True, eq=False)
class Packed:
    """A segment that is yet to be put: what will be known of it, and its objects by key."""

    segment: Segment
    objects: Mapping[str, Parts]


def write_segment(
    store: Storage,
    identity: str,
    items: Items,
    lengths: Int64s,
    tokens: Array,
    stored: Stored = "float16",
    format: Format = "zarr",
    codec: Codec = "none",
) -> Segment:
    """Write the features of some samples as one immutable segment of the store, unless it is there.

    identity: the whole digest of the store's identity. lengths: (n,) tokens a sample, 0 for those with an error.
    tokens: (T, D) floats, the samples' one after another. Raises RunFailed for a NaN, an infinity or a value beyond
    what `stored` holds, naming the samples, and for a full disk.
    """
    return put_segment(store, pack_features(identity, items, lengths, tokens, stored, format, codec))


def pack_features(
    identity: str,
    items: Items,
    lengths: Int64s,
    tokens: Array,
    stored: Stored = "float16",
    format: Format = "zarr",
    codec: Codec = "none",
    checksums: UInt64s | None = None,
) -> Packed:
    """The segment that `write_segment` writes. checksums: (n,) of the samples, where they are known."""
    check_format(format, codec)
    check_shapes(items, lengths, tokens)
    if (unfit := unfit_rows(tokens, stored)).size:
        raise RunFailed(unfit_message(items, lengths, tokens, unfit, stored))
    encoded = encode(tokens, stored)
    items = replace(items, quantisation=encoded.error)
    lengths = np.ascontiguousarray(lengths, np.int64)
    if checksums is None:
        checksums = sample_checksums(encoded.tokens, encoded.scales, lengths)
    contents = Contents(items, lengths, encoded.tokens, checksums, encoded.scales, codec)
    return pack_segment(identity, contents, format)


def pack_segment(identity: str, contents: Contents, format: Format) -> Packed:
    """Already encoded contents under the name their inputs and bytes give them."""
    items = contents.items
    objects = OBJECTS[format](contents)
    name = SegmentName(inputs_digest(identity, items.ids, items.sources, items.attempt), digest_of(objects), format)
    size = total_bytes(objects)
    return Packed(Segment(str(name), items, contents.lengths, contents.checksums, size, False), objects)


def put_segment(store: Storage, packed: Packed) -> Segment:
    """Put a segment, unless it is there."""
    name = packed.segment.name
    key = joined(SEGMENTS, name)
    new = put_objects(store, key, packed.objects)
    if not new and not is_intact(store, name):
        # What lay there has been damaged since; these are the bytes its name promises.
        store.delete(key)
        new = put_objects(store, key, packed.objects)
    return replace(packed.segment, new=new)


def put_segments(store: Storage, packed: Iterable[Packed]) -> Iterator[Segment]:
    """Put segments, in their order; each is made while those before it are on their way."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        coming: deque[Future[Segment]] = deque()
        for each in packed:
            coming.append(pool.submit(put_segment, store, each))
            if len(coming) > AT_ONCE:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def is_intact(store: Storage, name: str) -> bool:
    """Read all of a segment and hold it against its name; False where anything is changed, missing or added."""
    parsed = SegmentName.parse(name)
    return parsed is not None and is_whole(store, joined(SEGMENTS, name), parsed.content)


def put_objects(store: Storage, key: str, objects: Mapping[str, Parts]) -> bool:
    """Put a single object (its name is "") or a group."""
    return store.put(key, objects[""]) if "" in objects else store.put_group(key, objects)


def check_shapes(items: Items, lengths: Int64s, tokens: Array) -> None:
    """Raises ValueError for arrays that do not belong together: a mistake of the caller, not of a user."""
    if tokens.ndim != 2 or tokens.dtype.kind != "f":
        raise ValueError(f"tokens are (T, D) float16, float32 or float64, not {tokens.dtype} of {tokens.shape}")
    if len(lengths) != len(items) or int(np.sum(lengths)) != len(tokens) or np.min(lengths, initial=0) < 0:
        raise ValueError(f"{len(items)} items, {len(lengths)} lengths (sum {np.sum(lengths)}), {len(tokens)} tokens")
    if wrong := [row for row, error in enumerate(items.errors) if error and lengths[row]]:
        raise ValueError(f"items {_some(wrong)} carry an error and have tokens")


def unfit_message(items: Items, lengths: Int64s, tokens: Array, unfit: Int64s, stored: Stored) -> str:
    """Which samples hold values that `stored` cannot keep, and what to do."""
    samples = np.unique(np.searchsorted(np.cumsum(lengths), unfit, side="right")).tolist()
    names = _some([items.ids[row] for row in samples])
    first = tokens[unfit[0]].astype(np.float64)
    what = "a NaN" if np.isnan(first).any() else f"a value of {np.abs(first).max():g}"
    return (
        f"A segment was refused: {what} in sample {names}. {stored} holds finite values"
        f"{'' if stored == 'float32' else ' up to 65504'}; compute in float32 or bfloat16, or store float32."
    )


def _some(values: Sequence[object]) -> str:
    more = f" and {len(values) - NAMED} more" if len(values) > NAMED else ""
    return ", ".join(map(str, values[:NAMED])) + more
