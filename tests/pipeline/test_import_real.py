"""The published files of MOSI and Wikipedia, imported by one command each; skipped where they are not at hand."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from pgm.cache import CachedDataset, open_dataset
from pgm.cache.dataset.verify import verify_dataset, verify_store
from pgm.pipeline.imports.commands import import_command
from scipy.io import loadmat
from typer.testing import CliRunner

DATA = Path(__file__).parents[3] / "shared" / "data"
MOSI, WIKIPEDIA = DATA / "mosi" / "mosi_utterance.npz", DATA / "wikipedia" / "raw_features.mat"


def imported(root: Path, name: str, file: Path, *options: str) -> tuple[CachedDataset, dict[str, Any]]:
    if not file.is_file():
        pytest.skip(f"{file} is not here: it is published data, never copied into the project")
    app = typer.Typer()
    app.command()(import_command)
    arguments = [name, str(file), *options, "--features", str(root), "--json"]
    said = json.loads(CliRunner().invoke(app, arguments, catch_exceptions=False).stdout)
    dataset = open_dataset(root, name)
    assert verify_dataset(dataset.storage).sound
    assert all(verify_store(store.storage).sound for store in dataset.stores.values())
    return dataset, said


def tokens(dataset: CachedDataset, modality: str) -> Any:
    store = dataset.features(modality)
    assert (store.lengths == 1).all()
    return store.gather(np.arange(len(store)))[0]


def test_mosi(tmp_path: Path) -> None:
    dataset, said = imported(tmp_path, "mosi", MOSI)
    assert said["samples"] == 2199
    assert said["splits"] == {"train": 1447, "test": 752}
    assert {name: one["dim"] for name, one in said["modalities"].items()} == {"text": 100, "audio": 73, "vision": 100}
    assert dataset.card.task == "sentiment"
    labels = np.array(dataset.samples["label"].to_pylist())
    with np.load(MOSI) as file:
        for modality, key in (("text", "text"), ("audio", "audio"), ("vision", "video")):
            stored = tokens(dataset, modality)
            assert stored.sum(dtype=np.float64) == file[key].sum(dtype=np.float64)
            assert np.array_equal(stored, file[key])
        assert np.array_equal(labels, file["label_sentiment"])
        assert dataset.samples["id"].to_pylist() == file["ids"].tolist()
        assert dataset.samples["group"].to_pylist() == file["video_id"].tolist()
    test = np.array(dataset.samples["split"].to_pylist()) == "test"
    # The majority of the test split, as the data's own floor has it.
    assert round(float(np.mean(labels[test] >= 0)), 3) == 0.621
    groups = np.array(dataset.samples["group"].to_pylist())
    assert len(set(groups)) == 93
    assert not set(groups[test]) & set(groups[~test])


def test_mosi_under_the_standard_split_is_warned_about(tmp_path: Path) -> None:
    dataset, said = imported(tmp_path, "mosi", MOSI, "--split-column", "split_standard")
    assert said["splits"] == {"train": 1284, "val": 229, "test": 686}
    assert "leaks labels" in said["warnings"][0]
    assert any("leaks labels" in note for note in dataset.card.notes)


def test_wikipedia(tmp_path: Path) -> None:
    dataset, said = imported(tmp_path, "wikipedia", WIKIPEDIA)
    assert said["samples"] == 2866
    assert said["splits"] == {"train": 2173, "test": 693}
    assert dataset.card.task == "retrieval"
    assert dataset.card.classes[0] == "art"
    assert dataset.card.classes[-1] == "warfare"
    file = loadmat(WIKIPEDIA)
    for modality, keys in (("vision", ("I_tr", "I_te")), ("text", ("T_tr", "T_te"))):
        stored, known = tokens(dataset, modality), np.concatenate([file[key] for key in keys])
        assert np.array_equal(stored, known.astype(np.float32))
        # Histograms and topic shares: every row adds up to one, as it does in the file.
        assert np.allclose(stored.sum(axis=1, dtype=np.float64), known.sum(axis=1), atol=1e-5)
    lists = [WIKIPEDIA.with_name(f"{part}set_txt_img_cat.list").read_text().splitlines() for part in ("train", "test")]
    numbers = [int(line.split("\t")[2]) - 1 for part in lists for line in part]
    assert dataset.samples["label"].to_pylist() == numbers
    balance = Counter(numbers[2173:])
    assert [balance[place] for place in range(10)] == [34, 88, 96, 85, 65, 58, 51, 41, 71, 104]
