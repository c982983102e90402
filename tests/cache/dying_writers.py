"""Writers that die and writers that race: `python dying_writers.py points|kills|race|recorded PLACE FORMAT ...`.

Prints what came of it as JSON. It imports the package once and forks before anything has started a thread, so that a
hundred kills cost seconds.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset  # imported once, and not in every child
from pgm.cache import Storage, storage_at
from pgm.cache.dataset.collect import garbage, remove
from pgm.cache.dataset.compact import compact
from pgm.cache.storage import local
from plain_extraction import FIRST, IDENTITY, THEN, extract, raced
from recorded_disk import Recorder


def life(place: Storage, format_: str, told: Callable[[int], None] = lambda version: None) -> None:
    """Write, grow and change, rewrite, sweep: what is killed. told: of every version that is published."""
    extract(place, FIRST, format_, 4)
    told(1)
    go_on(place, format_, told)


def go_on(place: Storage, format_: str, told: Callable[[int], None] = lambda version: None) -> None:
    """What whoever comes after a writer that died does."""
    extract(place, THEN, format_, 4)
    told(2)
    compact(place.under(IDENTITY.folder))
    told(3)
    remove(garbage(place, keep=1, grace=0))


def in_child(work: Callable[[], object]) -> int:
    """Run in a forked process; returns its wait status."""
    child = os.fork()
    if not child:
        try:
            work()
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def killed_at(call: int, place: Storage, format_: str) -> None:
    """Die, without a word, before the call-th time that something gets its name or loses it."""
    left = call
    for name in ("link", "rename"):
        real = getattr(os, name)

        def counted(*arguments: object, real: Callable[..., object] = real, **options: object) -> object:
            nonlocal left
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return real(*arguments, **options)

        setattr(os, name, counted)
    life(place, format_)


def points(root: Path, format_: str) -> dict[str, object]:
    """Kill once at every point; then go on undisturbed."""
    undisturbed = root / "undisturbed"
    assert in_child(lambda: life(storage_at(undisturbed / "toy"), format_)) == 0
    outcomes, call, killed = [], 0, 0
    while True:
        place = storage_at(root / f"killed-{call}" / "toy")
        status = in_child(lambda place=place, call=call: killed_at(call, place, format_))
        if status == 0:
            break
        assert os.WIFSIGNALED(status), status
        killed += 1
        assert in_child(lambda place=place: go_on(place, format_)) == 0
        outcomes.append(place)
        call += 1
    return {"killed": killed, "places": [place.url for place in outcomes], "undisturbed": str(undisturbed / "toy")}


def kills(root: Path, format_: str, runs: int, seed: int) -> dict[str, object]:
    """`runs` kills at random moments, up to three one after another in a folder; then a writer that nobody disturbs."""
    rng, places, killed = random.Random(seed), [], 0
    begun = time.perf_counter()
    assert in_child(lambda: life(storage_at(root / "undisturbed" / "toy"), format_)) == 0
    length = time.perf_counter() - begun
    while killed < runs:
        place = storage_at(root / f"run-{len(places)}" / "toy")
        places.append(place.url)
        for _ in range(rng.randint(1, 3)):
            child = os.fork()
            if not child:
                life(place, format_)
                os._exit(0)
            time.sleep(rng.uniform(0, length))
            os.kill(child, signal.SIGKILL)
            killed += os.waitpid(child, 0)[1] != 0
        assert in_child(lambda place=place: go_on(place, format_)) == 0
    return {"killed": killed, "places": places, "undisturbed": str(root / "undisturbed" / "toy")}


def race(url: str, format_: str, writers: int, rounds: int) -> dict[str, object]:
    """Writers of one store, each with lists of its own that share samples with the others'."""
    children = []
    for writer in range(writers):
        child = os.fork()
        if not child:
            try:
                for turn in range(rounds):
                    extract(storage_at(url), raced(writer, turn), format_, 2)
            except BaseException:
                import traceback

                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    return {"statuses": [os.waitpid(child, 0)[1] for child in children]}


class Died(BaseException):
    """The end of a process, as far as the disk can tell."""


def recorded(root: Path, format_: str, file: str) -> dict[str, object]:
    """A writer dies after its first segment has its name and before that is on the disk; another one goes on.

    What both did to the disk is pickled into `file`.
    """
    recorder, sync = Recorder(root), local.sync

    def dies(path: Path) -> None:
        if path.name == "segments":
            raise Died
        sync(path)

    local.sync = dies
    with suppress(Died):
        extract(storage_at(root / "toy"), FIRST, format_, 4)
    local.sync = sync
    life(storage_at(root / "toy"), format_, recorder.mark)
    Path(file).write_bytes(pickle.dumps(recorder.operations))
    return {}


if __name__ == "__main__":
    pa.array(np.zeros(1, bool))  # imports pandas where there is one: once, and not in every child
    command, where, kind, *rest = sys.argv[1:]
    match command:
        case "points":
            outcome = points(Path(where), kind)
        case "kills":
            outcome = kills(Path(where), kind, *map(int, rest))
        case "race":
            outcome = race(where, kind, *map(int, rest))
        case _:
            outcome = recorded(Path(where), kind, *rest)
    print(json.dumps(outcome))
