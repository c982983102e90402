"""Small real stores, and the list of arrays each must equal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pgm.cache import Features, FeatureWriter, Identity, Items, Layout, write_shard

IDENTITY = Identity("text", "google-t5/t5-base", {"layer": -1, "pooling": {"kind": "mean", "tokens": 16}})


@dataclass
class Made:
    """A finished store and its oracle: one (S, D) array a sample."""

    path: Path
    features: Features
    oracle: list[np.ndarray]
    layout: Layout
    ids: list[str]


def make_store(
    path: Path,
    lengths: Any,
    dim: int = 5,
    shard_tokens: int = 16,
    seed: int = 0,
    failures: Mapping[int, str] | None = None,
    finish: bool = True,
    identity: Identity = IDENTITY,
    **options: Any,
) -> Made:
    """Write a store shard by shard, last shard first."""
    layout = Layout(np.asarray(lengths, np.int64), dim, shard_tokens, **options)
    stored = np.float32 if layout.stored == "float32" else np.float16
    tokens = np.random.default_rng(seed).normal(size=(layout.total, dim)).astype(stored)
    for row in failures or {}:
        tokens[layout.offsets[row] : layout.offsets[row + 1]] = 0
    ids = [f"clip/{row}" for row in range(layout.samples)]
    missing = dict.fromkeys(np.flatnonzero(layout.lengths == 0).tolist(), "no text")
    with FeatureWriter(path, identity, layout, ids) as writer:
        for shard in reversed(writer.pending()):
            start, stop = layout.bounds(shard)
            mine = {row: why for row, why in (failures or {}).items() if row in layout.samples_of(shard)}
            write_shard(path, shard, tokens[start:stop], mine)
        if finish:
            source = [f"{row // 2:016x}" for row in range(layout.samples)]
            features = writer.finalize(Items.of(layout, ids, failures, missing, source))
    oracle = [tokens[a:b] for a, b in zip(layout.offsets[:-1], layout.offsets[1:], strict=True)]
    return Made(path, features if finish else None, oracle, layout, ids)


@pytest.fixture
def store() -> Callable[..., Made]:
    """`make_store` for tests, which cannot import from one another."""
    return make_store


def tree_bytes(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by relative name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def tree() -> Callable[[Path], dict[str, bytes]]:
    """`tree_bytes` for tests."""
    return tree_bytes
