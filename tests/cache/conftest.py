"""Small real stores, and the list of arrays each must equal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pgm.cache import (
    CachedDataset,
    DatasetCard,
    Draft,
    Features,
    Identity,
    IndexBuilder,
    Items,
    Storage,
    Store,
    ids_digest,
    open_dataset,
    open_features,
    publish,
    storage_at,
    write_segment,
)

IDENTITY = Identity("text", "google-t5/t5-base", {"layer": -1, "pooling": {"kind": "mean", "tokens": 16}})
CARD = DatasetCard("toy", "classification", ("cat", "dog"), ("accuracy",))


@dataclass
class Made:
    """A store and its oracle: one (S, D) array a sample; empty for one that failed or is missing."""

    dataset: Storage
    store: Store
    features: Features
    oracle: list[np.ndarray]
    ids: list[str]

    @property
    def path(self) -> Path:
        return Path(self.store.storage.url)

    def segment_files(self, number: int) -> list[Path]:
        """The files of the segment that the version numbers so."""
        place = self.path / "segments" / self.features.version.segments[number]
        return [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.is_file())


def make_store(
    place: Storage | Path,
    lengths: Sequence[int],
    dim: int = 5,
    per_segment: int = 4,
    seed: int = 0,
    failures: Mapping[int, str] | None = None,
    identity: Identity = IDENTITY,
    stored: Any = "float16",
    ids: Sequence[str] | None = None,
    sources: Sequence[str] | None = None,
    version: bool = True,
    **options: Any,
) -> Made:
    """A store of a dataset, `per_segment` samples a segment, committed unless `version` is False.

    A sample of length 0 is missing; one of `failures` has failed. Without `sources` two neighbours have the same one.
    """
    dataset, failures = storage_at(place), dict(failures or {})
    counts = np.array([0 if row in failures else length for row, length in enumerate(lengths)], np.int64)
    exact = np.float32 if stored == "float32" else np.float16
    rng = np.random.default_rng(seed)
    oracle = [rng.normal(size=(count, dim)).astype(exact) for count in counts.tolist()]
    made_from = list(sources) if sources is not None else [f"{row // 2 + 1:032x}" for row in range(len(counts))]
    names = list(ids) if ids is not None else [f"clip/{row}" for row in range(len(counts))]
    store = Store.create(dataset, identity, dim, stored)
    rows = IndexBuilder(len(names))
    there = [row for row in range(len(names)) if counts[row] or row in failures]
    rows.missing(np.array([row for row in range(len(names)) if row not in there], np.int64))
    new = size = 0
    for first in range(0, len(there), per_segment):
        part = there[first : first + per_segment]
        items = Items([names[r] for r in part], [made_from[r] for r in part], [failures.get(r, "") for r in part])
        tokens = np.concatenate([oracle[r] for r in part])
        segment = write_segment(store.storage, identity.whole_digest, items, counts[part], tokens, stored, **options)
        rows.place(np.array(part), segment)
        new, size = new + segment.new, size + segment.bytes
    if not version:
        return Made(dataset, store, None, oracle, names)  # type: ignore[arg-type]
    committed = store.commit(lambda: Draft(rows, ids_digest(names), new=new, bytes=size))
    assert committed is not None
    return Made(dataset, store, open_features(store.storage, committed.number), oracle, names)


def samples_table(ids: Sequence[str], **columns: Any) -> pa.Table:
    """A samples table of three splits: 5 of 10 train, 2 validate, 3 test."""
    turns = ("train", "train", "val", "test", "train", "val", "test", "train", "train", "test")
    split = [turns[row % 10] for row in range(len(ids))]
    label = pa.array([row % 2 for row in range(len(ids))], pa.int32())
    return pa.table({"id": list(ids), "split": split, "label": label, **columns})


def published(*made: Made, table: pa.Table | None = None, card: DatasetCard = CARD, **options: Any) -> CachedDataset:
    """One dataset of these stores of the same samples."""
    [dataset] = {one.dataset for one in made}
    stores = {one.store.identity.folder: one.features.version.number for one in made}
    present = {one.store.identity.modality: one.features.status != "missing" for one in made}
    publish(dataset, card, samples_table(made[0].ids) if table is None else table, stores, present, **options)
    return open_dataset(dataset.parent, dataset.name)


@pytest.fixture
def tree() -> Callable[[Path], dict[str, bytes]]:
    """Every file below a folder, by relative name."""
    return lambda folder: {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def flip(path: Path, at: int, bit: int = 0) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << bit
    path.write_bytes(content)
