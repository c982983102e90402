"""One task: decode, batch, encode and write one segment. Runs in a worker process, or in the main one.

Decoding runs in threads ahead of the encoder. A segment's bytes depend on its samples alone, whoever makes it: on a CPU
the encoder runs on one thread, and who shares a batch does not matter (see batches.py).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch

from ...cache.segment import Items, Segment, Stored, write_segment
from ...cache.storage import Storage
from ...cache.store import Identity
from ..decode import DecodeError
from ..encode import Failure, failure_of
from ..encoders import EncoderSpec, FrozenEncoder, build_encoder, check_same_identity
from ..media import Media
from .batches import Item, encode_equal, equal_lengths, sizes_of
from .options import StoreOptions

# One beside a CPU encoder: a second one takes the interpreter and a core from it (measured: 5.0 s against 4.4 s on mel
# frames). A GPU leaves the cores to decoding.
DECODE_THREADS = {"cpu": 1, "cuda": 8}
DECODED_TOGETHER = 8
BYTES_AHEAD = 256 << 20


@dataclass(frozen=True)
class Job:
    """Everything a worker needs for one modality, sent to it once; tasks then carry their own items only."""

    store: Storage
    identity: Identity
    spec: EncoderSpec
    options: StoreOptions

    def build(self) -> FrozenEncoder:
        """This process's encoder. Raises RunFailed where it is not the one the plan was made with."""
        encoder = build_encoder(self.spec)
        check_same_identity(encoder, encoder_fields(self.identity))
        return encoder


@dataclass(frozen=True, eq=False)
class Task:
    """The samples of one segment: their ids, the digests of their sources (32 hex digits, "" where unreadable), and
    the sources."""

    number: int
    ids: Sequence[str]
    sources: Sequence[str]
    media: Sequence[Media]
    attempt: int = 0

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class Made:
    """A finished task: small, as it travels through the scheduler."""

    number: int
    segment: Segment
    seconds: float


def encoder_identity(encoder: FrozenEncoder, options: StoreOptions) -> Identity:
    """What a store of this encoder's features is named by."""
    fields = {**encoder.identity_fields(), STORED: options.stored}
    return Identity(encoder.spec.modality, encoder.name, fields)


STORED = "stored_dtype"


def encoder_fields(identity: Identity) -> dict[str, object]:
    """What of a store's identity is its encoder's."""
    return {name: value for name, value in identity.fields.items() if name != STORED}


def make_segment(job: Job, encoder: FrozenEncoder, task: Task) -> Made:
    """Encode a task's samples and put their segment into the store."""
    began = time.perf_counter()
    features: list[np.ndarray] = [np.empty((0, encoder.dim), np.float32)] * len(task)
    errors = [""] * len(task)
    for place, made in encoded(encoder, task, job.options.stored):
        if isinstance(made, Failure):
            errors[place] = made.reason
        else:
            features[place] = made
    segment = write_segment(
        job.store,
        job.identity.whole_digest,
        Items(list(task.ids), list(task.sources), errors, task.attempt),
        np.array([len(values) for values in features], np.int64),
        np.concatenate(features),
        job.options.stored,
        job.options.format,
        job.options.codec,
    )
    return Made(task.number, segment, time.perf_counter() - began)


def encoded(encoder: FrozenEncoder, task: Task, stored: Stored) -> Iterator[tuple[int, np.ndarray | Failure]]:
    """Every item's place in the task with its (S, D) features, or why it has none.

    Decoding runs in threads ahead of the encoder; what waits is bounded in bytes.
    """
    failures: list[tuple[int, Failure]] = []
    threads = DECODE_THREADS[encoder.device.type]
    parts = [range(at, min(at + DECODED_TOGETHER, len(task))) for at in range(0, len(task), DECODED_TOGETHER)]
    with one_thread(encoder), ThreadPoolExecutor(threads) as pool:
        decoded = ahead(pool, lambda part: decode_items(encoder, task, part, failures), parts, threads + 2)
        try:
            for batch in equal_lengths(chain.from_iterable(decoded), encoder):
                yield from encode_equal(batch, encoder, stored)
        finally:
            pool.shutdown(cancel_futures=True)
    yield from failures


def ahead(
    pool: ThreadPoolExecutor, decode: Callable[[range], list[Item]], parts: Iterable[range], most: int
) -> Iterator[list[Item]]:
    """Each part decoded, in order; at most `most` of them before they are asked for, fewer where they are large."""
    waiting: deque[Future[list[Item]]] = deque()
    largest = 0
    for part in parts:
        waiting.append(pool.submit(decode, part))
        # Until one has come, nothing says how large they are.
        while len(waiting) > (min(most, BYTES_AHEAD // largest) if largest else 1):
            items = waiting.popleft().result()
            largest = max(largest, sizes_of(items), 1)
            yield items
    while waiting:
        yield waiting.popleft().result()


def decode_items(
    encoder: FrozenEncoder, task: Task, places: Iterable[int], failures: list[tuple[int, Failure]]
) -> list[Item]:
    """The items that decode; `failures` takes the reasons of the others."""
    kept: list[int] = []
    decoded: list[object] = []
    for place in places:
        source = task.media[place]
        try:
            one = encoder.decode(source)
            check_source(source, task.sources[place])
        except Exception as error:
            failures.append((place, failure_of(source.name, error)))
        else:
            kept.append(place)
            decoded.append(one)
    lengths = encoder.lengths(decoded)
    return [
        Item(place, task.media[place].name, one, length)
        for place, one, length in zip(kept, decoded, lengths, strict=True)
    ]


def check_source(source: Media, digest: str) -> None:
    """Raises DecodeError where a source is not what it was when the run was planned: its name would be wrong."""
    if source.digest() != digest:
        raise DecodeError("the source changed during the run; the next run encodes it")


@contextmanager
def one_thread(encoder: FrozenEncoder) -> Iterator[None]:
    """Run a CPU encoder on one intra-op thread: its bits then do not depend on how many cores a process has."""
    before = torch.get_num_threads()
    if encoder.device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
