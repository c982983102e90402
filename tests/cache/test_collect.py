"""`pgm cache gc`: what no version lists goes; what somebody reads, or may be about to commit, stays."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from pgm.cache import Draft, IndexBuilder, ids_digest, open_dataset, open_features
from pgm.cache.dataset.collect import GRACE, garbage, remove
from pgm.cache.dataset.verify import verify_dataset, verify_store
from pgm.cache.errors import CorruptStore, NotFound, PgMError, RunFailed
from pgm.cache.segment import read_segment

from .conftest import Made, flip, make_store, published, samples_table

OLD = time.time() - 2 * GRACE


def grown(root: Path, count: int, seed: int = 0) -> Made:
    """A dataset whose versions have `count` samples; each seed has other features."""
    made = make_store(root / "toy", [3] * count, seed=seed)
    published(made)
    return made


def age(root: Path) -> None:
    """Let everything be two days old."""
    for path in root.rglob("*"):
        os.utime(path, (OLD, OLD))


def collected(made: Made, keep: int | None = None, grace: float = GRACE) -> list[str]:
    found = garbage(made.dataset, keep, grace)
    remove(found)
    return [item.why for item in found]


def test_nothing_that_a_version_lists_goes(tmp_path: Path, tree: Callable[[Path], dict[str, bytes]]) -> None:
    made = grown(tmp_path, 8)
    grown(tmp_path, 12)
    age(tmp_path)
    before = tree(tmp_path)
    assert collected(made) == []
    assert tree(tmp_path) == before


def test_old_versions_go_with_what_only_they_used_and_the_rest_is_whole(tmp_path: Path) -> None:
    first = grown(tmp_path, 8)
    shared = set(first.features.version.segments)
    number = first.features.version.number
    last = grown(tmp_path, 12, seed=1)
    assert not shared & set(last.features.version.segments)
    del first
    age(tmp_path)
    assert sorted(set(collected(last, keep=1))) == [
        "a segment no version lists", "a version no dataset version lists", "an index no version lists",
        "an older version", "samples no version lists",
    ]  # fmt: skip
    assert set(last.store.storage.names("segments")) == set(last.features.version.segments)
    assert verify_dataset(last.dataset).sound
    assert verify_store(last.store.storage).sound
    with pytest.raises(NotFound, match="has no version 1; it has 2"):
        open_features(last.path, number)
    assert len(open_dataset(tmp_path, "toy").features("text")) == 12


def test_named_versions_are_kept_by_name(tmp_path: Path) -> None:
    limited = make_store(tmp_path / "toy", [3] * 4)
    published(limited, name="limit-4")
    whole = grown(tmp_path, 8)
    age(tmp_path)
    assert collected(whole, keep=1) == []
    assert open_dataset(tmp_path, "toy", "limit-4").version.number == 1


def test_a_dataset_that_was_swept_takes_versions_of_every_name(tmp_path: Path) -> None:
    published(make_store(tmp_path / "toy", [3] * 4, seed=1), name="limit-4")
    for count in (8, 10, 12):
        made = grown(tmp_path, count)
    collected(made, keep=1, grace=0)
    assert len(os.listdir(tmp_path / "toy" / "versions")) == 2
    published(make_store(tmp_path / "toy", [3] * 5, seed=2), name="limit-5")
    assert len(open_dataset(tmp_path, "toy", "limit-5").features("text")) == 5
    assert len(open_dataset(tmp_path, "toy").features("text")) == 12


def test_what_is_young_stays_unless_told_otherwise(tmp_path: Path) -> None:
    made = make_store(tmp_path / "toy", [3] * 8, version=False)
    (made.path / "segments/.tmp-1-ab").mkdir()
    (made.path / "segments/.tmp-1-ab/half").write_bytes(b"half")
    assert collected(made) == []
    assert sorted(collected(made, grace=0)) == ["a segment no version lists"] * 2 + ["left by a writer that died"]
    assert [path.name for path in made.path.rglob("*") if path.is_file()] == ["store.json"]


def test_clocks_that_jump_cost_nothing_that_is_listed(tmp_path: Path) -> None:
    made = grown(tmp_path, 8)
    for stamp in (0, time.time() + 10 * GRACE):
        for path in tmp_path.rglob("*"):
            os.utime(path, (stamp, stamp))
        assert collected(made) == []
    assert verify_store(made.store.storage).sound


READER = """
import sys
from pgm.cache import open_features
features = open_features(sys.argv[1], 1)
tokens = features[0]
print("open", flush=True)
sys.stdin.read()
assert (features[7] == features[7]).all() and len(features.gather(range(8))[1]) == 8
print("read", flush=True)
"""


def test_a_version_that_another_process_reads_stays_and_goes_when_that_ends(tmp_path: Path) -> None:
    first = grown(tmp_path, 8)
    path = str(first.path)
    del first
    reader = subprocess.Popen([sys.executable, "-c", READER, path], stdin=-1, stdout=-1, text=True)
    assert reader.stdout is not None
    assert reader.stdout.readline() == "open\n"
    last = grown(tmp_path, 12, seed=1)
    age(tmp_path)
    assert set(collected(last, keep=1)) == {"an older version", "samples no version lists"}
    out, _ = reader.communicate("")
    assert (out, reader.returncode) == ("read\n", 0)
    assert "a version no dataset version lists" in collected(last, keep=1)


def test_readers_of_before_keep_their_rows_mapped_and_pickled(tmp_path: Path) -> None:
    first = grown(tmp_path, 8)
    mapped = first.features[3]
    elsewhere = pickle.dumps(first.features)
    last = grown(tmp_path, 12, seed=1)
    age(tmp_path)
    collected(last, keep=1)
    for features in (first.features, pickle.loads(elsewhere)):
        for row in range(8):
            assert np.array_equal(features[row], first.oracle[row])
    assert np.array_equal(mapped, first.oracle[3])


def test_a_version_that_cannot_be_read_stops_it(tmp_path: Path) -> None:
    made = grown(tmp_path, 8)
    flip(made.path / "versions/000001.json", 30)
    with pytest.raises(CorruptStore, match="pgm cache verify"):
        garbage(made.dataset, None, 0)


def test_what_is_not_published_yet_is_not_anybodys_version(tmp_path: Path) -> None:
    made = make_store(tmp_path / "toy", [3] * 8)
    assert collected(made) == []
    assert samples_table(made.ids).num_rows == 8


def test_the_number_of_a_version_that_went_is_not_given_to_another(tmp_path: Path) -> None:
    """Features pickled by their version's number would have other rows when they come back."""
    first = grown(tmp_path, 8)
    unpublished = make_store(tmp_path / "toy", [3] * 9, seed=1)
    elsewhere = pickle.dumps(unpublished.features)
    number = unpublished.features.version.number
    del unpublished
    age(tmp_path)
    collected(first)
    later = make_store(tmp_path / "toy", [3] * 9, seed=2)
    assert later.features.version.number > number
    with suppress(PgMError):
        assert len(pickle.loads(elsewhere).gather(range(9))[1]) == 9
    shutil.rmtree(later.path)
    make_store(tmp_path / "toy", [3] * 9, seed=3)
    make_store(tmp_path / "toy", [3] * 9, seed=4)
    with pytest.raises(NotFound, match="another version 2"):
        pickle.loads(elsewhere)


def test_what_goes_while_an_extraction_counts_on_it_is_not_committed(tmp_path: Path) -> None:
    made = make_store(tmp_path / "toy", [3] * 8, version=False)
    rows = IndexBuilder(4)
    rows.place(np.arange(4), read_segment(made.store.storage, made.store.storage.names("segments")[0]))
    age(tmp_path)
    assert "a segment no version lists" in collected(made)
    with pytest.raises(RunFailed, match="again"):
        made.store.commit(lambda: Draft(rows, ids_digest(made.ids[:4])))
    assert made.store.log.numbers() == []
