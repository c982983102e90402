"""`pgm cache compact`: many small or half-used segments become few full ones, and nothing of the contents changes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pgm.cache import Draft, Features, IndexBuilder, ids_digest, open_dataset, publish
from pgm.cache.dataset.collect import garbage, remove
from pgm.cache.dataset.compact import compact
from pgm.cache.dataset.verify import sample_ids, verify_dataset, verify_store
from pgm.cache.errors import CorruptStore
from pgm.cache.segment import read_segment

from .conftest import CARD, Made, flip, make_store, published, samples_table

LENGTHS = [7, 0, 9, 30, 2, 12, 4, 1, 1, 5]
FAILURES = {4: "cut off", 8: "silent"}


KINDS = [{}, {"format": "hdf5"}, {"codec": "zstd"}, {"stored": "int8"}]


@pytest.mark.parametrize("options", KINDS, ids=str)
@pytest.mark.parametrize("rows", [range(10), [9, 3, 4, 0, 7]], ids=["all", "some, in another order"])
def test_contents_stay_and_the_dataset_lists_the_new_version(
    tmp_path: Path, options: dict[str, Any], rows: Sequence[int]
) -> None:
    made = make_store(tmp_path / "toy", LENGTHS, per_segment=3, failures=FAILURES, **options)
    before = selected(made, rows)
    version = compact(made.store.storage, codec=options.get("codec", "none"))
    assert version is not None
    assert (len(version.segments), version.content, version.counts) == (1, before.content, before.version.counts)
    after = open_dataset(tmp_path, "toy").features("text")
    assert after.version.number == version.number
    assert after.checksums.tolist() == before.checksums.tolist()
    assert np.array_equal(after.index.source, before.index.source)
    assert after.errors() == before.errors()
    items = read_segment(after.store.storage, version.segments[0]).items
    assert list(items.ids) == [made.ids[row] for row in rows if row != 1]
    for row in np.flatnonzero(before.available):
        assert np.array_equal(after[row], before[row])
    assert verify_store(after.store.storage, sample_ids(made.dataset)).sound
    assert verify_dataset(made.dataset).sound
    if "codec" not in options:
        assert compact(after.store.storage) is None


def selected(made: Made, rows: Sequence[int]) -> Features:
    """The features of the dataset at a version that has just these samples."""
    builder, ids = IndexBuilder(len(rows)), [made.ids[row] for row in rows]
    builder.take(np.arange(len(rows)), made.features.index, made.features.version.segments, np.array(rows))
    committed = made.store.commit(lambda: Draft(builder, ids_digest(ids)))
    assert committed is not None
    publish(made.dataset, CARD, samples_table(ids), {made.store.identity.folder: committed.number})
    return open_dataset(made.dataset.parent, made.dataset.name).features("text")


def test_segments_are_as_large_as_asked_for_and_a_sample_never_straddles_them(tmp_path: Path) -> None:
    made = make_store(tmp_path / "toy", [10] * 20, dim=8, per_segment=3)
    published(made)
    version = compact(made.store.storage, segment_bytes=10 * 8 * 2 * 5)
    assert version is not None
    assert [len(read_segment(made.store.storage, name).lengths) for name in version.segments] == [5, 5, 5, 5]


def test_the_way_a_store_came_together_does_not_show_in_the_compact_one(tmp_path: Path) -> None:
    segments = []
    for place, per_segment in (("a", 1), ("b", 3), ("c", 100)):
        made = make_store(tmp_path / place, LENGTHS, per_segment=per_segment, failures=FAILURES)
        published(made)
        version = compact(made.store.storage) or made.features.version
        segments.append(version.segments)
    assert segments[0] == segments[1] == segments[2]


def test_another_format_is_a_new_version_of_the_same_content(tmp_path: Path) -> None:
    made = make_store(tmp_path / "toy", LENGTHS, per_segment=100)
    published(made)
    version = compact(made.store.storage, format="hdf5")
    assert version is not None
    assert version.segments[0].endswith(".h5")
    assert version.content == made.features.content


def test_gc_then_leaves_the_new_segments_only(tmp_path: Path) -> None:
    made = make_store(tmp_path / "toy", LENGTHS, per_segment=1)
    published(made)
    version = compact(made.store.storage)
    storage = made.store.storage
    del made
    assert version is not None
    remove(garbage(storage.parent, 1, 0))
    assert storage.names("segments") == list(version.segments)
    assert np.array_equal(open_dataset(tmp_path, "toy").features("text").lengths, LENGTHS)


def test_damage_is_not_carried_over(tmp_path: Path) -> None:
    made = make_store(tmp_path / "toy", LENGTHS, per_segment=2, format="hdf5")
    published(made)
    [path] = made.segment_files(1)
    flip(path, path.read_bytes().index(made.oracle[3].tobytes()))
    with pytest.raises(CorruptStore, match=r"1 samples of .* are damaged \(clip/3\)"):
        compact(made.store.storage)
    assert made.store.log.numbers() == [1]


def test_a_compaction_that_died_before_the_dataset_listed_it_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_store(tmp_path / "toy", LENGTHS, per_segment=1, failures=FAILURES)
    published(made)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("pgm.cache.dataset.compact.relist", die)
        with pytest.raises(KeyboardInterrupt):
            compact(made.store.storage)
    assert open_dataset(tmp_path, "toy").features("text").version.number == 1
    assert compact(made.store.storage) is None
    features = open_dataset(tmp_path, "toy").features("text")
    assert (features.version.number, len(features.version.segments)) == (2, 1)
    assert features.content == made.features.content


def test_what_is_not_published_is_not_published_by_a_compaction(tmp_path: Path) -> None:
    """An extraction that died between its store's version and its dataset's."""
    first = make_store(tmp_path / "toy", LENGTHS, per_segment=2)
    published(first)
    make_store(tmp_path / "toy", LENGTHS, per_segment=2, seed=1)
    assert compact(first.store.storage) is not None
    assert open_dataset(tmp_path, "toy").features("text").content == first.features.content
