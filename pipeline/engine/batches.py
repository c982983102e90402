"""Which items share a forward pass, and what is done when a pass fails.

A sample's bits must not depend on its neighbours. Measured on CPUs (MKL, one thread; T5, BERT, MPNet, DeBERTa, CLIP,
AST, Wav2Vec2; float32 and bfloat16): padding changes bits; the number of items in a batch does not, unless the batch
has fewer than 16 rows of tokens, where the matrix product takes another path; a place in the batch never does. So on a
CPU only items of equal length share a batch, and one of few tokens is filled up with copies. On a GPU, whose kernels
give no such guarantee, similar lengths are padded to the longest of a batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from ...cache.errors import PgMError
from ...cache.segment import Stored
from ...cache.segment.encoding import unfit_rows
from ..decode import DecodeError
from ..encoders import FrozenEncoder
from ..encoders.base import readable

LEAST_ROWS = 32  # twice the most rows with which another path was seen
GPU_LENGTHS = 16  # lengths that are padded to one
HELD_BYTES = 256 << 20  # decoded items that wait for others of their length


@dataclass(frozen=True, eq=False)
class Item:
    """A decoded item: its place in the task, and its tokens before pooling."""

    place: int
    decoded: Any
    length: int


def equal_lengths(items: Iterable[Item], encoder: FrozenEncoder) -> Iterator[list[Item]]:
    """Batches of items of one length, as they fill; what is left over at the end, and what waits too long."""
    waiting: dict[int, list[Item]] = {}
    held = 0
    for item in items:
        key = length_key(item, encoder)
        waiting.setdefault(key, []).append(item)
        held += size_of(item.decoded)
        full = len(waiting[key]) == encoder.batch_size
        if full or held > HELD_BYTES:
            ready = waiting.pop(key if full else max(waiting, key=lambda other: sizes_of(waiting[other])))
            held -= sizes_of(ready)
            yield ready
    yield from (waiting[key] for key in sorted(waiting))


def length_key(item: Item, encoder: FrozenEncoder) -> int:
    """Items of one key may share a batch."""
    exact = encoder.device.type == "cpu" or not encoder.mixes_lengths
    return item.length if exact else -(-item.length // GPU_LENGTHS) * GPU_LENGTHS


def sizes_of(items: Sequence[Item]) -> int:
    """Bytes of several decoded items."""
    return sum(size_of(item.decoded) for item in items)


def size_of(decoded: Any) -> int:
    """Bytes a decoded item holds, about."""
    if isinstance(decoded, np.ndarray):
        return int(decoded.nbytes)
    if isinstance(decoded, Image.Image):
        return decoded.width * decoded.height * len(decoded.getbands())
    if isinstance(decoded, list):
        return sum(map(size_of, decoded))
    return len(decoded) if isinstance(decoded, str | bytes) else 0


def encode_batch(
    batch: Sequence[Item], encoder: FrozenEncoder, stored: Stored
) -> Iterator[tuple[int, np.ndarray | DecodeError]]:
    """Each item's place, and its (S, D) float32 features or why it has none.

    A batch that fails, for want of memory or because of one item, is tried again in halves, down to the item.
    """
    try:
        features = forward(batch, encoder)
    except PgMError as error:
        if not isinstance(error, DecodeError):
            raise
        features, failure = None, error
    except Exception as error:
        features, failure = None, readable(error)
    if features is not None:
        yield from ((item.place, fitting(values, stored)) for item, values in zip(batch, features, strict=True))
    elif len(batch) == 1:
        yield batch[0].place, failure
    else:
        if encoder.device.type == "cuda":
            torch.cuda.empty_cache()
        half = len(batch) // 2
        yield from encode_batch(batch[:half], encoder, stored)
        yield from encode_batch(batch[half:], encoder, stored)


def forward(batch: Sequence[Item], encoder: FrozenEncoder) -> list[np.ndarray]:
    """The features of the batch's items, computed on enough rows of tokens that their number does not show."""
    decoded = [item.decoded for item in batch]
    if encoder.device.type == "cpu":
        rows = max(1, batch[0].length)
        wanted = -(-LEAST_ROWS // rows)
        decoded = (decoded * -(-wanted // len(decoded)))[: max(wanted, len(decoded))]
    return encoder.encode(encoder.collate(decoded))[: len(batch)]


def fitting(values: np.ndarray, stored: Stored) -> np.ndarray | DecodeError:
    """The features, or why a store of this type cannot keep them."""
    if not len(unfit_rows(values, stored)):
        return values
    if not np.isfinite(values).all():
        return DecodeError("the encoder gave NaN or an infinity")
    return DecodeError(f"the encoder gave {np.abs(values).max():g}; {stored} holds up to 65504: use --store float32")
