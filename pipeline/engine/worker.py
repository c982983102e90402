"""A worker: one pipeline over all its tasks, read → decode → batch → encode → copy out → write.

Nothing drains between segments: while one is written and the next encoded, those after them are read and decoded, and
a batch takes its items from any of them. What waits is bounded in bytes before the encoder and in segments behind it. A
segment's bytes depend on its samples alone, whoever makes it: on a CPU the encoder runs on one thread, and who shares a
batch does not matter (see batches.py).
"""

from __future__ import annotations

import gc
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from itertools import groupby
from operator import attrgetter
from typing import Any, TypeVar

import numpy as np
import torch

from ...cache.segment import Items, Segment, write_segment
from ..encode import Failure, Item, Outcome, finish_batch, start_batch
from ..encoders import FrozenEncoder
from ..encoders.copying import Encoded
from .batches import Waiting, filled
from .decoders import Decoding
from .decoding import Part
from .job import Job, Made, Spent, Task
from .journal import NO_KEY

BYTES_AHEAD = 64 << 20  # parts that are decoded or wait for their turn
BYTES_OUT = 256 << 20  # tokens on their way out of the device, of more than two batches
LINGER = 2  # younger segments under way when an older one's last items stop waiting for others of their length
OPEN_SEGMENTS = LINGER + 2
BATCHES_IN_FLIGHT = 2  # started and not yet out of the device
WRITES_WAITING = 1  # whole segments behind the one that is written
A_MOMENT = 0.01  # seconds, then another task may have come

Result = TypeVar("Result")
# The next task; where there is none at the moment None, or, where asked to wait, None when no more will come.
TakeTask = Callable[[bool], Task | None]


@dataclass(eq=False)
class Making:
    """A segment under way. left: items without an outcome; coming: items not yet decoded."""

    task: Task
    left: int = 0
    coming: int = 0
    began: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self.left = self.coming = len(self.task)
        self.kept: list[tuple[list[int], Sequence[int], np.ndarray]] = []
        self.digests = [""] * len(self.task)
        self.keys = [NO_KEY] * len(self.task)
        self.errors = [""] * len(self.task)

    def decoded(self, start: int, part: Part) -> list[Item]:
        """The items of a part that begins at `start`."""
        self.coming -= len(part.digests)
        self.digests[start : start + len(part.digests)] = part.digests
        self.keys[start : start + len(part.keys)] = part.keys
        return part.of(self, self.task.media, start)

    def fail(self, place: int, why: Failure) -> None:
        """Take the reason why an item has no tokens."""
        self.errors[place] = why.reason

    def keep(self, places: list[int], lengths: Sequence[int], tokens: np.ndarray) -> None:
        """Take what came of some items: tokens (T, D), one item's after another's, none of those that failed."""
        self.kept.append((places, lengths, tokens))
        self.left -= len(places)

    def write(self, job: Job, dim: int) -> Segment:
        """Put the segment into the store."""
        lengths = np.zeros(len(self.task), np.int64)
        for places, some, _ in self.kept:
            lengths[places] = some
        starts = np.cumsum(lengths) - lengths
        tokens = np.empty((int(lengths.sum()), dim), self.kept[0][2].dtype)
        for places, some, values in self.kept:
            tokens[np.repeat(starts[places] - (np.cumsum(some) - some), some) + np.arange(len(values))] = values
        self.kept = []
        return write_segment(
            job.store,
            job.identity.whole_digest,
            Items(list(self.task.ids), self.digests, self.errors, self.task.attempt),
            lengths,
            tokens,
            job.options.stored,
            job.options.format,
            job.options.codec,
        )


class Pipeline:
    """Makes segments of the tasks that `take` gives, for as long as it gives any."""

    def __init__(self, job: Job, encoder: FrozenEncoder, take: TakeTask) -> None:
        self.job, self.encoder, self.take = job, encoder, take
        # int8 is made of exact values when the segment is written.
        self.dtype = torch.float16 if job.options.stored == "float16" else torch.float32
        self.waiting = Waiting(encoder)
        self.open: deque[Making] = deque()
        self.coming: Iterator[tuple[Making, range]] = iter(())
        self.parts: deque[tuple[Making, int, Future[Part]]] = deque()
        self.largest_item = 0
        self.in_flight: deque[tuple[Future[None], int]] = deque()
        self.writes: deque[Future[tuple[Making, Segment]]] = deque()
        self.unfinished = 0
        self.device_free = 0.0
        # `encode` is the keeping thread's to add to, the others are the encoder's.
        self.seconds = {item.name: 0.0 for item in fields(Spent)}
        self.told = Spent()
        self.worker = f"{socket.gethostname()}:{os.getpid()}"

    def run(self) -> Iterator[Made]:
        """Each finished task, as its segment is in the store."""
        with ExitStack() as stack:
            stack.enter_context(one_thread(self.encoder))
            stack.enter_context(without_what_was_there())
            self.decoding = stack.enter_context(Decoding(self.encoder, self.job.decoders))
            # Two threads: one waits for the device, one for the disk.
            self.keeper, self.writer = (ThreadPoolExecutor(1, name) for name in ("keep", "write"))
            stack.callback(self.writer.shutdown, cancel_futures=True)
            stack.callback(self.keeper.shutdown, cancel_futures=True)
            for batch in self.batches():
                if batch:
                    self.encode(batch)
                yield from self.made()

    # Read, decode, batch.

    def batches(self) -> Iterator[list[Item]]:
        """Batches to encode; an empty one where there is only something to be written."""
        while True:
            self.read_ahead()
            if self.parts:
                making, start, future = self.parts.popleft()
                part = self.result_of(future)
                # With their digests, before failures can make the segment whole, which is then written.
                items = making.decoded(start, part)
                if part.failures:
                    self.hand_over(self.fail, making, {start + place: why for place, why in part.failures.items()})
                yield from self.waiting.add(items)
                if len(self.open) > LINGER and not self.open[0].coming:
                    yield from self.waiting.of(self.open.popleft())
            elif self.open:
                yield from self.waiting.of(self.open.popleft())
            elif self.unfinished:
                yield []
            elif not self.begin(wait_for_one=True):
                return

    def read_ahead(self) -> None:
        """Let parts be decoded, of the next task too where its turn has come."""
        while len(self.parts) < self.most_parts():
            step = next(self.coming, None)
            if step is not None:
                making, places = step
                media = making.task.media[places.start : places.stop]
                self.parts.append((making, places.start, self.timed("decode", self.decoding.submit, media)))
            elif len(self.open) >= OPEN_SEGMENTS or not self.begin(wait_for_one=False):
                return

    def begin(self, wait_for_one: bool) -> bool:
        """Open the next task's segment; False where there is none."""
        task = self.timed("idle", self.take, wait_for_one)
        if task is None:
            return False
        making = Making(task)
        self.coming = self.steps(making)
        self.open.append(making)
        self.unfinished += 1
        return True

    def steps(self, making: Making) -> Iterator[tuple[Making, range]]:
        """The places of each part of a segment."""
        at = 0
        while at < len(making.task):
            places = range(at, min(at + self.together(), len(making.task)))
            yield making, places
            at = places.stop

    def together(self) -> int:
        """Items of a part: fewer where they are large, so that every decoder has one and another waits for it."""
        each = BYTES_AHEAD // (2 * max(self.decoding.threads, 1) * max(self.largest_item, 1))
        return min(self.decoding.together, max(each, 1))

    def most_parts(self) -> int:
        """Parts that may be under way or wait; one beside a CPU, and until one has come and says how large they are."""
        if not self.decoding.threads or not self.largest_item:
            return 1
        return max(BYTES_AHEAD // (self.together() * self.largest_item), 1)

    def result_of(self, future: Future[Part]) -> Part:
        """A part, waited for; the wait counts as what the part's time went into."""
        began = time.perf_counter()
        part = future.result()
        waited = time.perf_counter() - began
        self.largest_item = max(self.largest_item, *part.sizes, 1)
        share = part.read / max(part.read + part.decode, 1e-9)
        self.seconds["read"] += waited * share
        self.seconds["decode"] += waited * (1 - share)
        return part

    def timed(self, stage: str, call: Callable[..., Result], *arguments: Any) -> Result:
        """The call's result; its seconds are the stage's."""
        began = time.perf_counter()
        result = call(*arguments)
        self.seconds[stage] += time.perf_counter() - began
        return result

    # Encode, copy out, write.

    def encode(self, batch: list[Item]) -> None:
        """Start a batch, and have its outcomes kept when they are there."""
        whole = filled(batch, self.encoder)
        began = time.perf_counter()
        started = start_batch(self.encoder, whole)
        if isinstance(started, Failure):
            # Here and now: the encoder belongs to this thread.
            self.hand_over(self.keep, batch, finish_batch(self.encoder, whole, started, self.job.options.stored))
            return
        ended = time.perf_counter() if started.copied is None else None
        self.hand_over(
            self.finish, batch, whole, started, began, ended, bytes=4 * self.encoder.dim * sum(started.lengths)
        )
        while len(self.in_flight) > self.most_in_flight():
            self.in_flight.popleft()[0].result()
        if len(self.writes) > WRITES_WAITING:
            self.timed("write", wait, [self.writes[0]])

    def most_in_flight(self) -> int:
        """Batches that may be on the device or on their way out; one at least, so that the device has the next."""
        return BATCHES_IN_FLIGHT if sum(size for _, size in self.in_flight) <= BYTES_OUT else 1

    def finish(
        self, batch: list[Item], whole: Sequence[Item], started: Encoded, began: float, ended: float | None
    ) -> None:
        """Wait for a batch's outcome and keep it."""
        outcome = finish_batch(self.encoder, whole, started, self.job.options.stored)
        ended = ended or time.perf_counter()
        self.seconds["encode"] += ended - max(began, self.device_free)
        self.device_free = ended
        self.keep(batch, outcome)

    def hand_over(self, call: Callable[..., None], *arguments: Any, bytes: int = 0) -> None:
        """Have outcomes of so many bytes kept: by a thread that may wait for the device, or where nothing is waited
        for, here."""
        if self.encoder.device.type == "cpu":
            call(*arguments)
        else:
            self.in_flight.append((self.keeper.submit(call, *arguments), bytes))

    def keep(self, batch: list[Item], outcome: Outcome) -> None:
        """Give the segments of a batch their items' outcomes. The copies that fill it up come last and are dropped."""
        for number, why in outcome.failures.items():
            if number < len(batch):
                batch[number].segment.fail(batch[number].place, why)
        at = row = 0
        for making, items in groupby(batch, attrgetter("segment")):
            places = [item.place for item in items]
            lengths = outcome.lengths[at : at + len(places)]
            rows = sum(lengths)
            # A copy: the batch's memory goes. PyTorch's cast to float16 is ten times as fast as numpy's.
            tokens = torch.tensor(outcome.tokens[row : row + rows], dtype=self.dtype).numpy()
            self.take_in(making, places, lengths, tokens)
            at, row = at + len(places), row + rows

    def fail(self, making: Making, failures: dict[int, Failure]) -> None:
        """Give a segment the failures of items that could not be decoded."""
        for place, why in failures.items():
            making.fail(place, why)
        none = np.empty((0, self.encoder.dim), np.float16 if self.dtype == torch.float16 else np.float32)
        self.take_in(making, list(failures), [0] * len(failures), none)

    def take_in(self, making: Making, places: list[int], lengths: Sequence[int], tokens: np.ndarray) -> None:
        """Add items to their segment; one that is whole is written."""
        making.keep(places, lengths, tokens)
        if not making.left:
            self.writes.append(self.writer.submit(self.write, making))

    def write(self, making: Making) -> tuple[Making, Segment]:
        """Runs in the writing thread."""
        return making, making.write(self.job, self.encoder.dim)

    def made(self) -> Iterator[Made]:
        """What has been written since; where nothing else is left to do, waited for a moment."""
        while self.in_flight and (self.in_flight[0][0].done() or not self.open):
            self.in_flight.popleft()[0].result()
        if not self.open and self.writes:
            self.timed("write", wait, [self.writes[0]], A_MOMENT)
        while self.writes and self.writes[0].done():
            making, segment = self.writes.popleft().result()
            self.unfinished -= 1
            now = Spent(**self.seconds)
            spent, self.told = now - self.told, now
            seconds = time.perf_counter() - making.began
            yield Made(making.task.number, segment, b"".join(making.keys), seconds, self.worker, spent)


@contextmanager
def without_what_was_there() -> Iterator[None]:
    """Keep Python's collector of cycles from going through libraries and models again and again for every thousand
    small objects that come and go: 0.3 of 3.7 s of 43,000 short texts, 0.05 without."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


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
