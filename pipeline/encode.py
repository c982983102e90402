"""Items through an encoder: for each its tokens, or the reason why there are none. One bad item costs only itself.

Whatever reading, decoding or encoding an item raises is that item's `Failure`. A batch that fails is tried again in
halves, down to one item, which then is at fault; running out of memory is met in the same way. Where an ordinary item
fails too, it is the encoder that is broken, and the run stops.

The bytes of good items do not depend on bad ones: a bad item's place in its batch is taken by a good one, so that the
model sees the shapes it would have seen. (Not so after running out of memory; and where padding follows the longest
text of a batch and that one cannot be read, its neighbours are padded less.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import soundfile
import torch
from PIL import Image

from ..cache.errors import PgMError, RunFailed
from ..cache.segment import Stored
from ..cache.segment.encoding import FLOAT16_MAX, unfit_rows
from .decode import DecodeError, readable
from .encoders import FrozenEncoder
from .encoders.base import Batch
from .media import FileMedia


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an item has no tokens: one line with the item's name. `memory` where it was for lack of memory."""

    reason: str
    memory: bool = False


# What the encoder takes (an array, a text), or why there is none; then the item's (S, D) tokens, or why there are none.
Decoded = Any
Tokens = np.ndarray | Failure


def encode_batch(
    encoder: FrozenEncoder, items: Sequence[tuple[str, Decoded]], stored: Stored, batch: Batch | None = None
) -> list[Tokens]:
    """(S, D) float32 tokens of each (name, decoded item), or its Failure; Failures among the items stay.

    batch: the items collated already, each Failure replaced as `with_stand_ins` does.
    Raises RunFailed where every item fails and an ordinary one does too.
    """
    filled = with_stand_ins(items)
    if not filled:
        return [item for _, item in items]
    encoded = _encode_or_halve(encoder, filled, batch)
    outcomes = [item if isinstance(item, Failure) else out for (_, item), out in zip(items, encoded, strict=True)]
    new = [out for (_, item), out in zip(items, outcomes, strict=True) if isinstance(out, Failure) and out is not item]
    if new and len(new) == sum(not isinstance(item, Failure) for _, item in items):
        _check_encoder(encoder, new[0])
    elif new and not any(failure.memory for failure in new):
        # Once more with stand-ins for them: the others' bytes are then those of a whole batch.
        known = [
            (name, out if isinstance(out, Failure) else item) for (name, item), out in zip(items, outcomes, strict=True)
        ]
        return encode_batch(encoder, known, stored)
    return [_storable(encoder, name, out, stored) for (name, _), out in zip(items, outcomes, strict=True)]


def with_stand_ins(items: Sequence[tuple[str, Decoded]]) -> list[tuple[str, Decoded]]:
    """The items, each Failure replaced by the last good one, which is the longest where batches are sorted by length;
    nothing where none is good."""
    good = next((item for item in reversed(items) if not isinstance(item[1], Failure)), None)
    return [good if isinstance(item[1], Failure) else item for item in items] if good else []


def _encode_or_halve(
    encoder: FrozenEncoder, items: Sequence[tuple[str, Decoded]], batch: Batch | None = None
) -> list[Tokens]:
    try:
        return list(encoder.encode(batch or _collate(encoder, items)))
    except Exception as error:
        failure = failure_of(items[0][0], error)
    # Not in the clause above: until it is left, the error holds the failed batch's tensors.
    if failure.memory and encoder.device.type == "cuda":
        torch.cuda.empty_cache()
    if len(items) == 1:
        return [failure]
    half = len(items) // 2
    return _encode_or_halve(encoder, items[:half]) + _encode_or_halve(encoder, items[half:])


def _collate(encoder: FrozenEncoder, items: Sequence[tuple[str, Decoded]]) -> Batch:
    return encoder.collate([item for _, item in items])


def failure_of(name: str, error: Exception) -> Failure:
    """The item's failure. Raises what is no item's fault: a request that cannot be met, a run that cannot go on."""
    if isinstance(error, PgMError) and not isinstance(error, DecodeError):
        raise error
    # PyTorch has no class of its own for what its CPU allocator cannot give.
    memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
    return Failure(f"{name}: {readable(error)}", memory)


def _storable(encoder: FrozenEncoder, name: str, tokens: Tokens, stored: Stored) -> Tokens:
    if isinstance(tokens, Failure) or not len(tokens) or not (unfit := unfit_rows(tokens, stored)).size:
        return tokens
    row = tokens[unfit[0]]
    if np.isfinite(row).all():
        found, advice = f"a value of {np.abs(row).max():g}", f"{stored} holds at most {FLOAT16_MAX:g}: --store float32"
    else:
        found = "NaN" if np.isnan(row).any() else "infinity"
        wider = encoder.compute != torch.float32
        advice = f"{stored} holds finite values" + (", and --dtype float32 may give some" if wider else "")
    return Failure(f"{name}: {encoder.name} gave {found} in token {unfit[0]}; {advice}")


def _check_encoder(encoder: FrozenEncoder, failure: Failure) -> None:
    """Raises RunFailed where the encoder fails on an item that is nobody's fault."""
    try:
        encoder.encode(encoder.collate([encoder.decode(_ordinary(encoder.medium))]))
    except Exception as error:
        raise RunFailed(
            f"{encoder.name} fails on every item, on an ordinary one of our own too ({readable(error)}); first on "
            f"{failure.reason}. Nothing is wrong with the items, and none is recorded as failed. "
            + (
                "Memory ran out with a single item: free some, or choose a smaller encoder or --device cpu."
                if failure.memory
                else "Finished segments are kept: when the encoder or its device works, the same command continues."
            )
        ) from error


@dataclass(frozen=True, slots=True)
class _Ordinary(FileMedia):
    """An item that every encoder of its modality must manage."""

    data: bytes = b""

    def read(self) -> bytes:
        return self.data


def _ordinary(medium: str | None) -> _Ordinary:
    """A word, a grey picture or a second of a tone."""
    buffer = BytesIO(b"word")
    if medium == "vision":
        Image.new("RGB", (64, 64), "gray").save(buffer, "PNG")
    if medium == "audio":
        soundfile.write(buffer, 0.1 * np.sin(np.arange(16_000) / 10), 16_000, format="WAV")
    return _Ordinary("an ordinary item", data=buffer.getvalue())
