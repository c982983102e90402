"""How samples are cut into segments, and which of these an earlier run has left.

Segments are cut by the data alone, never by the worker count: in the order of the samples, so many items each as make
about a sixteenth of the store, and few enough that a task's message stays small however large the dataset is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from ...cache.segment import inputs_digest, is_intact, read_segment
from ...cache.store import Store
from ..media import FileMedia, Media, TextMedia
from .held import Rows

SMALLEST_SEGMENT, LARGEST_SEGMENT = 256 << 10, 64 << 20
# Enough segments that several workers share even a small dataset evenly.
SEGMENTS_WANTED = 16
# Of a task, so that its message stays well under a megabyte.
MOST_ITEMS, MOST_BYTES = 4096, 512 << 10
ITEM_BYTES = 96
BLOCK = 1 << 16


def segment_items(samples: int, sample_bytes: float) -> int:
    """Items of a segment of a store of so many samples."""
    wanted = min(max(samples * sample_bytes / SEGMENTS_WANTED, SMALLEST_SEGMENT), LARGEST_SEGMENT)
    return int(min(max(wanted // sample_bytes, 1), MOST_ITEMS))


def cut(rows: Rows, items: int, media: Sequence[Media | None] | None = None) -> Iterator[Rows]:
    """Rows in runs of `items`, fewer where `media` are to be sent in a task and are large."""
    start = size = 0
    for at, row in enumerate(numbers(rows)):
        added = message_bytes(media[row]) if media is not None else 0
        if at > start and (at - start == items or size + added > MOST_BYTES):
            yield rows[start:at]
            start, size = at, 0
        size += added
    if start < len(rows):
        yield rows[start:]


def numbers(rows: Rows) -> Iterator[int]:
    """The rows as Python's numbers, a block of them at a time: a hundred million at once take 4 GB."""
    return chain.from_iterable(rows[at : at + BLOCK].tolist() for at in range(0, len(rows), BLOCK))


def message_bytes(source: Media | None) -> int:
    """What an item adds to a task's message, about."""
    match source:
        case TextMedia(text):
            return ITEM_BYTES + 4 * len(text)
        case FileMedia(path):
            return ITEM_BYTES + len(path)
    return 2 * ITEM_BYTES


def next_attempt(
    store: Store, ids: Sequence[str], sources: Sequence[str], there: Mapping[str, str], retry: bool = False
) -> tuple[int, str | None]:
    """Which attempt making a segment of these samples would be, and the earlier one that can be used instead.

    there: digest of inputs -> name, of every segment in the store. One that is damaged is made again, under its name
    where the bytes come out the same; after failures that are to be tried again, the next attempt has another name.
    """
    attempt = 0
    while True:
        name = there.get(inputs_digest(store.identity.whole_digest, ids, sources, attempt))
        if name is None or not is_intact(store.storage, name):
            return attempt, None
        if not (retry and any(read_segment(store.storage, name).items.errors)):
            return attempt, name
        attempt += 1
