"""Own data: tables of texts, paths and labels become datasets, and what is wrong with one is said before any work."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from pgm.cache import open_dataset
from pgm.cache.errors import NotFound, UserError
from pgm.pipeline import ExtractOptions, extract
from pgm.pipeline.datasets.table import Columns, load_table
from pgm.pipeline.media import FileMedia, TextMedia
from PIL import Image

SPLITS = ["train", "training", "valid", "dev", "test", "Train"]
COLUMNS = Columns(text="title", image="path", audio="sound", label="class", split="fold", id="key")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder, with a space in its name and a table in each format."""
    root = tmp_path / "my data"
    (root / "img").mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = []
    for number in range(6):
        Image.fromarray(rng.integers(0, 256, (20, 20, 3)).astype(np.uint8)).save(root / "img" / f"{number}.png")
        soundfile.write(root / f"{number}.wav", 0.1 * rng.normal(size=3000), 16_000)
        rows.append(
            {
                "key": f"00{number}",
                "title": f'a "quoted", title {number}\nin two lines' if number == 1 else f"title {number}",
                "path": f"img/{number}.png" if number != 4 else "",
                "sound": f"{number}.wav",
                "class": "b" if number % 2 else "a",
                "fold": SPLITS[number],
            }
        )
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, root / "t.parquet")
    (root / "t.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    for name, mark in (("t.csv", ","), ("t.tsv", "\t")):
        lines = [mark.join(rows[0])]
        lines += [mark.join('"' + value.replace('"', '""') + '"' for value in row.values()) for row in rows]
        (root / name).write_text("\n".join(lines), encoding="utf-8-sig")
    return root


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl", "t.parquet"])
def test_every_format_gives_the_same_dataset(folder: Path, name: str) -> None:
    collection = load_table(folder / name, COLUMNS)
    assert collection.ids == ["000", "001", "002", "003", "004", "005"]
    assert collection.card.splits == {"train": 3, "val": 2, "test": 1}
    assert collection.card.classes == ("a", "b")
    assert collection.samples["label"].to_pylist() == [0, 1, 0, 1, 0, 1]
    assert collection.media["text"][1] == TextMedia('a "quoted", title 1\nin two lines')
    assert collection.media["vision"][3] == FileMedia(str(folder / "img" / "3.png"))
    assert collection.media["vision"][4] is None


def test_a_table_goes_through_to_features(folder: Path, tmp_path: Path) -> None:
    extract(
        load_table(folder / "t.csv", COLUMNS), tmp_path / "features", ExtractOptions(preset="tiny", executor="serial")
    )
    dataset = open_dataset(tmp_path / "features", "t")
    assert dataset.features("vision").status.tolist() == ["ok"] * 4 + ["missing", "ok"]
    assert dataset.features("text")[0].shape[1] == 128
    assert dataset.features("audio")[5].shape == (16, 128)


def test_a_root_elsewhere_is_what_paths_start_from(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes((folder / "t.csv").read_bytes())
    collection = load_table(tmp_path / "t.csv", COLUMNS, root=folder)
    assert collection.media["vision"][0] == FileMedia(str(folder / "img" / "0.png"))


@pytest.mark.parametrize("escape", ["../secret.png", "img/../../secret.png", "/etc/passwd"])
def test_a_path_that_leaves_the_root_is_refused(folder: Path, escape: str) -> None:
    (folder / "bad.csv").write_text(f"path\nimg/0.png\n{escape}\n")
    with pytest.raises(UserError, match=r"Row 2 names .* outside the root"):
        load_table(folder / "bad.csv", Columns(image="path"))


def test_a_missing_column_suggests_the_nearest(folder: Path) -> None:
    with pytest.raises(NotFound, match=r"--text-column titel: .* Did you mean 'title'\? It has: key, title"):
        load_table(folder / "t.csv", Columns(text="titel"))


@pytest.mark.parametrize(
    ("content", "columns", "message"),
    [
        ("title,class\n", Columns(text="title"), "has no rows"),
        ("title,class\nx,a\n", Columns(label="class"), "Which columns"),
        ("title,fold\nx,holdout\n", Columns(text="title", split="fold"), "holds 'holdout'; splits are"),
        ("title,class\nx,a\ny,\n", Columns(text="title", label="class"), "Row 2 has no label"),
        ("title,key\nx,1\ny,1\n", Columns(text="title", id="key"), "repeated: 1"),
    ],
)
def test_a_table_that_cannot_be_a_dataset_says_why(
    tmp_path: Path, content: str, columns: Columns, message: str
) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(UserError, match=message):
        load_table(tmp_path / "t.csv", columns)


def test_broken_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"no parquet")
    with pytest.raises(UserError, match="not readable as parquet"):
        load_table(tmp_path / "t.parquet", Columns(text="a"))
    with pytest.raises(NotFound, match="There is no table"):
        load_table(tmp_path / "none.csv", Columns(text="a"))


def test_scores_are_numbers(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("title,score\nx,-1.5\ny,2\n")
    collection = load_table(tmp_path / "t.csv", Columns(text="title", label="score"), task="sentiment")
    assert collection.samples["label"].to_pylist() == [-1.5, 2.0]
    (tmp_path / "bad.csv").write_text("title,score\nx,good\n")
    with pytest.raises(UserError, match="needs numbers"):
        load_table(tmp_path / "bad.csv", Columns(text="title", label="score"), task="sentiment")


def test_a_missing_split_is_drawn_stratified_and_said(tmp_path: Path) -> None:
    lines = [f"text {n},{'abcd'[n % 4]}" for n in range(200)]
    (tmp_path / "t.csv").write_text("title,class\n" + "\n".join(lines))
    collection = load_table(tmp_path / "t.csv", Columns(text="title", label="class"))
    assert collection.card.splits == {"train": 140, "val": 20, "test": 40}
    assert "70/10/20 drawn stratified by label" in collection.card.notes[0]
    splits, labels = collection.samples["split"].to_pylist(), collection.samples["label"].to_pylist()
    assert all(labels[row] is not None for row in range(200))
    assert [sum(s == "test" and c == k for s, c in zip(splits, labels, strict=True)) for k in range(4)] == [10] * 4


def test_groups_are_never_torn_apart(tmp_path: Path) -> None:
    lines = [f"text {n},a,video{n // 7}" for n in range(140)]
    (tmp_path / "t.csv").write_text("title,class,video\n" + "\n".join(lines))
    collection = load_table(tmp_path / "t.csv", Columns(text="title", label="class", group="video"))
    of_group: dict[str, set[str]] = {}
    for row in collection.samples.to_pylist():
        of_group.setdefault(row["group"], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in of_group.values())
    assert set.union(*of_group.values()) == {"train", "val", "test"}


def test_one_row_is_a_dataset(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("title,class\nonly,a\n")
    assert load_table(tmp_path / "t.csv", Columns(text="title", label="class")).card.splits == {"train": 1}
