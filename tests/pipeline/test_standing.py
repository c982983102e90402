"""Rerunning: what is there is checked, what is unchanged is kept, what changed, failed or was damaged is done again."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pgm.cache import open_dataset
from pgm.cache.errors import CorruptStore
from pgm.cache.verify import verify
from pgm.pipeline import Collection, ExtractOptions, extract
from pgm.pipeline.events import Event, Finished, Note, Planned, ShardWritten
from pgm.pipeline.media import FileMedia
from pgm.pipeline.standing import REPLACED, REPLACING
from PIL import Image

SERIAL = ExtractOptions(preset="tiny", executor="serial", max_failures=0.5)


@pytest.fixture
def images(few_digits: Collection, tmp_path: Path) -> Collection:
    """The few digits' images alone, as copies that a test may change."""
    folder = tmp_path / "images"
    folder.mkdir()
    copies = []
    for source in few_digits.media["vision"]:
        assert isinstance(source, FileMedia)
        copy = folder / Path(source.path).name
        copy.write_bytes(Path(source.path).read_bytes())
        copies.append(FileMedia(str(copy)))
    return replace(few_digits, media={"vision": copies})


def run(collection: Collection, features: Path, options: ExtractOptions = SERIAL) -> list[Event]:
    events: list[Event] = []
    extract(collection, features, options, events.append)
    return events


def planned(events: list[Event]) -> Planned:
    return next(event for event in events if isinstance(event, Planned))


def finished(events: list[Event]) -> Finished:
    return next(event for event in events if isinstance(event, Finished))


def tokens(features: Path) -> list[np.ndarray]:
    store = open_dataset(features, "digits").features("vision")
    return [np.array(store[row]) for row in range(len(store))]


def test_a_grown_dataset_reuses_the_features_of_unchanged_samples(images: Collection, tmp_path: Path) -> None:
    run(images.take(np.arange(90)), tmp_path / "features")
    before = tokens(tmp_path / "features")
    events = run(images, tmp_path / "features")
    assert planned(events).reused == 90
    after = tokens(tmp_path / "features")
    assert all(np.array_equal(before[row], after[row]) for row in range(90))
    run(images, tmp_path / "from scratch")
    for here, there in zip(after, tokens(tmp_path / "from scratch"), strict=True):
        np.testing.assert_allclose(here.astype(np.float32), there.astype(np.float32), rtol=2**-9, atol=1e-4)


def test_a_changed_source_is_encoded_again_and_nothing_else(images: Collection, tmp_path: Path) -> None:
    run(images, tmp_path / "features")
    before = tokens(tmp_path / "features")
    changed = images.media["vision"][17]
    assert isinstance(changed, FileMedia)
    Image.new("L", (56, 56), 200).save(changed.path)
    events = run(images, tmp_path / "features")
    assert any(isinstance(event, Note) and "1 changed or failed" in event.text for event in events)
    assert planned(events).reused == len(images) - 1
    after = tokens(tmp_path / "features")
    assert [row for row in range(len(images)) if not np.array_equal(before[row], after[row])] == [17]
    store = open_dataset(tmp_path / "features", "digits").features("vision")
    assert store.items.source[17] == changed.digest()
    assert finished(run(images, tmp_path / "features")).reused


def test_a_touched_but_unchanged_source_changes_nothing(images: Collection, tmp_path: Path) -> None:
    run(images, tmp_path / "features")
    for source in images.media["vision"]:
        assert isinstance(source, FileMedia)
        os.utime(source.path, (1, 1))
    assert finished(run(images, tmp_path / "features")).reused


def test_retry_failed_redoes_the_failed_alone(images: Collection, tmp_path: Path) -> None:
    missing, garbage = (images.media["vision"][row] for row in (3, 8))
    assert isinstance(missing, FileMedia)
    assert isinstance(garbage, FileMedia)
    whole = Path(missing.path).read_bytes(), Path(garbage.path).read_bytes()
    Path(missing.path).unlink()
    Path(garbage.path).write_bytes(b"garbage")
    assert finished(run(images, tmp_path / "features")).failed == 2
    again = run(images, tmp_path / "features")
    assert finished(again).reused
    assert finished(again).failed == 2
    Path(garbage.path).write_bytes(whole[1])
    Path(missing.path).write_bytes(whole[0])
    events = run(images, tmp_path / "features", replace(SERIAL, retry_failed=True))
    assert finished(events).failed == 0
    assert planned(events).reused == len(images) - 2
    run(images, tmp_path / "never failed")
    for here, there in zip(tokens(tmp_path / "features"), tokens(tmp_path / "never failed"), strict=True):
        np.testing.assert_allclose(here.astype(np.float32), there.astype(np.float32), rtol=2**-9, atol=1e-4)


def test_retry_failed_with_nothing_mended_keeps_the_store(images: Collection, tmp_path: Path) -> None:
    garbage = images.media["vision"][8]
    assert isinstance(garbage, FileMedia)
    Path(garbage.path).write_bytes(b"garbage")
    run(images, tmp_path / "features")
    events = run(images, tmp_path / "features", replace(SERIAL, retry_failed=True))
    assert finished(events).failed == 1
    assert verify(Path(finished(events).store)).sound


def shard_files(store: Path) -> list[Path]:
    return sorted(path for path in (store / "features.zarr" / "tokens" / "c").rglob("*") if path.is_file())


@pytest.mark.parametrize("harm", ["flip", "truncate", "remove"])
def test_a_damaged_shard_of_a_finished_store_is_written_again(images: Collection, tmp_path: Path, harm: str) -> None:
    store = Path(finished(run(images, tmp_path / "features")).store)
    shard = shard_files(store)[1]
    whole = shard.read_bytes()
    if harm == "flip":
        shard.write_bytes(whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:])
    elif harm == "truncate":
        shard.write_bytes(whole[:-7])
    else:
        shard.unlink()
    events = run(images, tmp_path / "features")
    assert [event.shard for event in events if isinstance(event, ShardWritten)] == [1]
    assert shard.read_bytes() == whole
    assert verify(store).sound


def test_damage_beyond_the_shards_is_refused_with_the_way_out(images: Collection, tmp_path: Path) -> None:
    store = Path(finished(run(images, tmp_path / "features")).store)
    (store / "items.parquet").write_bytes(b"not what it was")
    with pytest.raises(CorruptStore, match="pgm cache rm"):
        run(images, tmp_path / "features")


@pytest.mark.parametrize("broken_at", ["before the first rename", "between the renames", "before the sweep"])
def test_a_swap_that_was_broken_off_is_completed(images: Collection, tmp_path: Path, broken_at: str) -> None:
    """The three moments a process can die while a renewed store takes the old one's place."""
    store = Path(finished(run(images, tmp_path / "features")).store)
    other = Path(finished(run(images, tmp_path / "other")).store)
    beside, aside = store.parent / REPLACING / store.name, store.parent / REPLACED / store.name
    for folder in (beside.parent, aside.parent):
        folder.mkdir()
    if broken_at == "before the first rename":
        os.rename(other, beside)
    elif broken_at == "between the renames":
        os.rename(store, aside)
        os.rename(other, beside)
    else:
        os.rename(other, aside)
    assert finished(run(images, tmp_path / "features")).reused
    assert verify(store).sound
    assert not aside.exists()
    assert len(open_dataset(tmp_path / "features", "digits").stores) == 1
