"""Which items share a forward pass: those of one length, from whatever segments are open.

A sample's bits must not depend on its neighbours. Measured on a CPU (MKL and oneDNN, one thread; T5, BERT, MPNet,
DeBERTa, ModernBERT, Llama, Qwen2, CLIP, AST, Wav2Vec2, a pretrained MobileNet; float32 and bfloat16): padding changes
bits; so does the number of items in a batch where a model has convolutions (MobileNet: 16 items) or is as wide as
published ones and computes in bfloat16 (BERT of 384: 682 against 33 items), and in others where the batch has fewer
than 16 rows of tokens; a place in the batch never does. So on a CPU only items of equal length share a batch, and it is
filled up with copies: to a fixed number of items, or to enough rows. On a GPU, whose kernels give no such guarantee,
similar lengths are padded to the longest of a batch.

Short texts share a batch until it has `BATCH_TOKENS`: a small model's pass costs more to enter than to run.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..encode import Item
from ..encoders import FrozenEncoder

REDUCED_BATCH = 16  # items, in bfloat16 and float16
LEAST_ROWS = 32  # twice the most rows with which another path was seen
GPU_LENGTHS = 16  # lengths that are padded to one
BATCH_TOKENS = {"cpu": 2048, "cuda": 32_768}
HELD_BYTES = 128 << 20  # decoded items that wait for others of their length


@dataclass(eq=False)
class Bucket:
    """Items that may share a batch, of which there are at most so many."""

    key: int
    most: int
    items: list[Item] = field(default_factory=list)
    bytes: int = 0


class Waiting:
    """Decoded items, by length, until there are enough for a batch."""

    def __init__(self, encoder: FrozenEncoder) -> None:
        self.encoder = encoder
        self.buckets: dict[int, Bucket] = {}
        self.of_length: dict[int, Bucket] = {}
        self.bytes = 0

    def add(self, items: Iterable[Item]) -> Iterator[list[Item]]:
        """Take items in; batches as they fill, and the largest where too much waits."""
        for item in items:
            bucket = self.of_length.get(item.length) or self._bucket(item.length)
            bucket.items.append(item)
            bucket.bytes += item.bytes
            self.bytes += item.bytes
            if len(bucket.items) >= bucket.most:
                yield self._take(bucket)
            elif self.bytes > HELD_BYTES:
                yield self._take(max(self.buckets.values(), key=lambda bucket: bucket.bytes))

    def of(self, segment: Any) -> Iterator[list[Item]]:
        """The batches that a segment's items are in, full or not."""
        for _, bucket in sorted(self.buckets.items()):
            if any(item.segment is segment for item in bucket.items):
                yield self._take(bucket)

    def _bucket(self, length: int) -> Bucket:
        key = length_key(length, self.encoder)
        bucket = self.buckets.setdefault(key, Bucket(key, most_items(key, self.encoder)))
        self.of_length[length] = bucket
        return bucket

    def _take(self, bucket: Bucket) -> list[Item]:
        self.bytes -= bucket.bytes
        taken, bucket.items, bucket.bytes = bucket.items, [], 0
        return taken


def most_items(length: int, encoder: FrozenEncoder) -> int:
    """Items of so many tokens that share a batch."""
    if fixed := fixed_size(encoder):
        return fixed
    if encoder.medium != "text" or encoder.spec.batch_size:
        return encoder.batch_size
    return max(encoder.batch_size, BATCH_TOKENS[encoder.device.type] // max(length, 1))


def fixed_size(encoder: FrozenEncoder) -> int | None:
    """Items every batch has, where that is fixed."""
    if encoder.device.type != "cpu":
        return None
    return encoder.cpu_batch or (None if encoder.spec.compute == "float32" else REDUCED_BATCH)


def length_key(length: int, encoder: FrozenEncoder) -> int:
    """Items of one key may share a batch."""
    exact = encoder.device.type == "cpu" or not encoder.mixes_lengths
    return length if exact else -(-length // GPU_LENGTHS) * GPU_LENGTHS


def size_of(decoded: Any) -> int:
    """Bytes a decoded item holds, about."""
    if isinstance(decoded, list):
        return sys.getsizeof(decoded)
    if isinstance(decoded, dict):
        return sum(map(size_of, decoded.values()))
    return int(getattr(decoded, "nbytes", 0)) or sys.getsizeof(decoded)


def filled(batch: Sequence[Item], encoder: FrozenEncoder) -> Sequence[Item]:
    """The items, then so many copies that on a CPU their number does not show."""
    if encoder.device.type != "cpu":
        return batch
    rows = -(-LEAST_ROWS // max(1, batch[0].length))
    wanted = fixed_size(encoder) or max(len(batch), rows)
    return batch if wanted == len(batch) else [*itertools.islice(itertools.cycle(batch), wanted)]
