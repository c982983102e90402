"""Rerunning: what is there is checked and kept, what is new, changed or damaged is made, nothing is rewritten."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pgm.cache import Features, open_dataset
from pgm.cache.dataset.verify import verify_store
from pgm.cache.errors import CorruptStore, TooManyFailures
from pgm.pipeline import Collection, ExtractOptions, StoreOptions, extract, media
from pgm.pipeline.engine.events import Event, Finished, Note, Planned, SegmentWritten
from pgm.pipeline.media import FileMedia
from PIL import Image

SERIAL = ExtractOptions(executor="serial", max_failures=0.5)


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
    return replace(few_digits, media={"vision": copies}, version="")


def run(collection: Collection, features: Path, options: ExtractOptions = SERIAL) -> list[Event]:
    events: list[Event] = []
    extract(collection, features, options, events.append)
    return events


def planned(events: list[Event]) -> Planned:
    return next(event for event in events if isinstance(event, Planned))


def finished(events: list[Event]) -> Finished:
    return next(event for event in events if isinstance(event, Finished))


def written(events: list[Event]) -> list[SegmentWritten]:
    return [event for event in events if isinstance(event, SegmentWritten)]


def store(features: Path, version: int | str | None = None) -> Features:
    return open_dataset(features, "digits", version).features("vision")


def path_of(images: Collection, row: int) -> Path:
    source = images.media["vision"][row]
    assert isinstance(source, FileMedia)
    return Path(source.path)


@pytest.mark.parametrize("options", [StoreOptions(), StoreOptions("hdf5"), StoreOptions(stored="int8")], ids=str)
def test_a_store_that_grew_is_the_one_made_in_one_go_and_wrote_what_was_new(
    images: Collection, tmp_path: Path, options: StoreOptions
) -> None:
    chosen = replace(SERIAL, store=options)
    run(images.take(np.arange(118)), tmp_path / "features", chosen)
    before = store(tmp_path / "features")
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "features").rglob("*") if path.is_file()}
    events = run(images, tmp_path / "features", chosen)
    assert (planned(events).held, planned(events).pending) == (118, 12)
    assert all(path.stat().st_mtime_ns == moment for path, moment in files.items()), "nothing is rewritten"
    run(images, tmp_path / "whole", chosen)
    grown, whole = store(tmp_path / "features"), store(tmp_path / "whole")
    assert grown.content == whole.content
    assert np.array_equal(grown.checksums, whole.checksums)
    assert finished(events).bytes < 0.15 * whole.version.written["bytes"]
    assert len(before) == 118, "an open reader keeps its version"
    assert np.array_equal(before[117], grown[117])


def test_formats_mix_in_a_store(images: Collection, tmp_path: Path) -> None:
    run(images.take(np.arange(90)), tmp_path / "features")
    run(images, tmp_path / "features", replace(SERIAL, store=StoreOptions("hdf5")))
    mixed = store(tmp_path / "features")
    assert {Path(name).suffix for name in mixed.version.segments} == {".zarr", ".h5"}
    run(images, tmp_path / "whole", replace(SERIAL, store=StoreOptions(codec="zstd")))
    assert mixed.content == store(tmp_path / "whole").content
    assert np.array_equal(mixed.gather(np.arange(130))[0], store(tmp_path / "whole").gather(np.arange(130))[0])


def test_other_orders_and_parts_of_a_dataset_encode_nothing(images: Collection, tmp_path: Path) -> None:
    run(images, tmp_path / "features")
    events = run(images.take(np.arange(130)[::-2]), tmp_path / "features")
    assert not written(events)
    assert store(tmp_path / "features").version.samples == 65


def test_a_changed_source_is_encoded_again_and_nothing_else(images: Collection, tmp_path: Path) -> None:
    run(images, tmp_path / "features")
    before = store(tmp_path / "features")
    Image.new("L", (56, 56), 200).save(path_of(images, 17))
    events = run(images, tmp_path / "features")
    assert planned(events).pending == 1
    assert [event.samples for event in written(events)] == [1]
    after = store(tmp_path / "features")
    assert np.flatnonzero(before.checksums != after.checksums).tolist() == [17]
    assert after.index.source[17].tobytes().hex() == FileMedia(str(path_of(images, 17))).digest()
    again = finished(run(images, tmp_path / "features"))
    assert again.reused
    assert again.version == after.version.number, "nothing new, no version"


def test_a_touched_but_unchanged_source_changes_nothing(images: Collection, tmp_path: Path) -> None:
    run(images, tmp_path / "features")
    for row in range(len(images)):
        os.utime(path_of(images, row), (1, 1))
    assert finished(run(images, tmp_path / "features")).reused


def break_two(images: Collection) -> tuple[bytes, bytes]:
    """Take the file of row 3 away and spoil that of row 8; what they were."""
    whole = path_of(images, 3).read_bytes(), path_of(images, 8).read_bytes()
    path_of(images, 3).unlink()
    path_of(images, 8).write_bytes(b"garbage")
    return whole


def test_failed_items_stay_failed_until_they_are_tried_again(images: Collection, tmp_path: Path) -> None:
    break_two(images)
    assert finished(run(images, tmp_path / "features")).failed == 2
    first = store(tmp_path / "features")
    again = run(images, tmp_path / "features")
    assert not written(again)
    assert finished(again).reused
    tried = run(images, tmp_path / "features", replace(SERIAL, retry_failed=True))
    assert planned(tried).pending == 2
    assert finished(tried).failed == 2
    assert finished(tried).reused, "they failed again for the same reasons: nothing to commit"
    assert store(tmp_path / "features").version == first.version
    assert "file not found" in first.error(3)


def test_retry_failed_redoes_the_failed_alone(images: Collection, tmp_path: Path) -> None:
    whole = break_two(images)
    run(images, tmp_path / "features")
    path_of(images, 3).write_bytes(whole[0])
    assert planned(run(images, tmp_path / "features")).pending == 1, "a file that came back is another source"
    run(images, tmp_path / "features", replace(SERIAL, retry_failed=True))
    path_of(images, 8).write_bytes(whole[1])
    last = run(images, tmp_path / "features", replace(SERIAL, retry_failed=True))
    assert finished(last).failed == 0
    run(images, tmp_path / "never failed")
    assert store(tmp_path / "features").content == store(tmp_path / "never failed").content


def test_an_item_that_failed_for_a_passing_reason_is_encoded_by_a_retry(
    images: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, inode = path_of(images, 8).read_bytes(), path_of(images, 8).stat().st_ino
    with monkeypatch.context() as patched:
        exactly = media._exactly
        failing = lambda file, size: b"" if os.fstat(file).st_ino == inode else exactly(file, size)  # noqa: E731
        patched.setattr(media, "_exactly", failing)
        assert finished(run(images, tmp_path / "features")).failed == 1
    assert path_of(images, 8).read_bytes() == bad
    events = run(images, tmp_path / "features", replace(SERIAL, retry_failed=True))
    assert (planned(events).pending, finished(events).failed) == (1, 0)
    run(images, tmp_path / "never failed")
    assert store(tmp_path / "features").content == store(tmp_path / "never failed").content


def test_failures_of_earlier_runs_count(images: Collection, tmp_path: Path) -> None:
    """Two of 130 are bad, and no run sees both as its own."""
    strict = replace(SERIAL, max_failures=0.01)
    break_two(images)
    with pytest.raises(TooManyFailures, match="2 of 130"):
        run(images, tmp_path / "features", strict)
    assert not (tmp_path / "features" / "digits" / "versions").exists()
    with pytest.raises(TooManyFailures, match="2 of 130"):
        run(images, tmp_path / "features", strict)
    run(images, tmp_path / "features")
    with pytest.raises(TooManyFailures, match=r"2 of 130 [\s\S]*file not found"):
        run(images, tmp_path / "features", strict)


def test_an_aborted_growth_leaves_the_old_dataset_in_force(images: Collection, tmp_path: Path) -> None:
    run(images.take(np.arange(20)), tmp_path / "features")
    for row in range(20, 60):
        path_of(images, row).write_bytes(b"garbage")
    with pytest.raises(TooManyFailures):
        run(images, tmp_path / "features", replace(SERIAL, max_failures=0.1))
    dataset = open_dataset(tmp_path / "features", "digits")
    assert len(dataset.samples) == len(dataset.features("vision")) == 20
    assert dataset.version.number == 1


def test_a_limited_extraction_shadows_nothing_and_lends_what_it_encoded(images: Collection, tmp_path: Path) -> None:
    features = tmp_path / "features"
    events = run(images.limited(50), features)
    assert any(isinstance(event, Note) and "version 'limit-50'" in event.text for event in events)
    assert len(store(features)) == 50, "all there is"
    full = run(images, features)
    assert planned(full).held == 50
    run(images.limited(30), features)
    assert len(store(features)) == 130
    assert len(store(features, "limit-30")) == 30
    assert len(store(features, "limit-50")) == 50
    assert open_dataset(features, "digits", "limit-50").version.name == "limit-50"


def segment_files(features: Path) -> list[Path]:
    return sorted(path for path in features.glob("digits/vision*/segments/*/tokens/c/0/0"))


@pytest.mark.parametrize("harm", ["flip", "truncate", "remove"])
def test_damaged_samples_are_made_again_and_it_is_said(images: Collection, tmp_path: Path, harm: str) -> None:
    features = tmp_path / "features"
    run(images, features)
    before = store(features)
    file = segment_files(features)[0]
    whole = file.read_bytes()
    if harm == "flip":
        file.write_bytes(whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:])
    elif harm == "truncate":
        file.write_bytes(whole[:-7])
    else:
        file.unlink()
    events = run(images, features)
    assert any(isinstance(event, Note) and "not as they were written" in event.text for event in events)
    [made] = written(events)
    assert planned(events).pending == made.samples, "all samples of the segment, and no others"
    after = store(features)
    assert after.version == before.version, "the segment has its bytes again, under its name"
    assert file.read_bytes() == whole
    assert verify_store(after.store.storage).sound
    assert finished(run(images, features)).reused


def test_a_damaged_segment_of_a_run_that_died_is_not_used(images: Collection, tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(event: Event) -> None:
        if isinstance(event, SegmentWritten):
            raise Stopped

    features = tmp_path / "features"
    with pytest.raises(Stopped):
        extract(images, features, SERIAL, stop)
    # One was told of; the pipeline may have written more.
    for file in segment_files(features):
        content = bytearray(file.read_bytes())
        content[100] ^= 1
        file.write_bytes(content)
    events = run(images, features)
    assert not any(event.there for event in written(events))
    assert verify_store(store(features).store.storage).sound
    run(images, tmp_path / "whole")
    assert store(features).content == store(tmp_path / "whole").content


def test_a_damaged_index_is_refused_with_the_way_out(images: Collection, tmp_path: Path) -> None:
    run(images, tmp_path / "features")
    [index] = (tmp_path / "features").glob("digits/vision*/versions/*.index")
    index.write_bytes(b"not what it was")
    with pytest.raises(CorruptStore, match="pgm cache verify"):
        run(images, tmp_path / "features")


def test_a_finished_store_is_sound(images: Collection, tmp_path: Path) -> None:
    run(images, tmp_path / "features")
    assert verify_store(store(tmp_path / "features").store.storage).sound
