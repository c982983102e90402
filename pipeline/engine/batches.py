"""Which items share a forward pass.

A sample's bits must not depend on its neighbours. Measured on a CPU (MKL and oneDNN, one thread; T5, BERT, MPNet,
DeBERTa, CLIP, AST, Wav2Vec2, a pretrained MobileNet; float32 and bfloat16): padding changes bits; so does the number of
items in a batch where a model has convolutions (MobileNet: 16 items), and in others where the batch has fewer than 16
rows of tokens; a place in the batch never does. So on a CPU only items of equal length share a batch, and it is filled
up with copies: to `cpu_batch` items, or to enough rows. On a GPU, whose kernels give no such guarantee, similar lengths
are padded to the longest of a batch.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...cache.segment import Stored
from ..encode import Failure, encode_batch
from ..encoders import FrozenEncoder

LEAST_ROWS = 32  # twice the most rows with which another path was seen
GPU_LENGTHS = 16  # lengths that are padded to one
HELD_BYTES = 256 << 20  # decoded items that wait for others of their length


@dataclass(frozen=True, eq=False)
class Item:
    """A decoded item: its place in the task, its name for people, and its tokens before pooling."""

    place: int
    name: str
    decoded: Any
    length: int


def equal_lengths(items: Iterable[Item], encoder: FrozenEncoder) -> Iterator[list[Item]]:
    """Batches of items of one length, as they fill; what is left over at the end, and what waits too long."""
    most = fixed_size(encoder) or encoder.batch_size
    waiting: dict[int, list[Item]] = {}
    held = 0
    for item in items:
        key = length_key(item, encoder)
        waiting.setdefault(key, []).append(item)
        held += size_of(item.decoded)
        full = len(waiting[key]) == most
        if full or held > HELD_BYTES:
            ready = waiting.pop(key if full else max(waiting, key=lambda other: sizes_of(waiting[other])))
            held -= sizes_of(ready)
            yield ready
    yield from (waiting[key] for key in sorted(waiting))


def fixed_size(encoder: FrozenEncoder) -> int | None:
    """Items every batch has, where that is fixed."""
    return encoder.cpu_batch if encoder.device.type == "cpu" else None


def length_key(item: Item, encoder: FrozenEncoder) -> int:
    """Items of one key may share a batch."""
    exact = encoder.device.type == "cpu" or not encoder.mixes_lengths
    return item.length if exact else -(-item.length // GPU_LENGTHS) * GPU_LENGTHS


def sizes_of(items: Sequence[Item]) -> int:
    """Bytes of several decoded items."""
    return sum(size_of(item.decoded) for item in items)


def size_of(decoded: Any) -> int:
    """Bytes a decoded item holds, about."""
    return int(getattr(decoded, "nbytes", 0)) or sys.getsizeof(decoded)


def encode_equal(
    batch: Sequence[Item], encoder: FrozenEncoder, stored: Stored
) -> Iterator[tuple[int, np.ndarray | Failure]]:
    """Each item's place, and its (S, D) float32 features or why it has none.

    They are computed beside so many copies that the number of items does not show.
    """
    named = [(item.name, item.decoded) for item in batch]
    if encoder.device.type == "cpu":
        rows = -(-LEAST_ROWS // max(1, batch[0].length))
        wanted = fixed_size(encoder) or max(len(named), rows)
        named = (named * -(-wanted // len(named)))[:wanted]
    # The copies come last and their features are dropped.
    yield from zip([item.place for item in batch], encode_batch(encoder, named, stored), strict=False)
