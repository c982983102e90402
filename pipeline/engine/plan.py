"""The plan of one modality: what its store has already, and which segments are to be made. A value, fixed before work.

Segments are cut by the data alone, never by the worker count: in the order of the samples, so many items each as make
about a sixteenth of the store by the mean length of a few probed samples. A task carries its own items only, and few
enough that its message stays small however large the dataset is.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...cache.segment import SegmentName, inputs_digest, is_intact, read_segment
from ...cache.storage import LocalStorage, Storage
from ...cache.store import Identity, Store
from ..encoders import FrozenEncoder
from ..media import FileMedia, Media, TextMedia
from .held import Found, Rows, find_held
from .options import StoreOptions
from .sources import Digests, digest_sources, spelled
from .worker import Job, Task, encoder_identity

SMALLEST_SEGMENT, LARGEST_SEGMENT = 256 << 10, 64 << 20
# Enough segments that several workers share even a small dataset evenly.
SEGMENTS_WANTED = 16
# Of a task, so that its message stays well under a megabyte.
MOST_ITEMS, MOST_BYTES = 4096, 512 << 10
ITEM_BYTES = 96
PROBED = 64


@dataclass(frozen=True)
class Estimate:
    """What a few samples say of all. tokens: the mean of a sample; longest: the most of one; probed: how many samples
    were looked at, unusable: how many of them could not be decoded."""

    tokens: float
    longest: int
    probed: int
    unusable: int


@dataclass(frozen=True, eq=False)
class Plan:
    """What will be encoded for one modality, and where it will lie.

    ids, media, sources: of all N samples. found: what the store has. pending: rows to encode. name: of the version to
    commit.
    """

    store: Store
    encoder: FrozenEncoder
    options: StoreOptions
    ids: Sequence[str]
    media: Sequence[Media | None]
    sources: Digests
    missing: Rows
    found: Found
    pending: Rows
    retry: bool
    name: str = ""

    @property
    def identity(self) -> Identity:
        """What will be computed."""
        return self.store.identity

    @property
    def modality(self) -> str:
        """Its modality."""
        return self.identity.modality

    @property
    def job(self) -> Job:
        """What workers are sent."""
        return Job(self.store.storage, self.identity, self.encoder.spec, self.options)

    @cached_property
    def estimate(self) -> Estimate:
        """From samples spread evenly over all that have the modality, decoded here."""
        return estimate(self.media, self.encoder)

    @property
    def sample_bytes(self) -> float:
        """Bytes of a sample's tokens, about, before compression."""
        return max(self.estimate.tokens, 1) * self.store.dim * np.dtype(self.options.stored).itemsize

    @property
    def segment_items(self) -> int:
        """Items of a segment."""
        return segment_items(len(self.media) - len(self.missing), self.sample_bytes)

    def tasks(self) -> Iterator[tuple[Rows, Task]]:
        """The rows and the task of every segment to be made, one after another."""
        for number, rows in enumerate(cut(self.pending, self.media, self.segment_items)):
            numbers = rows.tolist()
            yield (
                rows,
                Task(
                    number,
                    tuple(self.ids[row] for row in numbers),
                    tuple(spelled(self.sources[rows])),
                    tuple(source for row in numbers if (source := self.media[row]) is not None),
                ),
            )


def make_plan(
    ids: Sequence[str],
    media: Sequence[Media | None],
    encoder: FrozenEncoder,
    dataset: Storage,
    options: StoreOptions,
    retry_failed: bool = False,
    name: str = "",
) -> Plan:
    """Look at every source once, and at what the modality's store has of them.

    retry_failed: encode again what failed, too. Raises IdentityMismatch where a store of the same name holds something
    else.
    """
    store = Store.create(dataset, encoder_identity(encoder, options), encoder.dim, options.stored)
    sources = digest_sources(media)
    present = np.fromiter((source is not None for source in media), bool, len(media))
    found = find_held(store, ids, sources, present)
    left = present.copy()
    for held in found.encoded if retry_failed else (*found.encoded, *found.failed):
        left[held.rows] = False
    missing, pending = np.flatnonzero(~present), np.flatnonzero(left)
    return Plan(store, encoder, options, ids, media, sources, missing, found, pending, retry_failed, name)


def segment_items(samples: int, sample_bytes: float) -> int:
    """Items of a segment of a store of so many samples."""
    wanted = min(max(samples * sample_bytes / SEGMENTS_WANTED, SMALLEST_SEGMENT), LARGEST_SEGMENT)
    return int(min(max(wanted // sample_bytes, 1), MOST_ITEMS))


def cut(rows: Rows, media: Sequence[Media | None], items: int) -> Iterator[Rows]:
    """Rows in runs of `items`, fewer where their sources stand in the task itself and are large."""
    start = size = 0
    for at, row in enumerate(rows.tolist()):
        added = message_bytes(media[row])
        if at > start and (at - start == items or size + added > MOST_BYTES):
            yield rows[start:at]
            start, size = at, 0
        size += added
    if start < len(rows):
        yield rows[start:]


def message_bytes(source: Media | None) -> int:
    """What an item adds to a task's message, about."""
    match source:
        case TextMedia(text):
            return ITEM_BYTES + 4 * len(text)
        case FileMedia(path):
            return ITEM_BYTES + len(path)
    return 2 * ITEM_BYTES


def estimate(media: Sequence[Media | None], encoder: FrozenEncoder) -> Estimate:
    """Decode a few samples and count their tokens."""
    present = [row for row in spread(len(media), 4 * PROBED) if media[row] is not None]
    chosen = [present[at] for at in spread(len(present), PROBED)]
    lengths = []
    for row in chosen:
        source = media[row]
        assert source is not None
        try:
            lengths.append(encoder.pooled_length(encoder.lengths([encoder.decode(source)])[0]))
        except Exception:
            # The run records why, beside the item.
            continue
    mean = float(np.mean(lengths)) if lengths else 1.0
    return Estimate(mean, max(lengths, default=0), len(chosen), len(chosen) - len(lengths))


def spread(count: int, most: int) -> list[int]:
    """At most `most` of `count` places, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64)).tolist() if count else []


def next_attempt(plan: Plan, task: Task, there: dict[str, str]) -> tuple[int, str | None]:
    """The attempt a task is, and the segment of it that an earlier run wrote and can be used.

    there: digest of inputs -> name, of every segment in the store. A damaged segment is left alone, and the next attempt
    has another name; one in which something failed is when failures are to be tried again.
    """
    attempt = 0
    while True:
        name = there.get(inputs_digest(plan.identity.whole_digest, task.ids, task.sources, attempt))
        if name is None or usable(plan, name):
            return attempt, name
        attempt += 1


def usable(plan: Plan, name: str) -> bool:
    """Whether a segment that is there answers a task."""
    storage = plan.store.storage
    if SegmentName.parse(name) is None or not is_intact(storage, name):
        return False
    return not (plan.retry and any(read_segment(storage, name).items.errors))


def free_bytes(storage: Storage) -> int | None:
    """Bytes free where a folder will lie, whether or not it exists yet; None for an object store."""
    if not isinstance(storage, LocalStorage):
        return None
    there = storage.path.absolute()
    while not there.exists():
        there = there.parent
    return shutil.disk_usage(there).free
