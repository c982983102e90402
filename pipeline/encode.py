"""Items through an encoder: for each its tokens, or the reason why there are none. One bad item costs only itself.

Whatever reading, decoding or encoding an item raises is that item's `Failure`. A batch that fails is tried again in
halves, down to one item, which then is at fault; running out of memory is met in the same way. Where an ordinary item
fails too, it is the encoder that is broken, and the run stops.

The bytes of good items do not depend on bad ones: a bad item's place in its batch is taken by a good one, so that the
model sees the shapes it would have seen. (Not so after running out of memory; and where padding follows the longest
text of a batch and that one cannot be read, its neighbours are padded less.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
import soundfile
import torch
from PIL import Image

from ..cache.errors import PgMError, RunFailed
from ..cache.segment import Stored
from ..cache.segment.encoding import FLOAT16_MAX, unfit_rows
from .decode import DecodeError, readable
from .encoders import FrozenEncoder
from .encoders.copying import Encoded
from .media import LoadedFile, Media


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an item has no tokens: one line with the item's name. `memory` where it was for lack of memory."""

    reason: str
    memory: bool = False


# What the encoder takes (an array, a text), or why there is none; then the item's (S, D) tokens, or why there are none.
Decoded = Any
Tokens = np.ndarray | Failure


class Item(NamedTuple):
    """A decoded item on its way through an encoder: what it was read from, its tokens before pooling and the bytes it
    holds; the segment it is for, and its place there."""

    source: Media
    decoded: Decoded
    length: int = 0
    bytes: int = 0
    segment: Any = None
    place: int = 0


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of a batch. tokens: (T, D) float32, the items' one after another; lengths: tokens of each item, 0 for
    those of `failures`, which are told by place in the batch."""

    tokens: np.ndarray
    lengths: Sequence[int]
    failures: Mapping[int, Failure]

    def each(self) -> list[Tokens]:
        """One (S, D) array or Failure an item."""
        parts = np.split(self.tokens, np.cumsum(self.lengths)[:-1])
        return [self.failures.get(place, part) for place, part in enumerate(parts)]


def encode_batch(encoder: FrozenEncoder, items: Sequence[Item], stored: Stored) -> list[Tokens]:
    """(S, D) float32 tokens of each item, or its Failure; Failures among the items stay.

    Raises RunFailed where every item fails and an ordinary one does too.
    """
    filled = with_stand_ins(items)
    if not filled:
        return [item.decoded for item in items]
    return _each_finished(encoder, items, start_batch(encoder, filled), stored)


def start_batch(encoder: FrozenEncoder, items: Sequence[Item]) -> Encoded | Failure:
    """The batch under way, or why it could not be started."""
    try:
        return encoder.start(encoder.collate([item.decoded for item in items]))
    except Exception as error:
        return failure_of(items[0].source, error)


def finish_batch(encoder: FrozenEncoder, items: Sequence[Item], started: Encoded | Failure, stored: Stored) -> Outcome:
    """What came of decoded items that were started as one batch. Raises RunFailed as `encode_batch` does."""
    if isinstance(started, Encoded):
        try:
            tokens = started.together()
        except Exception as error:
            started = failure_of(items[0].source, error)
        else:
            # All together: looking at each costs as much as a small model.
            if not len(tokens) or not unfit_rows(tokens, stored).size:
                return Outcome(tokens, started.lengths, {})
    each = _each_finished(encoder, items, started, stored)
    failures = {place: tokens for place, tokens in enumerate(each) if isinstance(tokens, Failure)}
    good = [tokens for tokens in each if not isinstance(tokens, Failure)]
    lengths = [0 if isinstance(tokens, Failure) else len(tokens) for tokens in each]
    return Outcome(np.concatenate(good or [np.empty((0, encoder.dim), np.float32)]), lengths, failures)


def _each_finished(
    encoder: FrozenEncoder, items: Sequence[Item], started: Encoded | Failure, stored: Stored
) -> list[Tokens]:
    encoded = _finish_or_halve(encoder, with_stand_ins(items), started)
    both = list(zip(items, encoded, strict=True))
    outcomes = [item.decoded if isinstance(item.decoded, Failure) else out for item, out in both]
    new = [
        out for item, out in zip(items, outcomes, strict=True) if isinstance(out, Failure) and out is not item.decoded
    ]
    if new and len(new) == sum(not isinstance(item.decoded, Failure) for item in items):
        _check_encoder(encoder, new[0])
    elif new and not any(failure.memory for failure in new):
        # Once more with stand-ins for them: the others' bytes are then those of a whole batch.
        known = [
            item._replace(decoded=out) if isinstance(out, Failure) else item
            for item, out in zip(items, outcomes, strict=True)
        ]
        return encode_batch(encoder, known, stored)
    return [_checked(encoder, item.source, out, stored) for item, out in zip(items, outcomes, strict=True)]


def with_stand_ins(items: Sequence[Item]) -> list[Item]:
    """The items, each Failure replaced by the last good one, which is the longest where batches are sorted by length;
    nothing where none is good."""
    good = next((item for item in reversed(items) if not isinstance(item.decoded, Failure)), None)
    return [good if isinstance(item.decoded, Failure) else item for item in items] if good else []


def _finish_or_halve(encoder: FrozenEncoder, items: Sequence[Item], started: Encoded | Failure) -> list[Tokens]:
    failure = started if isinstance(started, Failure) else None
    if isinstance(started, Encoded):
        try:
            return list(started.arrays())
        except Exception as error:
            failure = failure_of(items[0].source, error)
    assert failure is not None
    # Nothing holds the failed batch's tensors any more.
    if failure.memory and encoder.device.type == "cuda":
        torch.cuda.empty_cache()
    if len(items) == 1:
        return [failure]
    half = len(items) // 2
    return [
        tokens
        for part in (items[:half], items[half:])
        for tokens in _finish_or_halve(encoder, part, start_batch(encoder, part))
    ]


def failure_of(source: Media, error: Exception) -> Failure:
    """The item's failure. Raises what is no item's fault: a request that cannot be met, a run that cannot go on."""
    if isinstance(error, PgMError) and not isinstance(error, DecodeError):
        raise error
    # PyTorch has no class of its own for what its CPU allocator cannot give.
    memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
    return Failure(f"{source.name}: {readable(error)}", memory)


def _checked(encoder: FrozenEncoder, source: Media, tokens: Tokens, stored: Stored) -> Tokens:
    if isinstance(tokens, Failure) or not len(tokens) or not (unfit := unfit_rows(tokens, stored)).size:
        return tokens
    row = tokens[unfit[0]]
    if np.isfinite(row).all():
        found, advice = f"a value of {np.abs(row).max():g}", f"{stored} holds at most {FLOAT16_MAX:g}: --store float32"
    else:
        found = "NaN" if np.isnan(row).any() else "infinity"
        wider = encoder.compute != torch.float32
        advice = f"{stored} holds finite values" + (", and --dtype float32 may give some" if wider else "")
    return Failure(f"{source.name}: {encoder.name} gave {found} in token {unfit[0]}; {advice}")


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


def _ordinary(medium: str | None) -> LoadedFile:
    """An item that every encoder of its modality must manage: a word, a grey picture or a second of a tone."""
    buffer = BytesIO(b"word")
    if medium == "vision":
        Image.new("RGB", (64, 64), "gray").save(buffer, "PNG")
    if medium == "audio":
        soundfile.write(buffer, 0.1 * np.sin(np.arange(16_000) / 10), 16_000, format="WAV")
    return LoadedFile("an ordinary item", data=buffer.getvalue())
