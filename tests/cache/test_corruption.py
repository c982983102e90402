"""Every byte of a store is vouched for: flip, cut, remove or swap any of them and `verify` says where."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pgm.cache import FeatureWriter, Items, open_features, write_shard
from pgm.cache.errors import CorruptStore
from pgm.cache.verify import verify

KINDS = [
    ("zarr", "none", "float16"),
    ("zarr", "zstd", "float16"),
    ("hdf5", "none", "float16"),
    ("zarr", "none", "int8"),
]
LENGTHS = [7, 0, 9, 30, 2, 12, 4]


@pytest.fixture(params=KINDS, ids="-".join)
def made(request: pytest.FixtureRequest, store: Callable[..., Any], tmp_path: Path) -> Any:
    format_, codec, stored = request.param
    return store(tmp_path / "s", LENGTHS, 5, 16, format=format_, codec=codec, stored=stored)


def flip(path: Path, at: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << bit
    path.write_bytes(content)


def test_a_fresh_store_is_sound(made: Any) -> None:
    report = verify(made.path)
    assert report.sound
    assert report.shards == made.layout.shards
    files = [path for path in made.path.rglob("*") if path.is_file()]
    assert report.bytes + (made.path / "store.json").stat().st_size == sum(path.stat().st_size for path in files)


def test_one_flipped_bit_anywhere_is_found_and_its_file_named(made: Any) -> None:
    rng = np.random.default_rng(0)
    files = [path for path in sorted(made.path.rglob("*")) if path.is_file()]
    for path in files:
        size = path.stat().st_size
        # Both ends and anywhere between: payload, padding, shard index, its crc32c, HDF5 headers, JSON, Parquet.
        for at in {0, size - 1, *rng.integers(0, size, 6).tolist()}:
            bit = int(rng.integers(8))
            flip(path, at, bit)
            report = verify(made.path)
            named = str(path.relative_to(made.path))
            assert named in [problem.file for problem in report.problems], (named, at, bit)
            flip(path, at, bit)
    assert verify(made.path).sound


def test_a_damaged_shard_is_named_with_its_samples(made: Any) -> None:
    record = made.features.info.shards[2]
    flip(made.path / record.files[0].name, 3)
    (problem,) = verify(made.path).problems
    assert problem.shard == 2
    assert problem.samples == tuple(made.layout.samples_of(2)) == (3, 4)
    assert "shard 2" in str(problem)
    assert "samples 3 to 4 (clip/3 … clip/4)" in str(problem)


def test_a_truncated_shard_is_found_and_never_read(made: Any) -> None:
    path = made.path / made.features.info.shards[1].files[0].name
    path.write_bytes(path.read_bytes()[:-9])
    (problem,) = verify(made.path).problems
    assert problem.shard == 1
    assert "bytes instead of" in problem.what
    with pytest.raises(CorruptStore, match=r"shard 1|not readable|shards 0 to 2 .* cannot be decoded"):
        open_features(made.path).gather([2, 3])


def test_a_missing_shard_is_found_and_never_read_as_zeros(made: Any) -> None:
    (made.path / made.features.info.shards[1].files[0].name).unlink()
    (problem,) = verify(made.path).problems
    assert (problem.shard, problem.what) == (1, "is missing")
    with pytest.raises(CorruptStore, match="missing"):
        open_features(made.path).gather([2, 3])


def test_two_shards_swapped_are_both_found(made: Any) -> None:
    first, second = (made.path / made.features.info.shards[k].files[0].name for k in (0, 1))
    content = first.read_bytes(), second.read_bytes()
    first.write_bytes(content[1])
    second.write_bytes(content[0])
    assert {problem.shard for problem in verify(made.path).problems} == {0, 1}


def test_a_wrong_offset_is_refused_on_opening_and_its_samples_named(made: Any) -> None:
    if made.layout.format == "zarr":
        path = made.path / "features.zarr/offsets/c/0"
        offsets = np.fromfile(path, np.int64)
        offsets[4] -= 1
        offsets.tofile(path)
    else:
        import h5py

        with h5py.File(made.path / "features.h5", "r+") as file:
            file["offsets"][4] -= 1
    with pytest.raises(CorruptStore, match=r"offsets in .* are not those"):
        open_features(made.path)
    problem = verify(made.path).problems[0]
    assert "wrong offsets" in problem.what
    assert problem.samples == (3, 4)
    assert problem.ids == ("clip/3", "clip/4")


def test_store_json_that_was_edited_is_refused(made: Any) -> None:
    path = made.path / "store.json"
    value = json.loads(path.read_text())
    value["counts"]["ok"] += 1
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")
    with pytest.raises(CorruptStore, match="its own checksum fails"):
        open_features(made.path)
    assert [problem.file for problem in verify(made.path).problems] == ["store.json"]


def test_a_damaged_shard_taken_back_is_written_again_to_the_same_bytes(made: Any, tree: Callable[..., Any]) -> None:
    before = tree(made.path)
    items = Items.read(made.path)
    flip(made.path / made.features.info.shards[1].files[0].name, 40)
    with FeatureWriter(made.path, made.features.identity, made.layout, made.ids, reopen=True) as writer:
        writer.reset([1])
        assert writer.pending() == [1]
        start, stop = made.layout.bounds(1)
        write_shard(made.path, 1, np.concatenate(made.oracle)[start:stop])
        writer.finalize(items)
    assert verify(made.path).sound
    if made.layout.stored != "int8":
        assert tree(made.path) == before
