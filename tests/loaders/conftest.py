"""A cached dataset of two ragged modalities, with failed and missing samples, and what its samples are."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pgm.cache import (
    CachedDataset,
    DatasetCard,
    Identity,
    ids_digest,
    open_dataset,
    publish,
    storage_at,
    write_features,
)

CARD = DatasetCard("toy", "classification", ("cat", "dog"), ("accuracy",))
WIDTHS = {"text": 3, "vision": 5}
STORED = {"text": "float16", "vision": "float32"}


@dataclass(frozen=True)
class Toy:
    """The root of the cache, and row -> the tokens of a modality, empty where it failed or is missing."""

    root: Path
    tokens: dict[str, list[Any]]

    def open(self, version: int | None = None) -> CachedDataset:
        return open_dataset(self.root, "toy", version)


def write(root: Path, count: int, labels: Sequence[Any] | None = None, card: DatasetCard = CARD) -> Toy:
    """Publish `count` samples: every fifth is test, and of each modality some are missing and some have failed."""
    rng = np.random.default_rng(7)
    dataset, ids = storage_at(root).under("toy"), [f"s{row}" for row in range(count)]
    stores, tokens, present = {}, {}, {}
    for shift, (name, dim) in enumerate(WIDTHS.items()):
        lengths = np.array([(row * 7 + shift) % 5 for row in range(count)])  # 0: missing
        failures = dict.fromkeys(range(shift + 2, count, 11), "broken")
        lengths[list(failures)] = 0
        tokens[name] = [rng.normal(size=(n, dim)).astype(STORED[name]) for n in lengths.tolist()]
        version = write_features(
            dataset,
            Identity(name, "encoder"),
            ids,
            ids_digest(ids),
            lengths,
            np.concatenate(tokens[name]),
            STORED[name],  # type: ignore[arg-type]
            errors=failures,
            segment_bytes=1000,
        )
        stores[Identity(name, "encoder").folder] = version.number
        present[name] = (lengths > 0) | np.isin(np.arange(count), list(failures))
    split = ["test" if row % 5 == 4 else "train" for row in range(count)]
    column = pa.array([row % 2 for row in range(count)] if labels is None else labels)
    publish(dataset, card, pa.table({"id": ids, "split": split, "label": column}), stores, present)
    return Toy(root, tokens)


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return write(tmp_path_factory.mktemp("loaders") / "features", 53)


@pytest.fixture
def toy(written: Toy, tmp_path: Path) -> Toy:
    """A copy, for tests that write more."""
    return Toy(Path(shutil.copytree(written.root, tmp_path / "features")), written.tokens)
