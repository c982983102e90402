"""A run is named by the content of its features: however, wherever and in however many steps they were written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pgm.cache import DatasetCard, Identity, ids_digest, open_dataset, publish, storage_at, write_features
from pgm.trainer import Run
from pgm.trainer.run.inference import evaluate_run
from pgm.trainer.run.request import Request, resolve

SAMPLES = 48
SPLITS = ["train"] * 32 + ["val"] * 8 + ["test"] * 8


def tokens_of(seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {modality: generator.normal(size=(SAMPLES, 2, 4)).astype(np.float32) for modality in ("text", "vision")}


def write(
    root: Path, tokens: dict[str, np.ndarray], rows: Sequence[int] = range(SAMPLES), name: str = "", **options: Any
) -> Path:
    """The samples `rows` as a version of the dataset `toy`."""
    dataset, chosen = storage_at(root / "toy"), list(rows)
    ids, stores = [f"s{row}" for row in chosen], {}
    for modality, values in tokens.items():
        identity, packed = Identity(modality, "toy", {}), values[chosen].reshape(-1, 4)
        lengths = [2] * len(ids)
        version = write_features(
            dataset, identity, ids, ids_digest(ids), lengths, packed, "float32", name=name, **options
        )
        stores[identity.folder] = version.number
    card = DatasetCard("toy", "classification", ("a", "b"), ("accuracy",))
    labels = pa.array([row % 2 for row in chosen], pa.int32())
    publish(
        dataset, card, pa.table({"id": ids, "split": [SPLITS[r] for r in chosen], "label": labels}), stores, name=name
    )
    return root


def run_of(root: Path, **changes: Any) -> str:
    return resolve(Request(root, Path("unused"), method="concat", **changes)).run.id


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path / "features", tokens_of())


def test_other_features_of_the_same_samples_and_encoder_are_another_run(root: Path, tmp_path: Path) -> None:
    before = run_of(root)
    # One number of one training sample, as when a picture was replaced and extracted again.
    changed = tokens_of()
    changed["vision"][3, 1, 2] += 0.5
    write(root, changed)
    assert run_of(root) != before
    assert run_of(root, version=1) == before


@pytest.mark.parametrize("options", [{"format": "hdf5"}, {"segment_bytes": 64}, {"codec": "zstd"}])
def test_the_same_features_are_the_same_run_however_they_are_kept(
    root: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    assert run_of(write(tmp_path / "elsewhere", tokens_of(), **options)) == run_of(root)


def test_a_dataset_that_grew_into_another_is_the_same_run(root: Path, tmp_path: Path) -> None:
    grown = write(tmp_path / "grown", tokens_of(), range(40))
    smaller = run_of(grown)
    write(grown, tokens_of())
    assert run_of(grown) == run_of(root) != smaller
    assert run_of(grown, version=1) == smaller


def test_a_limited_version_shadows_nothing(root: Path) -> None:
    whole = run_of(root)
    write(root, tokens_of(), range(0, SAMPLES, 2), name="limit-24")
    assert run_of(root) == whole != run_of(root, version="limit-24")
    assert len(open_dataset(root, "toy", "limit-24").samples) == 24


def test_a_finished_run_is_evaluated_on_the_version_it_was_trained_on(
    root: Path, tmp_path: Path, quick: Callable[..., Run]
) -> None:
    run = quick(root, tmp_path / "runs", dataset="toy")
    write(root, tokens_of(1))
    assert evaluate_run(run, "test", None, "auto", "cpu")["metrics"] == run.test
