"""Padding taken off: (N, S, D) with zeros before or after each sample's frames becomes packed (T, D) and lengths (N,).

Published pickles pad at either end and rarely say which. Frames that are all zero tell: the end with more of them over
the whole file is the padded one, and only there are they dropped; zero frames inside a sample, or at its other end, are
data. Every sample keeps at least one frame. Blocks are copied straight into the packed array, once: float16 where all
of them are, else float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...cache.errors import UserError

BLOCK = 256  # samples looked at together
Side = Literal["front", "back"]
Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Stripped:
    """tokens (T, D), lengths (N,), which end was padded, and what had to be cleaned or cut."""

    tokens: Array
    lengths: NDArray[np.int64]
    side: Side
    cleaned: int = 0
    clipped: int = 0

    def said(self, modality: str) -> tuple[str, ...]:
        """Sentences for the dataset's notes."""
        told = []
        if self.cleaned:
            told.append(f"{modality}: {self.cleaned:,} values that were infinite or NaN are now 0.")
        if self.clipped:
            told.append(f"{modality}: {self.clipped:,} lengths outside of 1 to the array's frames were cut to fit.")
        return tuple(told)


def strip_padding(
    parts: Sequence[Array], lengths: Sequence[Sequence[int] | Array | None], cleaning: bool = True
) -> Stripped:
    """The real frames of one modality, whose arrays (one a split) are (N_i, S_i, D) or (N_i, D).

    lengths: real frames a sample, where the file has them; else they are found by the frames that are not zero.
    With `cleaning` infinities and NaN become 0 and are counted; a frame of nothing else is still a frame.
    """
    arrays = [frames_of(part) for part in parts]
    ends = [edges(array) for array in arrays]
    before = sum(int(first.sum()) for first, _ in ends)
    after = sum(int((array.shape[1] - last).sum()) for array, (_, last) in zip(arrays, ends, strict=True))
    side: Side = "front" if before > after else "back"
    found, clipped = [], 0
    for array, (first, last), given in zip(arrays, ends, lengths, strict=True):
        longest = array.shape[1]
        real = np.asarray(given, np.int64).reshape(-1) if given is not None else None
        if real is not None and len(real) != len(array):
            raise UserError(f"There are {len(array):,} samples and {len(real):,} lengths; they must be as many.")
        if real is not None:
            clipped += int(((real < 1) | (real > longest)).sum())
        else:
            real = longest - first if side == "front" else last
        found.append(np.clip(real, min(1, longest), longest))
    tokens = pack(arrays, found, side)
    return Stripped(tokens, np.concatenate(found), side, clean(tokens) if cleaning else 0, clipped)


def frames_of(array: Array) -> Array:
    """(N, S, D), where (N, D) is one frame a sample. Raises UserError for anything but numbers of that shape."""
    array = np.asarray(array)
    if array.dtype.kind not in "fiu" or array.ndim not in (2, 3):
        raise UserError(f"Expected numbers of shape (N, S, D) or (N, D), found {array.dtype} of shape {array.shape}.")
    return array[:, None, :] if array.ndim == 2 else array


def edges(array: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(N,) zero frames before the first that is not zero, and (N,) the place after the last.

    A sample of zeros alone counts whole for both ends, so that it decides nothing.
    """
    count, longest = array.shape[:2]
    first, last = np.zeros(count, np.int64), np.full(count, longest, np.int64)
    for start in range(0, count, BLOCK):
        real = (array[start : start + BLOCK] != 0).any(axis=2)
        some, rows = real.any(axis=1), slice(start, start + len(real))
        first[rows] = np.where(some, real.argmax(axis=1), longest) if longest else 0
        last[rows] = np.where(some, longest - real[:, ::-1].argmax(axis=1), 0) if longest else 0
    return first, last


def kept_dtype(*arrays: Array) -> type[np.floating[Any]]:
    """What arrays are packed as: float16 where all of them are, in either byte order, else float32."""
    return np.float16 if all(array.dtype.kind == "f" and array.dtype.itemsize == 2 for array in arrays) else np.float32


def pack(arrays: Sequence[Array], lengths: Sequence[NDArray[np.int64]], side: Side = "back") -> Array:
    """(T, D): the first (padded at the back) or last (at the front) `lengths` frames of each sample."""
    widths = {array.shape[2] for array in arrays}
    if len(widths) != 1:
        raise UserError(f"One modality has frames of {', '.join(map(str, sorted(widths)))} numbers; they must agree.")
    out = np.empty((int(sum(real.sum() for real in lengths)), widths.pop()), kept_dtype(*arrays))
    place = 0
    # Values beyond float32 become infinite and are counted or refused afterwards.
    with np.errstate(over="ignore"):
        for array, real in zip(arrays, lengths, strict=True):
            steps, longest = np.arange(array.shape[1]), array.shape[1]
            for start in range(0, len(array), BLOCK):
                block, here = array[start : start + BLOCK], real[start : start + BLOCK, None]
                kept = steps >= longest - here if side == "front" else steps < here
                count = int(kept.sum())
                out[place : place + count] = block[kept]
                place += count
    return out


def pack_list(samples: Sequence[Array | None]) -> tuple[Array, NDArray[np.int64]]:
    """Packed (T, D) and lengths (N,) of samples (S, D) or (D,); None, or no values at all, is a missing one."""
    arrays = [None if one is None or np.size(one) == 0 else np.atleast_2d(np.asarray(one)) for one in samples]
    there = [array for array in arrays if array is not None]
    if not there:
        raise UserError("No sample has any features.")
    odd = next((a for a in there if a.ndim != 2 or a.dtype.kind not in "fiu" or a.shape[1] != there[0].shape[1]), None)
    if odd is not None:
        raise UserError(
            f"A sample of {odd.dtype} and shape {odd.shape} stands beside one of shape {there[0].shape}; expected "
            "numbers of shape (S, D) or (D,), with one D for all."
        )
    lengths = np.array([0 if array is None else len(array) for array in arrays], np.int64)
    out, place = np.empty((int(lengths.sum()), there[0].shape[1]), kept_dtype(*there)), 0
    with np.errstate(over="ignore"):
        for array in there:
            out[place : place + len(array)] = array
            place += len(array)
    return out, lengths


def clean(tokens: Array) -> int:
    """Set infinities and NaN to 0 in place; how many there were."""
    count, step = 0, max(1, (1 << 20) // max(1, tokens.shape[1]))
    for start in range(0, len(tokens), step):
        bad = ~np.isfinite(tokens[start : start + step])
        if found := int(bad.sum()):
            tokens[start : start + step][bad] = 0
            count += found
    return count
