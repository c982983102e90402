"""Stores for benchmarks: of given rows in samples of TOKENS, or of any size from one block of random numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pgm.cache import (
    Draft,
    Features,
    Identity,
    IndexBuilder,
    Items,
    Segment,
    Storage,
    Store,
    ids_digest,
    open_features,
    storage_at,
    write_features,
    write_segment,
)

TOKENS, DIM = 50, 768
SEGMENT_TOKENS = 1 << 15
SEGMENT_BYTES = 64 << 20


def random_store(
    dataset: Storage, modality: str, ids: Sequence[str], lengths: NDArray[np.int64], dim: int, encoder: str = "bench"
) -> tuple[str, int]:
    """Write (N,) samples of `lengths` tokens of float16; returns the store's folder and version. One block repeats."""
    block = np.random.default_rng(0).normal(size=(2 * SEGMENT_TOKENS, dim)).astype(np.float16)
    identity = Identity(modality, encoder, {})
    store = Store.create(dataset, identity, dim, "float16")
    builder, bytes = IndexBuilder(len(ids)), 0
    cuts = np.searchsorted(np.cumsum(lengths), np.arange(SEGMENT_TOKENS, lengths.sum(), SEGMENT_TOKENS))
    parts = [rows for rows in np.split(np.arange(len(ids)), np.unique(cuts)) if len(rows)]
    for number, rows in enumerate(parts):
        names = [ids[row] for row in rows]
        items = Items(names, [f"{row:032x}" for row in rows], [""] * len(rows))
        tokens = block[number % SEGMENT_TOKENS :][: lengths[rows].sum()]
        segment = write_segment(store.storage, identity.whole_digest, items, lengths[rows], tokens)
        builder.place(rows, segment)
        bytes += segment.bytes
    version = store.commit(lambda: Draft(builder, ids_digest(ids), "", len(parts), bytes))
    assert version is not None
    return identity.folder, version.number


def store_of(root: Path, name: str, tokens: NDArray[Any], **options: Any) -> Features:
    """A store of these rows (N * TOKENS, D), through `write_features`, opened."""
    ids = [f"{row:08d}" for row in range(len(tokens) // TOKENS)]
    identity = Identity("vision", name, {})
    lengths = np.full(len(ids), TOKENS)
    write_features(storage_at(root), identity, ids, ids_digest(ids), lengths, tokens, **options)
    return open_features(root / identity.folder)


def write_segments(root: Path, tokens: NDArray[Any], **options: Any) -> list[Segment]:
    """The segments alone of these rows (N * TOKENS, D), as extraction writes them, one after another."""
    identity = Identity("vision", "bench", {})
    store = Store.create(storage_at(root), identity, tokens.shape[1], "float16")
    rows = SEGMENT_BYTES // (TOKENS * tokens.shape[1] * 2) * TOKENS
    return [
        write_segment(store.storage, identity.whole_digest, *named(part, number), part, **options)
        for number, part in enumerate(tokens[start : start + rows] for start in range(0, len(tokens), rows))
    ]


def named(tokens: NDArray[Any], segment: int) -> tuple[Items, NDArray[np.int64]]:
    """Ids, sources and lengths of a segment's samples."""
    count = len(tokens) // TOKENS
    ids = [f"{segment:04d}-{row:06d}" for row in range(count)]
    return Items(ids, [f"{segment:016x}{row:016x}" for row in range(count)], [""] * count), np.full(count, TOKENS)
