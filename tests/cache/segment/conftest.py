"""Small stores of every format and encoding beside the arrays they must equal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from pgm.cache.segment import Items, Segment, write_segment
from pgm.cache.segment.encoding import decode, encode
from pgm.cache.storage import Storage, storage_at
from pgm.cache.store import Draft, Features, Identity, IndexBuilder, Store, open_features

KINDS = {
    "zarr": {},
    "hdf5": {"format": "hdf5"},
    "zstd": {"codec": "zstd"},
    "lz4": {"codec": "lz4"},
}


@dataclass
class Made:
    """A store of several segments and what its samples must be: (S, D) each."""

    storage: Storage
    features: Features
    samples: list[np.ndarray]
    segments: list[Segment]


def as_read(tokens: np.ndarray, stored: str) -> np.ndarray:
    """What a reader gets of these tokens."""
    encoded = encode(tokens, stored)
    return encoded.tokens if encoded.scales is None else decode(encoded.tokens, encoded.scales)


def make(
    place: object,
    lengths: list[list[int]],
    dim: int = 8,
    stored: str = "float16",
    kinds: tuple[str, ...] = ("zarr",),
    failed: tuple[int, ...] = (),
) -> Made:
    """lengths: one list a segment; the segments take turns with `kinds`."""
    store = Store.create(storage_at(place), Identity("text", "t5", {"stored": stored}), dim, stored)
    rng, samples, segments, at = np.random.default_rng(0), [], [], 0
    rows = IndexBuilder(sum(map(len, lengths)))
    for number, each in enumerate(lengths):
        numbers = range(at, at + len(each))
        tokens = rng.normal(size=(sum(each), dim)).astype(np.float32)
        errors = ["broken" if row in failed else "" for row in numbers]
        items = Items([f"s{row}" for row in numbers], [f"{row:032x}" for row in numbers], errors)
        kind = KINDS[kinds[number % len(kinds)]]
        segment = write_segment(
            store.storage, store.identity.whole_digest, items, np.array(each, np.int64), tokens, stored, **kind
        )
        rows.place(np.array(numbers), segment)
        ends = np.cumsum(each)
        read = as_read(tokens, stored) if len(tokens) else np.empty((0, dim), np.float16)
        samples += [read[end - length : end] for end, length in zip(ends, each, strict=True)]
        segments.append(segment)
        at += len(each)
    store.commit(lambda: Draft(rows, "ids"))
    return Made(store.storage, open_features(store.storage), samples, segments)


@pytest.fixture
def made() -> Callable[..., Made]:
    """`make` for tests, which cannot import from one another."""
    return make
