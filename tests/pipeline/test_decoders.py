"""Decoding in processes: the same bytes as without, whoever is killed; an item that ends its process fails; nothing is
left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import psutil
from pgm.cache import storage_at
from pgm.cache.store import Store
from pgm.pipeline.encoders import EncoderSpec, build_encoder
from pgm.pipeline.engine import decoder
from pgm.pipeline.engine.decoders import Decoding, cannot_travel
from pgm.pipeline.engine.job import Job, Made, Task, encoder_identity
from pgm.pipeline.engine.options import StoreOptions
from pgm.pipeline.engine.worker import Pipeline
from pgm.pipeline.media import FileMedia, Media
from PIL import Image

from ..conftest import children_that_run

SEGMENT = 16


class Deadly(FileMedia):
    """Ends the process that looks at it, as a fault in a codec does."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return os._exit, (9,)


def segments(
    folder: Path, media: Sequence[Media], decoders: int, after: Callable[[int], None] = lambda _: None
) -> list[Made]:
    """Segments made by a pipeline of this process with so many decoder processes; `after` is told of each."""
    encoder, options = build_encoder(EncoderSpec("vision")), StoreOptions()
    identity = encoder_identity(encoder, options)
    store = Store.create(storage_at(folder), identity, encoder.dim, options.stored).storage
    cut = [media[at : at + SEGMENT] for at in range(0, len(media), SEGMENT)]
    tasks = iter([Task(n, [f"{n} {k}" for k in range(len(part))], part) for n, part in enumerate(cut)])
    job, found = Job(store, identity, encoder.spec, options, decoders), []
    for made in Pipeline(job, encoder, lambda _: next(tasks, None)).run():
        found.append(made)
        after(len(found))
    return sorted(found, key=lambda made: made.number)


def decoding() -> tuple[list[psutil.Process], list[psutil.Process]]:
    """The templates that run below this process, and the decoders that they have forked."""
    children, every = psutil.Process().children(), children_that_run(decoder.__name__)
    return [one for one in every if one in children], [one for one in every if one not in children]


def test_processes_write_the_same_bytes_whoever_is_killed_and_an_item_that_ends_them_fails(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(5 * SEGMENT):
        Image.fromarray(rng.integers(0, 256, (30, 40, 3)).astype(np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "7.png").write_bytes(b"no picture")
    pictures = [FileMedia(str(tmp_path / f"{number}.png")) for number in range(5 * SEGMENT)]

    def kill(count: int) -> None:
        families, decoders = decoding()
        victims = {1: decoders[:1], 2: families + decoders}.get(count, [])
        for victim in victims:
            victim.kill()
            killed.append(victim.pid)

    killed: list[int] = []
    deadly = 4 * SEGMENT + 3
    some = [*pictures[:deadly], Deadly(pictures[deadly].path), *pictures[deadly + 1 :]]
    found = segments(tmp_path / "processes", some, 2, kill)
    # What is under way when a segment is done differs; the template always is.
    assert killed
    assert decoding() == ([], []), "they end with what used them"
    expected = segments(tmp_path / "thread", pictures, 0)
    assert [made.segment.name for made in found[:-1]] == [made.segment.name for made in expected[:-1]]
    errors = dict(enumerate(found[-1].segment.items.errors))
    assert errors.pop(3) == f"{deadly}.png: decoding it ends the process"
    assert not any(errors.values())
    others = np.arange(SEGMENT) != 3
    np.testing.assert_array_equal(found[-1].segment.checksums[others], expected[-1].segment.checksums[others])


ORPHANS = """
import os, sys, time
from pgm.pipeline.encoders import EncoderSpec, build_encoder
from pgm.pipeline.engine.decoders import Decoding
from pgm.pipeline.media import FileMedia
class Stuck(FileMedia):
    def __reduce__(self):
        return time.sleep, (600,)
with Decoding(build_encoder(EncoderSpec("vision")), 2) as decoding:
    stuck = decoding.submit([Stuck(sys.argv[1])])
    decoding.submit([FileMedia(sys.argv[1])]).result()
    print("decoded", flush=True)
    sys.stdin.read()
"""


def test_no_process_outlives_a_worker_that_is_killed(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "there.png")
    command = [sys.executable, "-c", ORPHANS, str(tmp_path / "there.png")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"decoded\n"
        below = psutil.Process(worker.pid).children(recursive=True)
        worker.send_signal(signal.SIGKILL)
    assert len(below) == 3, "a template, a decoder that waits and one that hangs"
    _, alive = psutil.wait_procs(below, timeout=20)
    assert not alive


def test_an_encoder_that_cannot_travel_is_decoded_for_by_threads_and_that_is_said(tmp_path: Path) -> None:
    encoder = build_encoder(EncoderSpec("vision"))
    assert cannot_travel(encoder, 2) == ""
    vars(encoder)["own"] = lambda pixels: pixels  # as a processor of somebody's notebook
    assert "cannot be pickled" in cannot_travel(encoder, 2)
    assert cannot_travel(encoder, 0) == "", "nobody asked for processes"
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    with Decoding(encoder, 2) as decoding:
        assert decoding.submit([FileMedia(str(tmp_path / "one.png"))]).result().places == [0]
