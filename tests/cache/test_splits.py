"""Named splits, who has which modality, and sources that two splits share."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pgm.cache import (
    CachedDataset,
    DatasetCard,
    Identity,
    make_split,
    named_splits,
    open_dataset,
    open_split,
    publish,
    rows_of,
    shared_sources,
    storage_at,
)
from pgm.cache.commands import cache_app
from pgm.cache.dataset.draw import draw
from pgm.cache.dataset.verify import verify_dataset
from pgm.cache.errors import CorruptStore, NotFound, UserError
from typer.testing import CliRunner, Result

from .conftest import make_store

CARD = DatasetCard("toy", "classification", ("a", "b", "c"), ("accuracy",))
OWN = ["train"] * 60 + ["val"] * 20 + ["test"] * 20


def make_dataset(root: Path, splits: list[str] = OWN, groups: Any = None, labels: Any = None) -> CachedDataset:
    """features/toy without stores; groups (N,) or none."""
    count = len(splits)
    columns: dict[str, Any] = {"id": [f"s{row}" for row in range(count)], "split": splits}
    columns["label"] = pa.array(np.arange(count) % 3 if labels is None else labels)
    if groups is not None:
        columns["group"] = groups
    publish(storage_at(root / "toy"), CARD, pa.table(columns), {})
    return open_dataset(root, "toy")


def parts_of(dataset: CachedDataset, name: str) -> np.ndarray:
    return np.array(open_split(dataset, name)[1].to_pylist())


def invoke(root: Path, *arguments: object) -> Result:
    return CliRunner().invoke(cache_app, [*map(str, arguments), "--features", str(root)])


sizes = st.lists(st.integers(1, 40), min_size=3, max_size=60)


@settings(max_examples=150, deadline=None)
@given(sizes=sizes, val=st.floats(0.01, 0.45), test=st.none() | st.floats(0.01, 0.45), seed=st.integers(0, 2**32 - 1))
def test_groups_stay_whole_parts_are_filled_and_sizes_are_as_close_as_promised(
    sizes: list[int], val: float, test: float | None, seed: int
) -> None:
    keys = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    shares = {"val": val} if test is None else {"test": test, "val": val}
    parts = draw(keys, "group", shares, seed)
    assert np.array_equal(parts, draw(keys, "group", shares, seed))
    for group in range(len(sizes)):
        assert len(set(parts[keys == group])) == 1, "a group was torn"
    assert set(parts) == {"train", *shares}
    for name, share in shares.items():
        wanted, got = max(1, round(share * len(keys))), int((parts == name).sum())
        within = abs(got - wanted) <= max(sizes) / 2
        only_one_group = len(set(keys[parts == name])) == 1
        nothing_to_spare = len(set(keys[parts == "train"])) == 1
        assert within or only_one_group or nothing_to_spare


def test_many_small_groups_come_within_half_the_largest() -> None:
    generator = np.random.default_rng(0)
    keys = np.repeat(np.arange(400), generator.integers(1, 30, 400))
    for seed in range(20):
        parts = draw(keys, "group", {"test": 0.2, "val": 0.1}, seed)
        for name, share in (("test", 0.2), ("val", 0.1)):
            assert abs((parts == name).sum() - share * len(keys)) <= 15


@settings(max_examples=100, deadline=None)
@given(counts=st.lists(st.integers(1, 50), min_size=1, max_size=8), val=st.floats(0.02, 0.9), seed=st.integers(0, 999))
def test_every_class_gets_its_share_within_one_sample(counts: list[int], val: float, seed: int) -> None:
    keys = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    if len(keys) < 2:
        return
    parts = draw(keys, "label", {"val": val}, seed)
    wanted = min(max(1, round(val * len(keys))), len(keys) - 1)
    assert (parts == "val").sum() == wanted
    for label, count in enumerate(counts):
        assert abs(((parts == "val") & (keys == label)).sum() - count * wanted / len(keys)) <= 1


def test_the_last_sample_of_a_class_trains_where_another_class_can_give_one() -> None:
    keys = np.array([0] * 50 + [1] * 50 + [2, 3, 4, 5])
    for seed in range(20):
        parts = draw(keys, "label", {"test": 0.2, "val": 0.1}, seed)
        assert set(parts[keys >= 2]) == {"train"}


def test_the_order_of_the_samples_does_not_decide_which_groups_validate(tmp_path: Path) -> None:
    groups = [f"video{row % 17}" for row in range(100)]
    here = make_dataset(tmp_path / "a", groups=groups)
    order = np.random.default_rng(0).permutation(100)
    there = make_dataset(tmp_path / "b", groups=[groups[row] for row in order])
    for dataset in (here, there):
        make_split(dataset, "group", 0.2, 0.2, 3, "s")
    assert np.array_equal(parts_of(here, "s")[order], parts_of(there, "s"))


def test_without_test_the_datasets_own_is_kept(tmp_path: Path) -> None:
    groups = [f"{split}-{row % 9}" for row, split in enumerate(["rest"] * 80 + ["test"] * 20)]
    dataset = make_dataset(tmp_path, groups=groups)
    for by in ("group", "label", "random"):
        made = make_split(dataset, by, 0.25, seed=1)
        parts = parts_of(dataset, made.name)
        assert (parts[80:] == "test").all()
        assert not (parts[:80] == "test").any()
        assert made.samples["val"] == (parts == "val").sum()
        if by != "group":
            assert made.samples == {"train": 60, "val": 20, "test": 20}
    assert sum(made.samples.values()) == 100


def test_a_kept_test_split_that_tears_groups_is_refused(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, groups=[f"video{row % 10}" for row in range(100)])
    with pytest.raises(
        UserError, match=r"10 of the 10 groups of toy lie both in its own test split and .* --test 0\.2"
    ):
        make_split(dataset, "group")
    make_split(dataset, "group", test=0.2)


def test_samples_without_a_group_stand_alone(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, groups=pa.array(["v"] * 40 + [None] * 60, pa.string()))
    made = make_split(dataset, "group", 0.2, 0.2)
    assert sum(made.groups.values()) == 61
    assert made.samples["val"] == 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "group"}, r"toy has no column 'group'; it has id, split, label\. Use --by label or --by random"),
        ({"by": "video"}, r"--by is group, label, random, not 'video'"),
        ({"by": "random", "val": 1.5}, r"--val is a share between 0 and 1, not 1\.5"),
        ({"by": "random", "val": 0.5, "test": 0.5}, r"leave nothing to train on"),
        ({"by": "random", "seed": -1}, r"--seed is 0 or more"),
        ({"by": "random", "name": "../x"}, r"--name '\.\./x': a split's name is made of letters"),
    ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_split(make_dataset(tmp_path), **options)
    assert not (tmp_path / "toy" / "splits").exists()


def test_an_empty_part_is_refused(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "a", groups=["one"] * 50 + ["two"] * 50)
    with pytest.raises(UserError, match=r"2 groups to draw from for 3 parts \(test, val, train\): one would be empty"):
        make_split(dataset, "group", test=0.2)
    alone = make_dataset(tmp_path / "b", ["train", "test", "test"])
    with pytest.raises(UserError, match=r"1 samples to draw from for 2 parts"):
        make_split(alone, "random")


def test_scores_are_not_stratified(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="scores, not classes"):
        make_split(make_dataset(tmp_path, labels=np.linspace(-3, 3, 100)), "label")


def test_the_same_split_again_changes_nothing_and_another_of_its_name_is_refused(
    tmp_path: Path, tree: Callable[[Path], dict[str, bytes]]
) -> None:
    dataset = make_dataset(tmp_path)
    made = make_split(dataset, "random", name="mine")
    before = tree(tmp_path)
    assert make_split(dataset, "random", name="mine") == made
    with pytest.raises(
        UserError, match=r"another split named 'mine' \(pgm cache split toy --by random --val 0\.1 --seed"
    ):
        make_split(dataset, "random", seed=1, name="mine")
    assert tree(tmp_path) == before
    make_split(dataset, "label")
    assert [found.name for found in named_splits(dataset)] == ["label-val0.1-seed0", "mine"]
    assert before.items() <= tree(tmp_path).items()


def test_a_typo_suggests_the_nearest_and_lists_what_is_there(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)
    with pytest.raises(NotFound, match=r"it has none but its own\. Draw one with pgm cache split toy"):
        open_split(dataset, "mine")
    make_split(dataset, "random", name="mine")
    with pytest.raises(NotFound, match=r"no split named 'mnie'; it has mine. Did you mean 'mine'\? Draw one"):
        open_split(dataset, "mnie")


def test_a_dataset_that_grew_refuses_its_old_splits(tmp_path: Path) -> None:
    make_split(make_dataset(tmp_path), "random", name="mine")
    grown = make_dataset(tmp_path, [*OWN, "train"])
    with pytest.raises(UserError, match=r"drawn for another list of samples .* --by random --val 0\.1 --seed 0 --name"):
        open_split(grown, "mine")
    assert "of an earlier list" in invoke(tmp_path, "split", "toy", "--list").stdout


@pytest.mark.parametrize("end", [".parquet", ".split.json"])
def test_verify_covers_named_splits_and_reading_does_too(tmp_path: Path, end: str) -> None:
    dataset = make_dataset(tmp_path)
    make_split(dataset, "random", name="mine")
    assert verify_dataset(dataset.storage).sound
    [path] = (tmp_path / "toy" / "splits").glob(f"*{end}")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    result = invoke(tmp_path, "verify", "toy")
    assert result.exit_code == 1
    assert "splits/mine.split.json" in result.stdout
    with pytest.raises(CorruptStore):
        open_split(dataset, "mine")
    path.unlink()
    assert verify_dataset(dataset.storage).sound is (end == ".split.json"), "without its seal there is no split"


def test_what_a_killed_writer_left_is_no_split_and_is_drawn_over(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)
    make_split(dataset, "random", name="mine")
    (tmp_path / "toy/splits/mine.split.json").unlink()
    assert named_splits(dataset) == []
    made = make_split(dataset, "random", seed=5, name="mine")
    assert open_split(dataset, "mine")[0] == made
    assert verify_dataset(dataset.storage).sound


def test_of_two_that_draw_one_name_at_once_one_split_is_kept_whole(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)

    def drawn(seed: int) -> bool:
        try:
            make_split(dataset, "random", seed=seed, name="mine")
        except UserError as error:
            return "another split named 'mine'" not in str(error)
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(drawn, range(8))) == 1
    assert len(open_split(dataset, "mine")[1]) == 100


def test_removing_a_dataset_removes_its_splits(tmp_path: Path) -> None:
    make_split(make_dataset(tmp_path), "random")
    assert invoke(tmp_path, "rm", "toy", "--yes").exit_code == 0
    assert not (tmp_path / "toy").exists()


def test_the_command_prints_counts_and_groups_and_lists(tmp_path: Path) -> None:
    make_dataset(tmp_path, groups=[f"video{row // 4}" for row in range(100)])
    options = ("split", "toy", "--by", "group", "--val", 0.2, "--test", 0.2)
    out = invoke(tmp_path, *options).stdout
    assert "split group-val0.2-test0.2-seed0, by group, seed 0" in out
    assert "20 samples in 5 groups" in out
    assert "pgm train --cached --dataset toy --split group-val0.2-test0.2-seed0" in out
    told = json.loads(invoke(tmp_path, *options, "--json").stdout)
    assert told["samples"] == {"train": 60, "val": 20, "test": 20}
    assert told["groups"] == {"train": 15, "val": 5, "test": 5}
    assert pq.read_table(told["file"]).column_names == ["id", "split"]
    listed = json.loads(invoke(tmp_path, "split", "toy", "--list", "--json").stdout)
    assert listed == [told]
    assert "group-val0.2-test0.2-seed0" in invoke(tmp_path, "split", "toy", "--list").stdout


def test_the_command_asks_how_and_helps(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    assert "has no split but its own" in invoke(tmp_path, "split", "toy", "--list").stdout
    error = invoke(tmp_path, "split", "toy").exception
    assert isinstance(error, UserError)
    assert "--by group" in str(error)
    help_ = CliRunner().invoke(cache_app, ["split", "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
    for word in ("Example: pgm cache split", "--features", "--json", "PGM_FEATURES", "--list"):
        assert word in help_


def test_presence_is_kept_sorted_and_other_modalities_stay_while_the_samples_do(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)
    assert dataset.presence == {}
    place, bare = dataset.storage, dataset.samples
    vision, text = np.arange(100) % 2 == 0, np.arange(100) % 3 == 0
    publish(place, CARD, bare, {}, {"vision": vision})
    apart = publish(place, CARD, bare, {}, {"text": text}).samples
    found = open_dataset(tmp_path, "toy")
    assert found.samples.column_names == ["id", "split", "label", "has_text", "has_vision"]
    assert np.array_equal(found.presence["text"], text)
    assert np.array_equal(found.presence["vision"], vision)
    together = publish(storage_at(tmp_path / "other"), CARD, bare, {}, {"vision": vision, "text": text}).samples
    assert together == apart, "the same table, whichever way it came together"
    publish(place, CARD, bare.slice(0, 90), {}, {"text": text[:90]})
    assert set(open_dataset(tmp_path, "toy").presence) == {"text"}
    assert verify_dataset(place).sound


def with_sources(dataset: CachedDataset, modality: str, sources: list[str]) -> CachedDataset:
    """The dataset with a store of one token a sample, made from these."""
    ids, identity = dataset.samples["id"].to_pylist(), Identity(modality, "toy", {})
    made = make_store(dataset.storage, [1] * len(ids), 2, 64, identity=identity, ids=ids, sources=sources)
    publish(dataset.storage, CARD, dataset.samples, {identity.folder: made.features.version.number})
    return open_dataset(dataset.storage.parent, dataset.name)


def test_test_samples_with_a_source_that_trains_or_validates_are_counted(tmp_path: Path) -> None:
    sources = [f"{row + 1:032x}" for row in range(100)]
    sources[80:85] = sources[0:5]  # of train
    sources[85:87] = sources[0:1] * 2  # of train again
    sources[90] = sources[70]  # of val
    sources[91:95] = [""] * 4
    sources[10:14] = [""] * 4  # no digest is no source
    sources[95] = sources[96]  # within test
    dataset = with_sources(make_dataset(tmp_path), "vision", sources)
    features = dataset.features("vision")
    shared = shared_sources(features, rows_of(dataset.samples["split"]))
    assert (shared.test, shared.train, shared.val) == (20, 7, 1)
    told = "7 of 20 test samples have the same vision source as a training sample, 1 as a validation sample."
    assert str(shared) == told
    assert told in invoke(tmp_path, "stats", "toy").stdout
    stats = json.loads(invoke(tmp_path, "stats", "toy", "--json").stdout)
    assert stats[features.url]["shared_with_test"] == {"test": 20, "train": 7, "val": 1}


@pytest.mark.parametrize("digests", [True, False])
def test_nothing_shared_is_nothing_said(tmp_path: Path, digests: bool) -> None:
    dataset = with_sources(make_dataset(tmp_path), "text", [f"{row + 1:032x}" if digests else "" for row in range(100)])
    assert str(shared_sources(dataset.features("text"), rows_of(dataset.samples["split"]))) == ""
    assert "same text source" not in invoke(tmp_path, "stats", "toy").stdout
