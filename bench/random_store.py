"""A store of random features of any size, written segment by segment: what benchmarks read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pgm.cache import Draft, Identity, IndexBuilder, Items, Storage, Store, ids_digest, write_segment

SEGMENT_TOKENS = 1 << 15


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
    version = store.commit(lambda latest: Draft(builder, ids_digest(ids), "", len(parts), bytes))
    assert version is not None
    return identity.folder, version.number
