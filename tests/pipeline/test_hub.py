"""`pgm extract --hf`: a dataset in the datasets library's own format, through the real library."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
from pgm.cache import open_dataset
from pgm.cache.errors import NotFound, UserError
from pgm.pipeline import ExtractOptions, extract
from pgm.pipeline.datasets.hub import default_name, fetch
from pgm.pipeline.datasets.table import Columns, load_table
from PIL import Image

INSTALLED = importlib.util.find_spec("datasets") is not None
COLUMNS = Columns(text="title", image="photo", label="dish", split="split")
needs_library = pytest.mark.skipif(not INSTALLED, reason="the datasets library is not installed: pip install 'pgm[hf]'")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """What `DatasetDict.save_to_disk` leaves: titles, encoded images (one absent), class labels, three splits."""
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Value, disable_progress_bars
    from datasets import Image as ImageColumn

    disable_progress_bars()
    rng = np.random.default_rng(0)
    paths = []
    for number in range(6):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(rng.integers(0, 256, (20, 24, 3)).astype(np.uint8)).save(paths[-1])
    features = Features({"title": Value("string"), "photo": ImageColumn(), "dish": ClassLabel(names=["pie", "soup"])})
    splits = {}
    for split, rows in (("train", [0, 1, 2]), ("validation", [3]), ("test", [4, 5])):
        columns = {
            "title": [f"dish number {row}" for row in rows],
            "photo": [str(paths[row]) if row != 5 else None for row in rows],
            "dish": [row % 2 for row in rows],
        }
        splits[split] = Dataset.from_dict(columns, features=features)
    folder = tmp_path / "saved here"
    DatasetDict(splits).save_to_disk(folder)
    return folder


@needs_library
def test_a_saved_dataset_becomes_a_table_and_then_features(saved: Path, tmp_path: Path) -> None:
    table = fetch(str(saved), COLUMNS, tmp_path / "data")
    assert fetch(str(saved), COLUMNS, tmp_path / "data") == table
    collection = load_table(table, COLUMNS, name="dishes")
    assert collection.card.splits == {"train": 3, "val": 1, "test": 2}
    assert collection.card.classes == ("pie", "soup")
    assert collection.samples["label"].to_pylist() == [0, 1, 0, 1, 0, 1]
    assert [source is None for source in collection.media["vision"]] == [False] * 5 + [True]
    extract(collection, tmp_path / "features", ExtractOptions(preset="tiny", executor="serial"))
    dataset = open_dataset(tmp_path / "features", "dishes")
    assert dataset.features("vision").lengths.tolist() == [17] * 5 + [0]
    # "dish number 0" as bytes, and the end mark.
    assert dataset.features("text").lengths.tolist() == [14] * 6


@needs_library
def test_two_datasets_of_one_name_and_other_columns_of_one_do_not_share_a_copy(saved: Path, tmp_path: Path) -> None:
    from datasets import load_from_disk

    for owner, rows in (("a", range(2)), ("b", range(2, 3))):
        load_from_disk(str(saved))["train"].select(rows).save_to_disk(tmp_path / owner / "foo")
    ours, theirs = (fetch(str(tmp_path / owner / "foo"), COLUMNS, tmp_path / "data") for owner in ("a", "b"))
    assert ours != theirs
    assert [len(load_table(table, COLUMNS, name="foo")) for table in (ours, theirs)] == [2, 1]
    texts = Columns(text="title", label="dish", split="split")
    assert fetch(str(tmp_path / "a" / "foo"), texts, tmp_path / "data") != ours
    shutil.rmtree(tmp_path / "a" / "foo")
    load_from_disk(str(saved))["train"].save_to_disk(tmp_path / "a" / "foo")
    again = fetch(str(tmp_path / "a" / "foo"), COLUMNS, tmp_path / "data")
    assert len(load_table(again, COLUMNS, name="foo")) == 3


def test_datasets_of_two_owners_have_two_names() -> None:
    assert (default_name("a/foo"), default_name("b/foo")) == ("a--foo", "b--foo")


@needs_library
def test_what_cannot_be_loaded_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFound, match="could not load"):
        fetch(str(tmp_path / "empty"), COLUMNS, tmp_path / "data")


@needs_library
def test_a_medium_column_that_is_not_there_is_said(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no column 'picture'.*It has: title, photo, dish"):
        fetch(str(saved), Columns(image="picture"), tmp_path / "data")


@pytest.mark.skipif(INSTALLED, reason="the datasets library is installed")
def test_without_the_library_it_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"pip install 'pgm\[hf\]'"):
        fetch("anything", COLUMNS, tmp_path / "data")
