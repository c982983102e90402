"""Which items share a forward pass: those of one length, from whatever segments are open.

A sample's bits must not depend on its neighbours. Measured on a CPU (MKL and oneDNN, one thread; T5, BERT, MPNet,
DeBERTa, CLIP, AST, Wav2Vec2, a pretrained MobileNet; float32 and bfloat16): padding changes bits; so does the number of
items in a batch where a model has convolutions (MobileNet: 16 items), and in others where the batch has fewer than 16
rows of tokens; a place in the batch never does. So on a CPU only items of equal length share a batch, and it is filled
up with copies: to `cpu_batch` items, or to enough rows. On a GPU, whose kernels give no such guarantee, similar lengths
are padded to the longest of a batch.

Short texts share a batch until it has `BATCH_TOKENS`: a small model's pass costs more to enter than to run.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..encoders import FrozenEncoder

LEAST_ROWS = 32  # twice the most rows with which another path was seen
GPU_LENGTHS = 16  # lengths that are padded to one
BATCH_TOKENS = {"cpu": 2048, "cuda": 32_768}
HELD_BYTES = 128 << 20  # decoded items that wait for others of their length


@dataclass(frozen=True, eq=False)
class Item:
    """A decoded item: the segment it is for and its place there, its name for people, its tokens before pooling."""

    segment: Any
    place: int
    name: str
    decoded: Any
    length: int


class Waiting:
    """Decoded items, by length, until there are enough for a batch."""

    def __init__(self, encoder: FrozenEncoder) -> None:
        self.encoder = encoder
        self.items: dict[int, list[Item]] = {}
        self.bytes = 0

    def add(self, items: Iterable[Item]) -> Iterator[list[Item]]:
        """Take items in; batches as they fill, and the largest where too much waits."""
        for item in items:
            key = length_key(item.length, self.encoder)
            waiting = self.items.setdefault(key, [])
            waiting.append(item)
            self.bytes += size_of(item.decoded)
            if len(waiting) >= most_items(key, self.encoder):
                yield self._take(key)
            elif self.bytes > HELD_BYTES:
                yield self._take(max(self.items, key=self._size))

    def of(self, segment: Any) -> Iterator[list[Item]]:
        """The batches that a segment's items are in, full or not."""
        for key in sorted(key for key, items in self.items.items() if any(item.segment is segment for item in items)):
            yield self._take(key)

    def _size(self, key: int) -> int:
        return sizes_of(item.decoded for item in self.items[key])

    def _take(self, key: int) -> list[Item]:
        self.bytes -= self._size(key)
        return self.items.pop(key)


def most_items(length: int, encoder: FrozenEncoder) -> int:
    """Items of so many tokens that share a batch."""
    if fixed := fixed_size(encoder):
        return fixed
    if encoder.medium != "text" or encoder.spec.batch_size:
        return encoder.batch_size
    return max(encoder.batch_size, BATCH_TOKENS[encoder.device.type] // max(length, 1))


def fixed_size(encoder: FrozenEncoder) -> int | None:
    """Items every batch has, where that is fixed."""
    return encoder.cpu_batch if encoder.device.type == "cpu" else None


def length_key(length: int, encoder: FrozenEncoder) -> int:
    """Items of one key may share a batch."""
    exact = encoder.device.type == "cpu" or not encoder.mixes_lengths
    return length if exact else -(-length // GPU_LENGTHS) * GPU_LENGTHS


def sizes_of(decoded: Iterable[Any]) -> int:
    """Bytes of several decoded items."""
    return sum(map(size_of, decoded))


def size_of(decoded: Any) -> int:
    """Bytes a decoded item holds, about."""
    if isinstance(decoded, dict):
        return sizes_of(decoded.values())
    return int(getattr(decoded, "nbytes", 0)) or sys.getsizeof(decoded)


def filled(batch: Sequence[Item], encoder: FrozenEncoder) -> list[tuple[str, Any]]:
    """(name, decoded) of each item, then so many copies that on a CPU the number of items does not show."""
    named = [(item.name, item.decoded) for item in batch]
    if encoder.device.type != "cpu":
        return named
    rows = -(-LEAST_ROWS // max(1, batch[0].length))
    wanted = fixed_size(encoder) or max(len(named), rows)
    return (named * -(-wanted // len(named)))[:wanted]
