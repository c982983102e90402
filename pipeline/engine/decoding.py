"""From sources to decoded items: each read once, digested and decoded, ahead of the encoder.

Where that happens follows from what was measured. Beside a CPU encoder its own thread decodes: every core has a worker
of its own, and a second thread makes the two take turns at the interpreter (a text 454 against 42 microseconds, a small
picture 745 against 606, encoding included). A GPU leaves the cores to decoding.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from ..encode import Failure, Item, failure_of
from ..encoders import FrozenEncoder
from ..media import Media
from .batches import size_of

DECODED_TOGETHER = 8


@dataclass(eq=False)
class Part:
    """Some items of a task, decoded.

    places: of those that could be, with their `items`, prepared, their `lengths` and `sizes` in bytes. digests: of all,
    32 hex digits of the source, "" where it cannot be read. failures: why the others could not be. read, decode:
    seconds.
    """

    places: list[int] = field(default_factory=list)
    items: list[Any] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    failures: dict[int, Failure] = field(default_factory=dict)
    read: float = 0.0
    decode: float = 0.0

    @property
    def bytes(self) -> int:
        """Bytes its items hold."""
        return sum(self.sizes)

    def of(self, segment: Any, media: Sequence[Media], start: int) -> list[Item]:
        """Its items, for a segment in whose `media` the part begins at `start`."""
        return [
            Item(media[start + place], item, length, size, segment, start + place)
            for place, item, length, size in zip(self.places, self.items, self.lengths, self.sizes, strict=True)
        ]


def decode_part(encoder: FrozenEncoder, media: Sequence[Media]) -> Part:
    """Read and decode each source; whatever one raises is its own failure."""
    part = Part()
    for place, source in enumerate(media):
        part.digests.append("")
        began = read = time.perf_counter()
        try:
            # One read: the digest is that of the very bytes that are decoded.
            loaded = source.loaded()
            part.digests[place] = loaded.digest()
            read = time.perf_counter()
            decoded = encoder.decode(loaded)
        except Exception as error:
            part.failures[place] = failure_of(source, error)
        else:
            part.places.append(place)
            part.items.append(decoded)
        part.read += read - began
        part.decode += time.perf_counter() - read
    began = time.perf_counter()
    part.items = encoder.prepare(part.items)
    part.lengths = encoder.lengths(part.items)
    part.sizes = [size_of(item) for item in part.items]
    part.decode += time.perf_counter() - began
    return part


class Decoding:
    """Decodes parts of tasks for an encoder, `ahead` of them at a time; leave the with block to stop."""

    def __init__(self, encoder: FrozenEncoder) -> None:
        self.encoder = encoder
        self.threads = decode_threads(encoder)
        self._stack = ExitStack()
        self._pool: Executor | None = None

    @property
    def ahead(self) -> int:
        """Parts that may be under way, or waiting, at once."""
        return self.threads + 2 if self.threads else 1

    @property
    def together(self) -> int:
        """Items of a part."""
        return 8 * DECODED_TOGETHER if self.encoder.medium == "text" else DECODED_TOGETHER

    def __enter__(self) -> Decoding:
        if self.threads:
            self._pool = self._stack.enter_context(ThreadPoolExecutor(self.threads, "decode"))
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        self._stack.close()

    def submit(self, media: Sequence[Media]) -> Future[Part]:
        """A part under way; without threads it is decoded here and now."""
        if self._pool is not None:
            return self._pool.submit(decode_part, self.encoder, media)
        done: Future[Part] = Future()
        done.set_result(decode_part(self.encoder, media))
        return done


def decode_threads(encoder: FrozenEncoder) -> int:
    """How many threads decode beside the encoder's own."""
    return 8 if encoder.device.type == "cuda" else 0
