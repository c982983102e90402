"""What a user must know of a dataset is said by pgm extract, stands on the card and is said again by training; and
its table of samples says who has which modality."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import typer
from pgm.cache import CachedDataset, open_dataset
from pgm.pipeline import Collection, ExtractOptions, extract, load_dataset
from pgm.pipeline.commands import extract_command
from pgm.trainer.data.dataset import load_data
from pgm.trainer.protocol import Protocol
from PIL import Image
from typer.testing import CliRunner

Encoded = Callable[[Collection], CachedDataset]


def meld_tables(root: Path) -> Path:
    """MELD's three tables without clips; dialogue 0 is in each."""
    for half in ("train", "dev", "test"):
        with (root / f"{half}_sent_emo.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["Sr No.", "Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID"])
            writer.writerows([[n, f"{half} says {n}", "Ross", "joy", "positive", 0, n] for n in range(3)])
            writer.writerow([9, "Okay.", "Joey", "neutral", "neutral", 1, 0])  # the same words in every split
    return root


def food_tables(root: Path) -> Path:
    """Two dishes; each title names its dish, one photograph is not there and one title is empty."""
    (root / "texts").mkdir()
    for half in ("train", "test"):
        lines = []
        for dish in ("apple_pie", "sushi"):
            (root / "images" / half / dish).mkdir(parents=True)
            for number in range(4):
                name = f"{dish}_{number}.jpg"
                if (dish, number) != ("sushi", 3):
                    Image.new("RGB", (8, 8), (number * 9, len(half) * 9, len(dish))).save(
                        root / "images" / half / dish / name
                    )
                lines.append(f"{name},{'' if (dish, number) == ('sushi', 0) else f'{dish} {half} {number}'},{dish}")
        (root / "texts" / f"{half}_titles.csv").write_text("\n".join(lines) + "\n")
    return root


MAKERS = {"meld": meld_tables, "food101": food_tables}


@pytest.mark.parametrize(
    ("name", "trap"),
    [
        ("meld", "Dialogue and utterance numbers repeat across splits: ids begin with the split."),
        ("food101", "100.0 % of the titles (14 of 14) contain the name of their class."),
    ],
)
def test_known_traps_are_said_by_extract_by_the_card_and_by_training(tmp_path: Path, name: str, trap: str) -> None:
    root, features = MAKERS[name](tmp_path), tmp_path / "features"
    app = typer.Typer()
    app.command()(extract_command)
    options = [
        name,
        "--root",
        root,
        "--features",
        features,
        "--executor",
        "serial",
        "--modality",
        "text",
        "--encoders",
        "tiny",
    ]
    for more in (["--dry-run"], []):
        result = CliRunner().invoke(app, [str(option) for option in (*options, *more)])
        assert result.exception is None, result.exception
        said = " ".join(result.stderr.split())
        assert f"note: {trap}" in said
        assert "warning: The counts are not the published ones" in said
        assert "note: The counts" not in said, "a warning is not said twice"
    assert trap in open_dataset(features, name).card.notes
    assert trap in load_data(open_dataset(features, name), ["text"], {}, Protocol()).notes


def test_melds_repeated_words_are_counted_as_shared_sources(tmp_path: Path) -> None:
    collection = load_dataset("meld", meld_tables(tmp_path))
    extract(collection, tmp_path / "features", ExtractOptions(preset="tiny", executor="serial"))
    notes = load_data(open_dataset(tmp_path / "features", "meld"), ["text"], {}, Protocol()).notes
    told = "1 of 4 test samples has the same text source as a training sample, 1 as a validation sample."
    assert told in notes


def test_samples_say_which_modalities_they_have(tmp_path: Path, encoded: Encoded) -> None:
    collection = load_dataset("food101", food_tables(tmp_path))
    dataset = encoded(collection)
    ids = np.array(dataset.samples["id"].to_pylist())
    assert dataset.samples.column_names[-2:] == ["has_text", "has_vision"]
    assert set(ids[~dataset.presence["text"]]) == {"train-sushi_0", "test-sushi_0"}
    assert set(ids[~dataset.presence["vision"]]) == {"train-sushi_3", "test-sushi_3"}
    for modality, present in dataset.presence.items():
        assert np.array_equal(present, dataset.features(modality).available)


def test_a_source_that_cannot_be_read_is_there_all_the_same(tmp_path: Path, encoded: Encoded) -> None:
    root = food_tables(tmp_path)
    (root / "images" / "test" / "sushi" / "sushi_1.jpg").write_bytes(b"no image")
    dataset = encoded(load_dataset("food101", root))
    row = dataset.samples["id"].to_pylist().index("test-sushi_1")
    assert dataset.presence["vision"][row]
    assert dataset.features("vision").status[row] == "failed"


def test_modalities_extracted_apart_leave_the_same_samples_table(tmp_path: Path) -> None:
    collection = load_dataset("food101", food_tables(tmp_path))
    options = ExtractOptions(preset="tiny", executor="serial")
    extract(collection, tmp_path / "together", options)
    for modality in ("vision", "text"):
        finished = extract(collection.only([modality]), tmp_path / "apart", options)
    tables = [open_dataset(tmp_path / way, "food101").version.samples for way in ("together", "apart")]
    assert tables[0] == tables[1]
    assert not any(store.reused for store in finished)
    assert all(store.reused for store in extract(collection, tmp_path / "apart", options))
