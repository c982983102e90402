"""Extraction end to end on real files: the same bytes whoever runs it, resumption, bad items, what is refused."""

from __future__ import annotations

import gc
import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from pgm.cache import open_dataset
from pgm.cache.errors import SampleUnavailable, TooManyFailures, UserError
from pgm.pipeline import Collection, EncoderSpec, ExtractOptions, StoreOptions, extract, load_dataset
from pgm.pipeline.encoders import FrozenEncoder, build_encoder
from pgm.pipeline.engine.events import Event, Planned, SegmentWritten
from pgm.pipeline.media import FileMedia
from PIL import Image

SERIAL = ExtractOptions(preset="tiny", executor="serial")


def digests(folder: Path) -> dict[str, str]:
    """Every file below a folder, by content, but for the JSON of versions, which says when they were committed."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not (path.parent.name == "versions" and path.suffix == ".json")
    }


@pytest.fixture(scope="module")
def serial_features(few_digits: Collection, tmp_path_factory: pytest.TempPathFactory) -> Path:
    features = tmp_path_factory.mktemp("serial features")
    extract(few_digits, features, SERIAL)
    return features


@pytest.mark.parametrize("workers", [1, 2])
def test_dask_workers_write_the_bytes_that_serial_writes(
    few_digits: Collection, serial_features: Path, tmp_path: Path, workers: int
) -> None:
    extract(few_digits, tmp_path, ExtractOptions(executor="dask", workers=workers))
    assert digests(tmp_path) == digests(serial_features)


def test_while_workers_encode_the_client_holds_no_encoder_and_is_told_what_each_did(
    few_digits: Collection, tmp_path: Path
) -> None:
    held: list[int] = []

    def count() -> int:
        gc.collect()
        return sum(FrozenEncoder in type(thing).__mro__ for thing in gc.get_objects())

    before = count()
    listen = lambda event: held.append(count()) if isinstance(event, SegmentWritten) else None  # noqa: E731
    options = ExtractOptions(executor="dask", workers=1)
    [finished] = extract(few_digits.only(["text"]), tmp_path, options, listen)
    assert held
    assert set(held) == {before}
    [worker] = finished.workers
    assert (worker.samples, worker.segments) == (len(few_digits), len(held))
    assert worker.encode > 0


def test_threads_of_the_process_do_not_change_a_bit(
    few_digits: Collection, serial_features: Path, tmp_path: Path
) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1 if before > 1 else 2)
        extract(few_digits, tmp_path, SERIAL)
    finally:
        torch.set_num_threads(before)
    assert digests(tmp_path) == digests(serial_features)


def test_what_is_read_back_is_what_the_encoder_gives_one_sample_alone(
    few_digits: Collection, serial_features: Path
) -> None:
    dataset = open_dataset(serial_features, "digits")
    for modality in ("text", "audio", "vision"):
        encoder = build_encoder(EncoderSpec(modality))
        store = dataset.features(modality)
        for row in (0, 7, 101, len(few_digits) - 1):
            alone = encoder.encode(encoder.collate([encoder.decode(few_digits.media[modality][row])]))[0]
            # The stored value is rounded to float16: half a unit in the last of its 11 bits.
            np.testing.assert_allclose(store[row].astype(np.float32), alone, rtol=2**-10, atol=2e-5)


def test_both_formats_hold_the_same_numbers(few_digits: Collection, serial_features: Path, tmp_path: Path) -> None:
    extract(few_digits, tmp_path, replace(SERIAL, store=StoreOptions(format="hdf5")))
    for modality in few_digits.media:
        here = open_dataset(tmp_path, "digits").features(modality)
        there = open_dataset(serial_features, "digits").features(modality)
        assert here.identity.digest == there.identity.digest
        assert all(np.array_equal(here[row], there[row]) for row in range(len(few_digits)))


class _Stopped(Exception):
    pass


def test_an_interrupted_run_continues_to_the_same_bytes(
    few_digits: Collection, serial_features: Path, tmp_path: Path
) -> None:
    written: list[Event] = []

    def stop_after_three(event: Event) -> None:
        written.append(event)
        if sum(isinstance(e, SegmentWritten) for e in written) == 3:
            raise _Stopped

    with pytest.raises(_Stopped):
        extract(few_digits, tmp_path, SERIAL, stop_after_three)
    assert not list((tmp_path / "digits").glob("versions/*")), "nothing was published"
    events: list[Event] = []
    extract(few_digits, tmp_path, SERIAL, events.append)
    dataset = open_dataset(tmp_path, "digits")
    segments = sum(len(dataset.features(modality).version.segments) for modality in dataset.modalities)
    new = [event for event in events if isinstance(event, SegmentWritten) and not event.there]
    assert len(new) <= segments - 3, "the pipeline may have written more than was told"
    assert digests(tmp_path) == digests(serial_features)


def test_a_finished_store_is_left_alone(few_digits: Collection, serial_features: Path) -> None:
    before = digests(serial_features)
    events: list[Event] = []
    finished = extract(few_digits, serial_features, SERIAL, events.append)
    assert all(store.reused for store in finished)
    assert not any(isinstance(event, SegmentWritten) for event in events)
    assert digests(serial_features) == before


def test_another_encoder_setting_makes_a_store_beside_the_old_one(few_digits: Collection, tmp_path: Path) -> None:
    text = few_digits.only(["text"])
    extract(text, tmp_path, SERIAL)
    pooled = replace(SERIAL, encoders={"text": EncoderSpec("text", pooling="mean")})
    extract(text, tmp_path, pooled)
    dataset = open_dataset(tmp_path, "digits")
    assert len(dataset.stores) == 2
    with pytest.raises(UserError, match="--store text="):
        dataset.features("text")
    lengths = {
        store.identity.fields["pooling"]: dataset.features("text", folder).lengths
        for folder, store in dataset.stores.items()
    }
    assert lengths["mean"].max() == 1
    assert lengths["none"].max() > 3


def with_bad_items(collection: Collection, folder: Path) -> Collection:
    """The collection with its first image garbage, its second missing, its third not in the dataset."""
    garbage = folder / "garbage.png"
    garbage.write_bytes(b"this is no image")
    sources = list(collection.media["vision"])
    sources[:3] = [FileMedia(str(garbage)), FileMedia(str(folder / "nowhere.png")), None]
    return replace(collection, media={"vision": sources})


def test_bad_items_are_recorded_with_their_reason_and_the_rest_goes_on(few_digits: Collection, tmp_path: Path) -> None:
    bad = with_bad_items(few_digits, tmp_path)
    [finished] = extract(bad, tmp_path / "features", replace(SERIAL, max_failures=0.05))
    assert finished.failed == 2
    store = open_dataset(tmp_path / "features", "digits").features("vision")
    assert store.status[:4].tolist() == ["failed", "failed", "missing", "ok"]
    assert "neither an image nor a video" in store.error(0)
    assert "file not found" in store.error(1)
    with pytest.raises(SampleUnavailable):
        store[0]
    assert store[3].shape == (17, 128)


def test_too_many_bad_items_stop_the_run_and_say_which(few_digits: Collection, tmp_path: Path) -> None:
    bad = with_bad_items(few_digits, tmp_path)
    with pytest.raises(TooManyFailures, match=r"nowhere\.png: file not found"):
        extract(bad, tmp_path / "features", replace(SERIAL, max_failures=0.0))


def test_what_cannot_fit_is_refused_with_both_numbers(
    few_digits: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(UserError, match=r"needs about [\d,]+ bytes .* 1,000 are free"):
        extract(few_digits, tmp_path, SERIAL)


def test_source_digests_are_kept(few_digits: Collection, serial_features: Path) -> None:
    for modality, sources in few_digits.media.items():
        source = open_dataset(serial_features, "digits").features(modality).index.source
        assert [row.tobytes().hex() for row in source] == [media.digest() for media in sources if media is not None]


def test_a_store_says_that_its_weights_are_random(serial_features: Path) -> None:
    for store in open_dataset(serial_features, "digits").stores.values():
        assert store.identity.fields["random_weights"] is True


def test_av_mnist_pairs_go_through(av_root: Path, tmp_path: Path) -> None:
    finished = extract(load_dataset("av_mnist", av_root), tmp_path, SERIAL)
    assert {store.modality: store.samples for store in finished} == {"audio": 140, "vision": 140}
    assert all(store.failed == 0 for store in finished)


def test_features_are_named_by_the_bytes_they_were_made_from(tmp_path: Path, few_digits: Collection) -> None:
    """A source that changes between the plan and its turn is encoded as it is then, under the digest it has then."""
    text = few_digits.only(["text"]).take(np.arange(20))
    moved = tmp_path / "one.txt"
    moved.write_text("seven")
    text = replace(text, media={"text": [FileMedia(str(moved)), *text.media["text"][1:]]})

    def change(event: Event) -> None:
        if isinstance(event, Planned):
            moved.write_text("eight")

    extract(text, tmp_path, SERIAL, change)
    features = open_dataset(tmp_path, "digits", text.version).features("text")
    assert features.index.source[0].tobytes().hex() == FileMedia(str(moved)).digest()
    extract(text, tmp_path / "again", SERIAL)
    assert features.content == open_dataset(tmp_path / "again", "digits", text.version).features("text").content


def test_16_bit_stereo_sound_and_palette_images_pass_through(few_digits: Collection, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "stereo.wav", np.zeros((4000, 2)) + 0.1, 44_100, subtype="PCM_16")
    Image.new("P", (20, 30), 3).save(tmp_path / "palette.png")
    one = few_digits.take(np.arange(1))
    one = replace(
        one,
        media={
            "audio": [FileMedia(str(tmp_path / "stereo.wav"))],
            "vision": [FileMedia(str(tmp_path / "palette.png"))],
        },
    )
    assert [store.failed for store in extract(one, tmp_path / "features", SERIAL)] == [0, 0]
