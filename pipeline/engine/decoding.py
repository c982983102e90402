"""From sources to decoded items: each read once, digested and decoded. Where that happens is decoders.py's matter."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..encode import Failure, Item, failure_of
from ..encoders import FrozenEncoder
from ..media import LoadedFile, Media
from .batches import size_of
from .journal import NO_KEY, file_key, settled


@dataclass(eq=False)
class Part:
    """Some items of a task, decoded.

    places: of those that could be, with their `items`, prepared, their `lengths` and `sizes` in bytes. digests: of all,
    32 hex digits of the source, "" where it cannot be read; keys: what the journal knows the files by. failures: why
    the others could not be. read, decode: seconds.
    """

    places: list[int] = field(default_factory=list)
    items: list[Any] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
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
    places, items, failures = [], [], {}
    digests, keys = [""] * len(media), [NO_KEY] * len(media)
    reading, before, clock = 0.0, settled(), time.perf_counter
    began = clock()
    for place, source in enumerate(media):
        starts = clock()
        try:
            # One read: the digest is that of the very bytes that are decoded.
            loaded = source.loaded()
            digests[place] = loaded.digest()
            if isinstance(loaded, LoadedFile):
                keys[place] = file_key(loaded, loaded.seen, before)
            reading += clock() - starts
            items.append(encoder.decode(loaded))
            places.append(place)
        except Exception as error:
            failures[place] = failure_of(source, error)
    items = encoder.prepare(items)
    sizes = [size_of(item) for item in items]
    decoding = clock() - began - reading
    return Part(places, items, encoder.lengths(items), sizes, digests, keys, failures, reading, decoding)
