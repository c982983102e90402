"""Decoding in processes: the same bytes as in threads, whoever is killed; an item that ends its process fails."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from pgm.cache import storage_at
from pgm.cache.store import Store
from pgm.pipeline.encoders import EncoderSpec, build_encoder
from pgm.pipeline.engine import decoders
from pgm.pipeline.engine.job import Job, Made, Task, encoder_identity
from pgm.pipeline.engine.options import StoreOptions
from pgm.pipeline.engine.worker import Pipeline
from pgm.pipeline.media import FileMedia, Media
from PIL import Image


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Media]:
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number in range(40):
        Image.fromarray(rng.integers(0, 256, (300, 400, 3)).astype(np.uint8)).save(folder / f"{number}.png")
    (folder / "7.png").write_bytes(b"no picture")
    return [FileMedia(str(folder / f"{number}.png")) for number in range(40)]


def segments(folder: Path, media: Sequence[Media]) -> list[Made]:
    """Segments of ten items, made by a pipeline of this process."""
    encoder, options = build_encoder(EncoderSpec("vision")), StoreOptions()
    identity = encoder_identity(encoder, options)
    store = Store.create(storage_at(folder), identity, encoder.dim, options.stored).storage
    cut = [media[at : at + 10] for at in range(0, len(media), 10)]
    tasks = iter([Task(n, [f"{n} {k}" for k in range(len(part))], part) for n, part in enumerate(cut)])
    return list(Pipeline(Job(store, identity, encoder.spec, options), encoder, lambda _: next(tasks, None)).run())


def decoding_processes() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        # One that was killed a moment ago has no command line any more.
        with suppress(psutil.Error):
            if "pgm.pipeline.engine.decoder" in process.cmdline():
                found.append(process)
    return found


def kill_some(stop: threading.Event, killed: list[int]) -> None:
    """A decoder now and then, and the template they are forked from."""
    rng = random.Random(0)
    while not stop.wait(0.1) and len(killed) < 6:
        there = decoding_processes()
        if len(there) > 1:
            victim = rng.choice(there)
            with suppress(psutil.NoSuchProcess):
                victim.kill()
                killed.append(victim.pid)


def test_processes_write_the_bytes_that_threads_write_whoever_is_killed(
    pictures: list[Media], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [made.segment.name for made in segments(tmp_path / "threads", pictures)]
    monkeypatch.setattr(decoders, "decoders", lambda _: (2, True))
    assert [made.segment.name for made in segments(tmp_path / "processes", pictures)] == expected
    assert not decoding_processes(), "they end with what used them"
    stop, killed = threading.Event(), list[int]()
    killer = threading.Thread(target=kill_some, args=(stop, killed))
    killer.start()
    try:
        found = sorted(made.segment.name for made in segments(tmp_path / "killed", pictures * 8))
    finally:
        stop.set()
        killer.join()
    assert killed
    monkeypatch.undo()
    assert found == sorted(made.segment.name for made in segments(tmp_path / "undisturbed", pictures * 8))


class Deadly(FileMedia):
    """Ends the process that looks at it, as a fault in a codec does."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return os._exit, (9,)


def test_an_item_that_ends_its_process_is_its_own_failure(
    pictures: list[Media], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoders, "decoders", lambda _: (2, True))
    source = pictures[3]
    assert isinstance(source, FileMedia)
    [made] = segments(tmp_path, [*pictures[:3], Deadly(source.path), *pictures[4:10]])
    errors = dict(enumerate(made.segment.items.errors))
    assert errors.pop(3) == "3.png: decoding it ended the process, 3 times"
    assert errors.pop(7).startswith("7.png: neither an image nor a video")
    assert not any(errors.values())
