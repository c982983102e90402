"""Small real datasets for the pipeline's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from pgm.cache import CachedDataset, open_dataset
from pgm.pipeline import Collection, ExtractOptions, extract, load_dataset


@pytest.fixture(scope="session")
def digits(digits_root: Path) -> Collection:
    return load_dataset("digits", digits_root)


@pytest.fixture(scope="session")
def few_digits(digits: Collection) -> Collection:
    """130 of the digits: three shards of sound and of images."""
    return digits.limited(130)


@pytest.fixture(scope="session")
def av_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root of AV-MNIST's layout: 120 + 20 images and three recordings a split and digit."""
    root = tmp_path_factory.mktemp("av")
    rng = np.random.default_rng(0)
    labels = {"train": np.arange(120) % 10, "test": np.arange(20) % 10}
    arrays = {f"x_{half}": rng.integers(0, 256, (len(y), 28, 28)).astype(np.uint8) for half, y in labels.items()}
    (root / "mnist").mkdir()
    np.savez_compressed(root / "mnist" / "mnist.npz", **arrays, **{f"y_{half}": y for half, y in labels.items()})
    recordings = root / "fsdd" / "recordings"
    recordings.mkdir(parents=True)
    for digit in range(10):
        for index in (0, 1, 5, 6, 10, 11):
            wave = 0.1 * rng.normal(size=2000 + 100 * digit)
            soundfile.write(recordings / f"{digit}_ann_{index}.wav", wave, 8000)
    return root


@pytest.fixture
def encoded(tmp_path: Path) -> Callable[[Collection], CachedDataset]:
    """Runs a collection through the tiny encoders, whatever share of it is bad, and opens what was written."""

    def run(collection: Collection) -> CachedDataset:
        extract(collection, tmp_path / "features", ExtractOptions(preset="tiny", executor="serial", max_failures=1.0))
        return open_dataset(tmp_path / "features", collection.card.name)

    return run
