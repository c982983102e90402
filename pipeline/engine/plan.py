"""The plan of one modality: what its store has already, and which segments are to be made. A value, fixed before work.

Token counts are not known before samples are decoded, so that sizes are estimated from a few. A task carries its own
items only.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ...cache.storage import LocalStorage, Storage
from ...cache.store import Identity, Store
from ...cache.store.index import source_bytes
from ..encoders import EncoderSpec, FrozenEncoder
from ..encoders.base import SINGLE
from ..media import Media
from .decoding import decode_part
from .held import Found, Rows, find_held
from .job import Job, Made, Task, encoder_identity
from .journal import Digests, Journal
from .options import StoreOptions
from .pending import Pending, once_each
from .segments import cut, segment_items
from .sources import known_sources

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

    spec, random_weights: of the encoder, which workers build. ids, media: of all N samples; sources (N, 16): digests,
    zeros where one is only known when it is read to be encoded.
    found: what the store has. pending: what is to be encoded. estimate: of a sample, where any is. name: of the
    version to commit.
    """

    store: Store
    spec: EncoderSpec
    random_weights: bool
    options: StoreOptions
    ids: Sequence[str]
    media: Sequence[Media | None]
    sources: Digests
    journal: Journal
    missing: Rows
    found: Found
    pending: Pending
    estimate: Estimate
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
        return Job(self.store.storage, self.identity, self.spec, self.options)

    @property
    def sample_bytes(self) -> float:
        """Bytes of a sample's tokens, about, before compression."""
        return sample_bytes(self.estimate, self.store.dim, self.options)

    @property
    def pending_bytes(self) -> int:
        """Bytes that will be written, about, before compression."""
        return round(self.sample_bytes * len(self.pending.rows)) if len(self.pending) else 0

    @property
    def segment_items(self) -> int:
        """Items of a segment."""
        return segment_items(self.pending.sources, self.sample_bytes)

    def tasks(self) -> Iterator[tuple[Rows, Task]]:
        """The rows and the task of every segment to be made, one after another."""
        for number, rows in enumerate(cut(self.pending.rows, self.segment_items, self.media)):
            numbers = rows.tolist()
            media = tuple(source for row in numbers if (source := self.media[row]) is not None)
            yield rows, Task(number, tuple(self.ids[row] for row in numbers), media)

    def remember(self, made: Made) -> None:
        """Let the journal say what the samples of a new segment were made from."""
        keys = np.frombuffer(made.keys, np.uint8).reshape(-1, 16)
        self.journal.add(keys, source_bytes(made.segment.items.sources))


def make_plan(
    ids: Sequence[str],
    media: Sequence[Media | None],
    encoder: FrozenEncoder,
    dataset: Storage,
    options: StoreOptions,
    retry_failed: bool = False,
    name: str = "",
    check_sources: bool = False,
) -> Plan:
    """Look at every source's name and size, and at what the modality's store has of them.

    retry_failed: encode again what failed, too. check_sources: read all of which the store may have features. Raises
    IdentityMismatch where a store of the same name holds something else.
    """
    store = Store.create(dataset, encoder_identity(encoder, options), encoder.dim, options.stored)
    journal = Journal.of(store.storage.url)
    sources = known_sources(store, ids, media, journal, check_sources)
    present = np.array([source is not None for source in media], bool)
    found = find_held(store, ids, sources, present, media)
    left = present.copy()
    for held in found.encoded if retry_failed else (*found.encoded, *found.failed):
        left[held.rows] = False
    missing, pending = np.flatnonzero(~present), once_each(media, np.flatnonzero(left))
    # Of all samples, so that a run that continues cuts its segments as the first did.
    sample = lengths_to_come(media, encoder) if len(pending) else Estimate(1.0, 0, 0, 0)
    about = (encoder.spec, encoder.random_weights, options)
    return Plan(store, *about, ids, media, sources, journal, missing, found, pending, sample, retry_failed, name)


def sample_bytes(found: Estimate, dim: int, options: StoreOptions) -> float:
    """Bytes of a sample's tokens, before compression."""
    return max(found.tokens, 1) * dim * np.dtype(options.stored).itemsize


def lengths_to_come(media: Sequence[Media | None], encoder: FrozenEncoder) -> Estimate:
    """From a few samples where their lengths differ, and without looking at any where they do not."""
    known = encoder.same_length or (1 if encoder.pooling in SINGLE else None)
    if known is None:
        return estimate(media, encoder)
    tokens = encoder.pooled_length(known)
    return Estimate(tokens, tokens, 0, 0)


def estimate(media: Sequence[Media | None], encoder: FrozenEncoder) -> Estimate:
    """Decode a few samples and count their tokens."""
    part = decode_part(encoder, few(media, PROBED))
    lengths = [encoder.pooled_length(length) for length in part.lengths]
    mean = float(np.mean(lengths)) if lengths else 1.0
    # Why one cannot be decoded the run records, beside the item.
    return Estimate(mean, max(lengths, default=0), len(part.digests), len(part.failures))


def few(media: Sequence[Media | None], most: int) -> list[Media]:
    """At most so many sources, spread evenly over those that there are."""
    present = [source for row in spread(len(media), 4 * most) if (source := media[row]) is not None]
    return [present[at] for at in spread(len(present), most)]


def spread(count: int, most: int) -> list[int]:
    """At most `most` of `count` places, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64)).tolist() if count else []


def free_bytes(storage: Storage) -> int | None:
    """Bytes free where a folder will lie, whether or not it exists yet; None for an object store."""
    if not isinstance(storage, LocalStorage):
        return None
    there = storage.path.absolute()
    while not there.exists():
        there = there.parent
    return shutil.disk_usage(there).free
