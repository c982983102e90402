"""From an encoder's floats to what a segment stores, refusing what the stored type cannot hold.

float16 and float32 are casts. int8 keeps one float32 scale a token (scale = max|x| / 127) and is read back as float16:
half the disk for a relative error that is measured here and kept beside the items.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

FLOAT16_MAX = 65504.0
# Rows are checked in pieces that stay in the processor's cache.
PIECE = 1 << 18
SMALLEST_NORMAL = 2.0**-14  # of float16
DECODED = 64  # rows of int8 decoded at a time, for the same reason

Array = npt.NDArray[Any]
Stored = Literal["float16", "float32", "int8"]


@dataclass(frozen=True)
class Encoded:
    """What one segment stores: tokens (rows, D) and, for int8, scales (rows, 1) float32 with the error they cost."""

    tokens: Array
    scales: Array | None = None
    error: dict[str, float] | None = None


def read_dtype(stored: Stored) -> np.dtype[Any]:
    """The dtype a reader sees: int8 comes back as float16."""
    return np.dtype("float16" if stored == "int8" else stored)


def unfit_rows(tokens: Array, stored: Stored) -> npt.NDArray[np.int64]:
    """Rows that hold a NaN, an infinity or (unless stored as float32) a value beyond float16.

    Two integer maxima on the bits answer all three: NaN and infinity sort above every number, as signed integers
    when positive, as unsigned ones when negative.
    """
    size = tokens.dtype.itemsize
    limit = float(np.finfo(np.float16 if size == 2 else np.float32).max) if stored == "float32" else FLOAT16_MAX
    positive, negative = (int(np.array(x, tokens.dtype).view(f"u{size}")) for x in (limit, -limit))
    signed, unsigned = tokens.view(f"i{size}"), tokens.view(f"u{size}")
    bad, step = [], max(1, PIECE // tokens.shape[1])
    for start in range(0, len(tokens), step):
        piece = slice(start, start + step)
        if signed[piece].max() > positive or unsigned[piece].max() > negative:
            rows = (signed[piece].max(axis=1) > positive) | (unsigned[piece].max(axis=1) > negative)
            bad.append(start + np.flatnonzero(rows))
    return np.concatenate(bad) if bad else np.zeros(0, np.int64)


def encode(tokens: Array, stored: Stored) -> Encoded:
    """Cast or quantise checked tokens (rows, D)."""
    if stored != "int8":
        return Encoded(np.ascontiguousarray(tokens, dtype=stored))
    quantised, scales = np.empty(tokens.shape, np.int8), np.empty((len(tokens), 1), np.float32)
    errors, step = [], max(1, PIECE // tokens.shape[1])
    for start in range(0, len(tokens), step):
        exact = np.asarray(tokens[start : start + step], np.float32)
        largest = np.abs(exact).max(axis=1, keepdims=True)
        scale = scales[start : start + step] = np.where(largest > 0, largest / np.float32(127), np.float32(1))
        scaled = exact / scale
        quantised[start : start + step] = np.rint(scaled, out=scaled)
        errors.append(quantisation_error(exact, decode(quantised[start : start + step], scale)))
    return Encoded(quantised, scales, sum_errors(errors))


def decode(quantised: Array, scales: Array, out: Array | None = None) -> Array:
    """int8 tokens (rows, D) times scales (rows, 1) as float16 (rows, D)."""
    out = np.empty(quantised.shape, np.float16) if out is None else out
    if len(scales) and scales.min() >= SMALLEST_NORMAL:
        for start in range(0, len(quantised), DECODED):
            rows = slice(start, start + DECODED)
            _decode_normal(quantised[rows], scales[rows], out[rows])
    else:
        np.multiply(quantised, scales, out=out, casting="unsafe", dtype=np.float32)
    return out


def _decode_normal(quantised: Array, scales: Array, out: Array) -> None:
    """The same bits in half the time, where every product is 0 or a normal float16: numpy casts one by one."""
    products = np.multiply(quantised, scales, dtype=np.float32)
    # Exponents of float16, so that the upper bits are those of a float16; then round to even, and cut.
    np.multiply(products, np.float32(2.0**-112), out=products)
    bits = products.view(np.uint32)
    odd = bits >> np.uint32(13)
    odd &= np.uint32(1)
    bits += odd
    bits += np.uint32(0xFFF)
    bits >>= np.uint32(13)
    halves = out.view(np.uint16)
    np.copyto(halves, bits, casting="unsafe")
    halves |= (quantised.view(np.uint8) & np.uint8(0x80)).astype(np.uint16) << np.uint16(8)


def quantisation_error(exact: Array, approximate: Array) -> dict[str, float]:
    """Sums from which `merge_errors` makes a store's figures; a token's relative error is |x - y| / |x| (2-norms)."""
    approximate = approximate.astype(np.float32)
    norms = np.linalg.norm(exact, axis=1)
    other = np.linalg.norm(approximate, axis=1)
    some = norms > 0
    relative = np.linalg.norm(exact - approximate, axis=1)[some] / norms[some]
    cosine = (exact * approximate).sum(axis=1)[some] / (norms[some] * other[some])
    return {
        "tokens": float(some.sum()),
        "relative_largest": float(relative.max(initial=0.0)),
        "relative_sum": float(relative.sum(dtype=np.float64)),
        "cosine_sum": float(cosine.sum(dtype=np.float64)),
        "cosine_smallest": float(cosine.min(initial=1.0)),
    }


def sum_errors(errors: list[dict[str, float]]) -> dict[str, float]:
    """The sums over several pieces."""
    merged = {name: sum(error[name] for error in errors) for name in ("tokens", "relative_sum", "cosine_sum")}
    merged["relative_largest"] = max((error["relative_largest"] for error in errors), default=0.0)
    merged["cosine_smallest"] = min((error["cosine_smallest"] for error in errors), default=1.0)
    return merged


def merge_errors(errors: list[dict[str, float]]) -> dict[str, float]:
    """The store's int8 error over its non-zero tokens: largest and mean relative error, mean and smallest cosine."""
    merged = sum_errors(errors)
    tokens = merged["tokens"]
    return {
        "relative_error_largest": merged["relative_largest"],
        "relative_error_mean": merged["relative_sum"] / tokens if tokens else 0.0,
        "cosine_mean": merged["cosine_sum"] / tokens if tokens else 1.0,
        "cosine_smallest": merged["cosine_smallest"],
    }
