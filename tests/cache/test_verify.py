"""Every byte of a store is vouched for: flip, cut, remove or swap any of them and `verify` says where."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pgm.cache import Draft, IndexBuilder, make_split, open_dataset, open_features
from pgm.cache.dataset.verify import Report, discard, sample_ids, verify_dataset, verify_store
from pgm.cache.errors import CorruptStore, PgMError
from pgm.cache.storage.sealed_json import sealed, unsealed

from .conftest import IDENTITY, Made, flip, make_store, published

KINDS: dict[str, dict[str, Any]] = {
    "zarr": {},
    "zstd": {"codec": "zstd"},
    "hdf5": {"format": "hdf5"},
    "int8": {"stored": "int8"},
}
LENGTHS = [7, 0, 9, 30, 2, 12, 4]


@pytest.fixture(params=KINDS)
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Made:
    made = make_store(tmp_path / "toy", LENGTHS, per_segment=2, failures={4: "cut off"}, **KINDS[request.param])
    published(made)
    return made


def verified(made: Made) -> Report:
    return verify_store(made.store.storage, sample_ids(made.dataset))


def files_named(report: Report) -> set[str]:
    return {problem.file for problem in report.problems}


def test_a_fresh_store_is_sound_and_all_of_it_is_read(made: Made) -> None:
    report = verified(made)
    assert report.sound
    assert report.bytes == sum(path.stat().st_size for path in made.path.rglob("*") if path.is_file())


def test_one_flipped_bit_anywhere_is_found_and_what_holds_it_named(made: Made) -> None:
    rng = np.random.default_rng(0)
    for path in sorted(path for path in made.path.rglob("*") if path.is_file()):
        size, key = path.stat().st_size, path.relative_to(made.path).as_posix()
        named = "/".join(key.split("/")[:2]) if key.startswith("segments/") else key
        # Both ends and between: payload, padding, shard index, its crc32c, HDF5 headers, JSON, Parquet, index columns.
        for at in {0, size - 1, *rng.integers(0, size, 3).tolist()}:
            bit = int(rng.integers(8))
            flip(path, at, bit)
            assert named in files_named(verified(made)), (key, at, bit)
            flip(path, at, bit)
    assert verified(made).sound


def test_a_damaged_sample_is_named_and_its_neighbours_are_not(tmp_path: Path) -> None:
    made = make_store(tmp_path / "toy", LENGTHS, per_segment=3, format="hdf5")
    published(made)
    [path] = made.segment_files(0)
    at = path.read_bytes().index(made.oracle[2].tobytes())
    flip(path, at + 3)
    [problem] = verified(made).problems
    assert problem.samples == ("clip/2",)
    assert "is not what its name says; it costs clip/2" in str(problem)


@pytest.mark.parametrize("damage", ["cut", "gone", "added"])
def test_a_segment_cut_short_gone_or_added_to_is_found_and_never_read_as_something_else(
    made: Made, damage: str
) -> None:
    [path] = [path for path in made.segment_files(1) if path.suffix == ".h5" or "tokens/c" in str(path)]
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    elif damage == "added":
        path.write_bytes(path.read_bytes() + bytes(9))
    else:
        place = made.path / "segments" / made.features.version.segments[1]
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    [problem] = verified(made).problems
    assert problem.file == f"segments/{made.features.version.segments[1]}"
    if damage != "added":
        assert problem.samples == ("clip/3",)
        with pytest.raises(CorruptStore):
            open_features(made.path).gather([3])


def test_two_segments_that_changed_places_are_both_found(made: Made) -> None:
    first, second = (made.path / "segments" / made.features.version.segments[k] for k in (0, 1))
    first.rename(first.with_name("away"))
    second.rename(first)
    first.with_name("away").rename(second)
    assert {f"segments/{first.name}", f"segments/{second.name}"} <= files_named(verified(made))


def test_an_index_that_belongs_to_other_rows_is_found_though_all_its_seals_fit(made: Made) -> None:
    store, rows = made.store, IndexBuilder(len(made.ids))
    index = made.features.index
    rows.take(np.arange(7), index, made.features.version.segments, np.arange(7))
    rows.index.start[2] += 1
    committed = store.commit(lambda: Draft(rows, made.features.version.sample_ids))
    assert committed is not None
    [problem] = verified(made).problems
    assert problem.file == f"versions/{committed.index}"
    assert problem.samples == ("clip/2",)


def test_descriptions_that_were_edited_are_refused_and_found(made: Made) -> None:
    for name in ("store.json", "versions/000001.json"):
        path = made.path / name
        kept = path.read_bytes()
        value = json.loads(kept)
        value["dim" if "dim" in value else "tokens"] += 1
        path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")
        with pytest.raises(CorruptStore, match="its own checksum fails"):
            open_features(made.path)
        assert files_named(verified(made)) == {name}
        path.write_bytes(kept)


@pytest.mark.parametrize("pattern", ["versions/*.json", "samples/*.parquet", "splits/*.parquet", "splits/*.json"])
def test_what_lies_beside_the_stores_is_covered(tmp_path: Path, pattern: str) -> None:
    dataset = published(make_store(tmp_path / "toy", LENGTHS))
    make_split(dataset, "random", name="mine")
    assert verify_dataset(dataset.storage).sound
    [path] = (tmp_path / "toy").glob(pattern)
    kept = path.read_bytes()
    for at in (0, len(kept) // 2, len(kept) - 1):
        flip(path, at)
        assert not verify_dataset(dataset.storage).sound
        path.write_bytes(kept)


def test_samples_of_another_list_than_a_version_says_are_found(tmp_path: Path) -> None:
    dataset = published(make_store(tmp_path / "toy", LENGTHS))
    path = tmp_path / "toy/versions/000001.json"
    value = {**unsealed(path.read_bytes(), ""), "sample_ids": "0" * 32}
    path.write_bytes(sealed(value))
    assert files_named(verify_dataset(dataset.storage)) == {"versions/000001.json"}


def again(tmp_path: Path, kind: str) -> Made:
    """The same extraction once more."""
    made = make_store(tmp_path / "toy", LENGTHS, per_segment=2, failures={4: "cut off"}, **KINDS[kind])
    published(made)
    return made


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["segments", "versions/000001.json", "versions/*.index", "dataset", "samples"])
def test_what_is_damaged_can_be_discarded_and_made_again_to_the_same_bytes(
    tmp_path: Path, kind: str, where: str, tree: Callable[[Path], dict[str, bytes]]
) -> None:
    made = again(tmp_path, kind)
    content, before = made.features.content, tree(made.path / "segments")
    places = {"dataset": "toy/versions/000001.json", "samples": "toy/samples/*.parquet"}
    if where == "segments":
        flip(made.segment_files(1)[0], 5)
    else:
        [path] = tmp_path.glob(places.get(where, f"toy/{IDENTITY.folder}/{where}"))
        flip(path, 100)
    reports = [verify_dataset(made.dataset), verified(made)]
    assert not all(report.sound for report in reports)
    assert discard(made.dataset, reports)
    mended = again(tmp_path, kind)
    assert verify_dataset(made.dataset).sound
    assert verified(mended).sound
    assert mended.features.content == content
    assert tree(made.path / "segments") == before
    assert open_dataset(tmp_path, "toy").features("text").content == content


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_segment_is_written_again_where_it_lies_when_the_same_bytes_come_again(
    tmp_path: Path, kind: str
) -> None:
    made = again(tmp_path, kind)
    flip(made.segment_files(1)[0], 5)
    assert not verified(made).sound
    assert verified(again(tmp_path, kind)).sound


def test_a_store_that_lost_its_description_is_told(tmp_path: Path) -> None:
    made = make_store(tmp_path / "toy", LENGTHS)
    (made.path / "store.json").unlink()
    report = verified(made)
    assert files_named(report) == {"store.json"}
    with pytest.raises(PgMError, match="not a feature store"):
        open_features(made.path)


def test_the_samples_table_is_plain_parquet(tmp_path: Path) -> None:
    dataset = published(make_store(tmp_path / "toy", LENGTHS))
    [path] = (tmp_path / "toy/samples").glob("*.parquet")
    assert pq.read_table(path)["id"].to_pylist() == dataset.samples["id"].to_pylist()
