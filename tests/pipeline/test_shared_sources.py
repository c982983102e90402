"""Several samples of one source, as a photograph with five captions: encoded once, and each reads as if alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pgm.cache import DatasetCard, Features, open_dataset
from pgm.cache.dataset.collect import garbage, remove
from pgm.cache.dataset.compact import compact
from pgm.cache.dataset.verify import verify_store
from pgm.pipeline import Collection, ExtractOptions, extract
from pgm.pipeline.encoders.vision import VisionEncoder
from pgm.pipeline.engine.events import Event, Finished, Planned, SegmentWritten
from pgm.pipeline.media import FileMedia
from PIL import Image

PHOTOS, CAPTIONS = 12, 5
OPTIONS = ExtractOptions(executor="serial", preset="tiny", max_failures=1.0)


def photographs(folder: Path, *, apart: bool = False) -> Collection:
    """Each photograph in five samples, that are not neighbours; apart: each sample with a copy of its own."""
    folder.mkdir(exist_ok=True)
    sources = []
    for row in range(PHOTOS * CAPTIONS):
        photo = row % PHOTOS
        path = folder / (f"{row}.png" if apart else f"{photo}.png")
        if not path.exists():
            pixels = np.random.default_rng(photo).integers(0, 256, (20, 30, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(path)
        sources.append(FileMedia(str(path)))
    samples = pa.table({"id": [f"{row:03d}" for row in range(len(sources))], "split": ["train"] * len(sources)})
    return Collection(DatasetCard("photos", "retrieval", (), ()), samples, {"vision": sources})


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the pictures that are decoded to be encoded, once planning has looked at some."""
    names: list[str] = []
    decode = VisionEncoder.decode

    def counted(self: VisionEncoder, media: FileMedia) -> object:
        names.append(media.name)
        return decode(self, media)

    monkeypatch.setattr(VisionEncoder, "decode", counted)
    return names


def run(collection: Collection, features: Path, options: ExtractOptions = OPTIONS) -> list[Event]:
    events: list[Event] = []
    extract(collection, features, options, events.append)
    return events


def finished(events: list[Event]) -> Finished:
    return next(event for event in events if isinstance(event, Finished))


def planned(events: list[Event]) -> Planned:
    return next(event for event in events if isinstance(event, Planned))


def store(features: Path) -> Features:
    return open_dataset(features, "photos").features("vision")


def test_one_picture_in_five_samples_is_encoded_once(tmp_path: Path, decoded: list[str]) -> None:
    events = run(photographs(tmp_path / "photos"), tmp_path / "features")
    assert sorted(decoded) == sorted(f"{photo}.png" for photo in range(PHOTOS))
    assert (planned(events).pending, planned(events).distinct) == (PHOTOS * CAPTIONS, PHOTOS)
    assert sum(event.samples for event in events if isinstance(event, SegmentWritten)) == PHOTOS * CAPTIONS
    assert finished(events).encoded == PHOTOS
    run(photographs(tmp_path / "copies", apart=True), tmp_path / "each")
    shared, each = store(tmp_path / "features"), store(tmp_path / "each")
    assert shared.content == each.content
    assert np.array_equal(shared.gather(np.arange(60))[0], each.gather(np.arange(60))[0])
    assert shared.version.written["bytes"] < each.version.written["bytes"] / 4
    decoded.clear()
    assert finished(run(photographs(tmp_path / "photos"), tmp_path / "features")).reused
    assert not decoded


def test_a_picture_that_cannot_be_decoded_is_a_failure_of_all_its_samples(tmp_path: Path, decoded: list[str]) -> None:
    collection = photographs(tmp_path / "photos")
    (tmp_path / "photos" / "3.png").write_bytes(b"no picture")
    (tmp_path / "photos" / "4.png").unlink()
    events = run(collection, tmp_path / "features")
    assert finished(events).failed == 2 * CAPTIONS
    features = store(tmp_path / "features")
    reasons = {features.error(row) for row in range(3, PHOTOS * CAPTIONS, PHOTOS)}
    assert len(reasons) == 1
    assert "3.png" in reasons.pop()
    again = finished(run(collection, tmp_path / "features"))
    assert again.reused, "none of them is tried again"
    tried = run(collection, tmp_path / "features", replace(OPTIONS, retry_failed=True))
    assert (planned(tried).pending, planned(tried).distinct) == (2 * CAPTIONS, 2)
    assert finished(tried).reused
    Image.new("RGB", (20, 30)).save(tmp_path / "photos" / "3.png")
    assert finished(run(collection, tmp_path / "features")).failed == CAPTIONS
    fewer = collection.take(np.arange(5, PHOTOS * CAPTIONS))  # without the samples that the failure was written under
    assert finished(run(fewer, tmp_path / "features")).failed == CAPTIONS - 1


def test_what_is_shared_stays_shared_and_sound_through_growth_compaction_and_collection(tmp_path: Path) -> None:
    collection = photographs(tmp_path / "photos")
    run(collection.take(np.arange(20)), tmp_path / "features")
    events = run(collection, tmp_path / "features")
    assert planned(events).pending == 0, "the others' pictures are there"
    Image.new("RGB", (20, 30)).save(tmp_path / "photos" / "7.png")
    run(collection, tmp_path / "features")
    before = store(tmp_path / "features")
    assert compact(before.store.storage) is not None
    after = store(tmp_path / "features")
    assert after.content == before.content
    assert after.version.written["bytes"] < 2 * PHOTOS * before.lengths[0] * before.dim * 2, "and none is written twice"
    assert compact(before.store.storage) is None, "it is compact now"
    remove(garbage(open_dataset(tmp_path / "features", "photos").storage))
    assert verify_store(after.store.storage).sound
    assert np.array_equal(after.gather(np.arange(60))[0], before.gather(np.arange(60))[0])
    assert finished(run(collection, tmp_path / "features")).reused
