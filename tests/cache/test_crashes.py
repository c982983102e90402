"""Writers that are killed, and writers that race: nothing is lost, and what comes out is what undisturbed ones made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pgm.cache import open_dataset, open_features, storage_at
from pgm.cache.dataset.verify import verify_dataset, verify_store

from .plain_extraction import IDENTITY, THEN, contents, equal, expected, raced

PROGRAM = Path(__file__).with_name("dying_writers.py")
RUNS = int(os.environ.get("PGM_KILL_RUNS", "2"))


def run(*arguments: object) -> Any:
    done = subprocess.run([sys.executable, PROGRAM, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def same_as_undisturbed(told: dict[str, Any]) -> None:
    """Every folder in which writers died has the contents, and the very segments, of the one where none did."""
    [reference, *others] = [open_dataset(Path(url).parent, "toy") for url in (told["undisturbed"], *told["places"])]
    features = reference.features("audio")
    assert equal(contents(features), expected(THEN))
    assert len(others) == len(told["places"])
    for dataset in others:
        found = dataset.features("audio")
        assert found.content == features.content
        assert set(found.version.segments) == set(features.version.segments)
        assert dataset.version.samples == reference.version.samples
        assert equal(contents(found), expected(THEN))
        assert verify_store(found.store.storage).sound
        assert verify_dataset(dataset.storage).sound
        assert dataset.storage.names("versions") == [f"{dataset.version.number:06d}.json"]
        assert found.store.storage.names("segments") == sorted(found.version.segments), "something was left behind"


@pytest.mark.parametrize("format_", ["zarr", "hdf5"])
def test_a_kill_at_every_point_of_writing_committing_and_sweeping_changes_nothing_in_the_end(
    tmp_path: Path, format_: str
) -> None:
    told = run("points", tmp_path, format_)
    assert told["killed"] >= 15
    same_as_undisturbed(told)


@pytest.mark.parametrize("format_", ["zarr", "hdf5"])
def test_kills_at_random_moments_change_nothing_in_the_end(tmp_path: Path, format_: str) -> None:
    told = run("kills", tmp_path, format_, RUNS, 0)
    assert told["killed"] >= RUNS
    same_as_undisturbed(told)


@pytest.mark.parametrize(
    ("where", "writers", "format_"), [("local", 2, "hdf5"), ("local", 8, "zarr"), ("s3", 4, "zarr")]
)
def test_writers_of_one_store_lose_nothing_without_a_lock(
    request: pytest.FixtureRequest, tmp_path: Path, where: str, writers: int, format_: str
) -> None:
    root = str(tmp_path) if where == "local" else f"{request.getfixturevalue('s3_bucket')}/root"
    rounds = 2
    assert run("race", f"{root}/toy", format_, writers, rounds)["statuses"] == [0] * writers
    dataset = storage_at(root).under("toy")
    store = dataset.under(IDENTITY.folder)
    numbers = open_features(store).store.log.numbers()
    assert numbers == list(range(1, len(numbers) + 1)), "a number was lost, or written twice"
    found = [contents(open_features(store, number)) for number in numbers]
    for writer in range(writers):
        for turn in range(rounds):
            wanted = expected(raced(writer, turn))
            assert any(equal(there, wanted) for there in found), (
                f"what writer {writer} committed in turn {turn} is gone"
            )
    assert verify_store(store).sound
    assert verify_dataset(dataset).sound
    assert open_dataset(root, "toy").features("audio").version.samples >= 5
