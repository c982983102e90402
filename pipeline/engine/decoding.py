"""From sources to decoded items: each read once, digested and decoded. Where that happens is decoders.py's matter."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..encode import Failure, Item, failure_of
from ..encoders import FrozenEncoder
from ..media import Media
from .batches import size_of


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
