"""Whatever an item does in decoding or encoding is that item's failure, and costs the others nothing, not one bit."""

from __future__ import annotations

import io
import struct
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pgm.cache import storage_at
from pgm.cache.errors import RunFailed, UserError
from pgm.cache.segment import open_segment
from pgm.cache.store import Store
from pgm.pipeline import encode
from pgm.pipeline.decode import DecodeError
from pgm.pipeline.encoders import EncoderSpec, FrozenEncoder, build_encoder
from pgm.pipeline.encoders.copying import Encoded
from pgm.pipeline.engine import decoders, worker
from pgm.pipeline.engine.decoders import DECODED_TOGETHER
from pgm.pipeline.engine.job import Job, Task, encoder_identity
from pgm.pipeline.engine.options import StoreOptions
from pgm.pipeline.engine.worker import Pipeline
from pgm.pipeline.media import FileMedia, Media, TextMedia
from PIL import Image

COUNT = 7
Edit = Callable[[list[np.ndarray]], list[np.ndarray]]


@pytest.fixture
def encoder() -> FrozenEncoder:
    return build_encoder(EncoderSpec("vision"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Media]:
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number in range(COUNT):
        Image.fromarray(rng.integers(0, 256, (40, 32, 3)).astype(np.uint8)).save(folder / f"{number}.png")
    return [FileMedia(str(folder / f"{number}.png")) for number in range(COUNT)]


def run(encoder: FrozenEncoder, media: Sequence[Media], stored: Any = "float32", size: int = COUNT) -> list[Any]:
    """Tokens or reason of each item, in batches of `size`, as a worker's pipeline writes them."""
    encoder.batch_size = size
    options = StoreOptions(stored=stored)
    with tempfile.TemporaryDirectory() as folder:
        identity = encoder_identity(encoder, options)
        store = Store.create(storage_at(folder), identity, encoder.dim, stored).storage
        tasks = iter([Task(0, [str(row) for row in range(len(media))], media)])
        [made] = Pipeline(Job(store, identity, encoder.spec, options), encoder, lambda _: next(tasks, None)).run()
        tokens = np.asarray(open_segment(store, made.segment.name, stored, encoder.dim).tokens)
    ends = np.cumsum(made.segment.lengths)
    items = [tokens[end - length : end].copy() for end, length in zip(ends, made.segment.lengths, strict=True)]
    return [why or item for why, item in zip(made.segment.items.errors, items, strict=True)]


def poisoned(encoder: FrozenEncoder, monkeypatch: pytest.MonkeyPatch, media: Media, error: Exception) -> list[int]:
    """Let the forward pass raise wherever this item is in the batch; returns the list that takes each batch's size."""
    mark, forward, sizes = encoder.decode(media), encoder.start, []

    def fail(batch: dict[str, torch.Tensor]) -> Encoded:
        sizes.append(len(batch["pixel_values"]))
        if any(np.array_equal(row, mark[0]) for row in batch["pixel_values"].numpy()):
            raise error
        return forward(batch)

    monkeypatch.setattr(encoder, "start", fail)
    return sizes


def same(found: list[Any], expected: list[Any], but: int) -> None:
    """All items but one have exactly the bytes they have where nothing fails."""
    for row, (tokens, whole) in enumerate(zip(found, expected, strict=True)):
        if row != but:
            np.testing.assert_array_equal(tokens, whole)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        NotImplementedError("Unimplemented pixel format"),
        AttributeError("'NoneType' object has no attribute 'rate'"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        struct.error("unpack requires 4 bytes"),
        RecursionError("maximum recursion depth exceeded"),
        ZeroDivisionError(),
        DecodeError("not an image"),
        OSError("broken\ndata stream"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_decoding_raises_is_the_items_failure_and_changes_no_other(
    encoder: FrozenEncoder, pictures: list[Media], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    expected, decode = run(encoder, pictures), encoder.decode

    def fail(media: Media) -> Any:
        if media.name == pictures[-1].name:
            raise error
        return decode(media)

    monkeypatch.setattr(encoder, "decode", fail)
    found = run(encoder, pictures)
    kind = "not an image" if isinstance(error, DecodeError) else type(error).__name__
    assert found[-1].startswith(f"{COUNT - 1}.png: {kind}")
    assert "\n" not in found[-1]
    same(found, expected, but=COUNT - 1)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_being_stopped_is_no_items_failure(
    encoder: FrozenEncoder, pictures: list[Media], monkeypatch: pytest.MonkeyPatch, stop: type[BaseException]
) -> None:
    def fail(media: Media) -> Any:
        raise stop

    monkeypatch.setattr(encoder, "decode", fail)
    with pytest.raises(stop):
        run(encoder, pictures)


def test_a_batch_out_of_memory_is_halved_until_it_fits(
    encoder: FrozenEncoder, pictures: list[Media], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, forward, sizes = run(encoder, pictures), encoder.start, []

    def small_only(batch: dict[str, torch.Tensor]) -> Encoded:
        sizes.append(len(batch["pixel_values"]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(batch)

    monkeypatch.setattr(encoder, "start", small_only)
    for tokens, whole in zip(run(encoder, pictures), expected, strict=True):
        np.testing.assert_allclose(tokens, whole, atol=1e-5)
    assert sizes == [8, 4, 2, 2, 4, 2, 2], "seven items and a copy"


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()], ids=["torch", "host"])
def test_one_item_too_large_for_memory_is_its_own_failure(
    encoder: FrozenEncoder, pictures: list[Media], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    poisoned(encoder, monkeypatch, pictures[3], error)
    found = run(encoder, pictures)
    assert found[3].startswith(f"3.png: {type(error).__name__}")
    assert all(isinstance(found[row], np.ndarray) for row in range(COUNT) if row != 3)


def test_a_poisonous_item_costs_only_itself_and_no_bit_of_the_others(
    encoder: FrozenEncoder, pictures: list[Media], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run(encoder, pictures)
    sizes = poisoned(encoder, monkeypatch, pictures[2], ValueError("cannot reshape"))
    found = run(encoder, pictures)
    assert found[2] == "2.png: ValueError: cannot reshape"
    same(found, expected, but=2)
    assert sizes[0] == sizes[-1] == 8, "the others are encoded once more as a whole batch"


@pytest.mark.parametrize(
    ("value", "stored", "why"),
    [
        (np.nan, "float16", "gave NaN in token 1; float16 holds finite values"),
        (np.inf, "float32", "gave infinity in token 1; float32 holds finite values"),
        (-7e4, "float16", "gave a value of 70000 in token 1; float16 holds at most 65504: --store float32"),
        (-7e4, "float32", None),
    ],
)
def test_what_the_store_cannot_hold_is_that_items_failure(
    encoder: FrozenEncoder,
    pictures: list[Media],
    monkeypatch: pytest.MonkeyPatch,
    value: float,
    stored: str,
    why: str | None,
) -> None:
    expected, forward = run(encoder, pictures, stored), encoder.start

    def spoil(batch: dict[str, torch.Tensor]) -> Encoded:
        started = forward(batch)
        tokens = started.tokens.clone()
        tokens[4 * started.lengths[0] + 1, 5] = value
        return replace(started, tokens=tokens)

    monkeypatch.setattr(encoder, "start", spoil)
    found = run(encoder, pictures, stored)
    assert isinstance(found[4], np.ndarray) if why is None else found[4] == f"4.png: tiny-clip {why}"
    same(found, expected, but=4)


@pytest.mark.parametrize("works", [0, 1])
def test_a_broken_encoder_stops_the_run_whenever_it_breaks(
    encoder: FrozenEncoder, pictures: list[Media], monkeypatch: pytest.MonkeyPatch, works: int
) -> None:
    forward, calls = encoder.start, iter(range(1000))

    def fail(batch: dict[str, torch.Tensor]) -> Encoded:
        if next(calls) >= works:
            raise RuntimeError("CUDA error: device-side assert triggered")
        return forward(batch)

    monkeypatch.setattr(encoder, "start", fail)
    with pytest.raises(RunFailed, match=r"tiny-clip fails on every item.*device-side assert.*none is recorded"):
        run(encoder, pictures * 2)


def test_items_that_all_fail_in_a_sound_encoder_are_failures(
    encoder: FrozenEncoder, pictures: list[Media], monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned(encoder, monkeypatch, pictures[0], ValueError("bad"))
    assert run(encoder, [pictures[0], pictures[0]]) == ["0.png: ValueError: bad"] * 2


@pytest.mark.parametrize("modality", ["text", "audio", "vision"])
def test_every_kind_of_encoder_manages_the_ordinary_item(modality: str, tmp_path: Path) -> None:
    encoder = build_encoder(EncoderSpec(modality))
    encoder.encode(encoder.collate([encoder.decode(encode._ordinary(modality))]))


def test_a_request_that_cannot_be_met_is_no_items_failure(pictures: list[Media]) -> None:
    with pytest.raises(UserError, match="--layer 99"):
        run(build_encoder(EncoderSpec("vision", layer=99)), pictures)


def test_an_item_the_processor_cannot_collate_is_its_own_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = build_encoder(EncoderSpec("text"))
    collate, [bad] = encoder.collate, encoder.prepare(["bad"])

    def fail(items: Sequence[Any]) -> Any:
        if bad in items:
            raise IndexError("piece id is out of range")
        return collate(items)

    monkeypatch.setattr(encoder, "collate", fail)
    found = run(encoder, [TextMedia(text) for text in ("one", "two", "bad", "four")])
    assert [isinstance(item, np.ndarray) for item in found] == [True, True, False, True]
    assert found[2] == "'bad': IndexError: piece id is out of range"


@pytest.mark.parametrize("limit", [1, 500_000])
def test_what_is_decoded_ahead_is_bounded_in_bytes(
    encoder: FrozenEncoder, pictures: list[Media], monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    media = pictures * 20
    expected, decode, start, held, taken, most = run(encoder, media), encoder.decode, encoder.start, 0, 0, 0
    monkeypatch.setattr(worker, "BYTES_AHEAD", limit)
    monkeypatch.setattr(decoders, "threads_and_processes", lambda *_: (32, False))

    def count(source: Media) -> Any:
        nonlocal held
        held += 1
        return decode(source)

    def take(batch: dict[str, torch.Tensor]) -> Encoded:
        nonlocal most, taken
        most = max(most, held - taken)
        taken += len(batch["pixel_values"])
        return start(batch)

    monkeypatch.setattr(encoder, "decode", count)
    monkeypatch.setattr(encoder, "start", take)
    same(run(encoder, media), expected, but=-1)
    # One part is being added and one taken; a batch waits for its last item.
    assert most <= limit // (3 * 32 * 32 * 4) + 3 * DECODED_TOGETHER
    assert held == len(media)


def test_a_picture_of_many_megapixels_waits_at_the_size_the_model_takes(encoder: FrozenEncoder, tmp_path: Path) -> None:
    Image.new("RGB", (3000, 2200)).save(tmp_path / "large.jpg")
    assert encoder.decode(FileMedia(str(tmp_path / "large.jpg"))).nbytes == 3 * 32 * 32 * 4


def test_media_are_read_only_from_regular_files(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    (tmp_path / "there.png").write_bytes(buffer.getvalue())
    (tmp_path / "link.png").symlink_to("there.png")
    assert FileMedia(str(tmp_path / "link.png")).read() == buffer.getvalue()
    for look in (FileMedia.read, FileMedia.digest):
        with pytest.raises(OSError, match="a device, not a regular file"):
            look(FileMedia("/dev/zero"))
    sparse = tmp_path / "sparse.mp4"
    with sparse.open("wb") as file:
        file.truncate(5 << 30)
    with pytest.raises(OSError, match="the limit is"):
        FileMedia(str(sparse)).read()
