"""An extraction without encoders: what a sample becomes is a matter of the number of its source. As a program, it is
killed and raced: `python plain_extraction.py points|kills|race PLACE FORMAT ...` prints what came of it as JSON.

It imports the package once and forks before anything has started a thread, so that a hundred kills cost seconds.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset  # imported once, and not in every child
from pgm.cache import (
    DatasetCard,
    Draft,
    Features,
    Identity,
    IndexBuilder,
    Items,
    Storage,
    Store,
    Version,
    ids_digest,
    inputs_digest,
    publish,
    storage_at,
    verified_rows,
    write_segment,
)
from pgm.cache.segment import is_intact, read_segment
from pgm.cache.store.index import FAILED, OK

IDENTITY = Identity("audio", "tiny-ast", {"layer": 3})
CARD = DatasetCard("toy", "retrieval", (), ("recall@1",))
DIM = 6


@dataclass(frozen=True)
class Sample:
    """source: 0 where the dataset has no such modality for the sample; one divisible by 7 cannot be read."""

    id: str
    source: int

    @property
    def digest(self) -> str:
        return f"{self.source:032x}"

    @property
    def readable(self) -> bool:
        return self.source % 7 != 0

    def tokens(self) -> np.ndarray:
        """(S, D); of some sources S is 0."""
        rng = np.random.default_rng(self.source)
        return rng.normal(size=(int(rng.integers(0, 6)), DIM)).astype(np.float16)


def extract(
    place: Storage,
    samples: Sequence[Sample],
    format_: str = "zarr",
    per_segment: int = 3,
    mended: Collection[int] = (),
    retry: int = 0,
) -> Version:
    """Encode what no version has yet, commit, publish.

    mended: sources that can be read after all. retry: not 0 to try failed samples again, as the attempt of that number.
    """
    store = Store.create(place, IDENTITY, DIM, "float16")
    rows, held = IndexBuilder(len(samples)), standing(store, retry)
    rows.missing(np.array([row for row, sample in enumerate(samples) if not sample.source], np.int64))
    wanted = [row for row, sample in enumerate(samples) if sample.source]
    fresh = [row for row in wanted if samples[row] not in held]
    for row in set(wanted) - set(fresh):
        version, at = held[samples[row]]
        rows.take(np.array([row]), store.index(version), version.segments, np.array([at]))
    new = size = 0
    for first in range(0, len(fresh), per_segment):
        part = fresh[first : first + per_segment]
        segment = made(store, [samples[row] for row in part], format_, mended, retry)
        rows.place(np.array(part), segment)
        new, size = new + segment.new, size + segment.bytes
    ids = [sample.id for sample in samples]
    draft = Draft(rows, ids_digest(ids), new=new, bytes=size)
    committed = store.commit(lambda _: None if is_latest(store, draft) else draft) or store.latest()
    assert committed is not None
    table = pa.table({"id": ids, "split": ["train"] * len(ids)})
    there = np.array([sample.source > 0 for sample in samples], bool)
    publish(place, CARD, table, {IDENTITY.folder: committed.number}, {"audio": there})
    return committed


def standing(store: Store, retry: int) -> dict[Sample, tuple[Version, int]]:
    """Where the latest version has samples that need not be made again: intact ones, and failures not tried again."""
    version = store.latest()
    if version is None:
        return {}
    index = store.index(version)
    found = {}
    intact = np.zeros(len(index), bool)
    encoded = np.flatnonzero(index.status == OK)
    intact[encoded] = verified_rows(store, version, index, encoded)
    for number, name in enumerate(version.segments):
        rows = np.flatnonzero((index.segment == number) & (intact | (index.status == FAILED) & (not retry)))
        if len(rows) and is_intact(store.storage, name):
            by_source = {source: id_ for id_, source in zip(*ids_and_sources(store, name), strict=True)}
            for row in rows.tolist():
                digest = index.source[row].tobytes().hex()
                found[Sample(by_source[digest], int(digest, 16))] = version, row
    return found


def ids_and_sources(store: Store, name: str) -> tuple[Sequence[str], Sequence[str]]:
    items = read_segment(store.storage, name).items
    return items.ids, items.sources


def made(store: Store, samples: Sequence[Sample], format_: str, mended: Collection[int], retry: int):
    """The segment of these samples, written unless a run that died has left it."""
    ids, sources = [sample.id for sample in samples], [sample.digest for sample in samples]
    there = store.segments().get(inputs_digest(IDENTITY.whole_digest, ids, sources, retry))
    if there is not None and is_intact(store.storage, there):
        return read_segment(store.storage, there)
    good = [sample.readable or (sample.source in mended and retry > 0) for sample in samples]
    tokens = [sample.tokens() if fine else np.zeros((0, DIM)) for sample, fine in zip(samples, good, strict=True)]
    errors = ["" if fine else f"cannot read {sample.source}" for sample, fine in zip(samples, good, strict=True)]
    items = Items(ids, sources, errors, retry)
    lengths = np.array([len(part) for part in tokens])
    return write_segment(
        store.storage, IDENTITY.whole_digest, items, lengths, np.concatenate(tokens), "float16", format_
    )


def is_latest(store: Store, draft: Draft) -> bool:
    latest = store.latest()
    if latest is None or latest.sample_ids != draft.sample_ids:
        return False
    index, segments = draft.rows.build()
    there = dict(store.index(latest).columns())
    same = all(np.array_equal(values, there[name]) for name, values in index.columns())
    return same and segments == latest.segments


def contents(features: Features) -> list[np.ndarray | str]:
    """What a reader gets of every sample: its tokens, or why there are none."""
    return [
        features[row] if features.available[row] else features.error(row) or str(features.status[row])
        for row in range(len(features))
    ]


def expected(samples: Sequence[Sample], mended: Collection[int] = ()) -> list[np.ndarray | str]:
    """The same, by the plain model."""
    told: list[np.ndarray | str] = []
    for sample in samples:
        if not sample.source:
            told.append("missing")
        elif sample.readable or sample.source in mended:
            told.append(sample.tokens())
        else:
            told.append(f"cannot read {sample.source}")
    return told


def equal(one: Sequence[np.ndarray | str], other: Sequence[np.ndarray | str]) -> bool:
    """Whether two contents are the same, to the bit."""
    return len(one) == len(other) and all(
        type(a) is type(b) and (a == b if isinstance(a, str) else np.array_equal(a, b))
        for a, b in zip(one, other, strict=True)
    )


FIRST = [Sample(f"clip-{row}", row) for row in (0, 1, 2, 3, 7)]
THEN = [*(Sample(f"clip-{row}", 50 if row == 3 else row) for row in (0, 1, 2, 3, 7)), Sample("clip-9", 9)]


def whole(place: Storage, format_: str) -> None:
    """Write, grow and change: what is killed."""
    extract(place, FIRST, format_, 4)
    extract(place, THEN, format_, 4)


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
    """Die, without a word, before the call-th time that a name of the disk appears, changes or goes."""
    left = call
    for name in ("link", "rename", "unlink"):
        real = getattr(os, name)

        def counted(*arguments: object, real: Callable[..., object] = real, **options: object) -> object:
            nonlocal left
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return real(*arguments, **options)

        setattr(os, name, counted)
    whole(place, format_)


def points(root: Path, format_: str) -> dict[str, object]:
    """Kill once at every point; then go on undisturbed."""
    undisturbed = root / "undisturbed"
    assert in_child(lambda: whole(storage_at(undisturbed / "toy"), format_)) == 0
    outcomes, call, killed = [], 0, 0
    while True:
        place = storage_at(root / f"killed-{call}" / "toy")
        status = in_child(lambda place=place, call=call: killed_at(call, place, format_))
        if status == 0:
            break
        assert os.WIFSIGNALED(status), status
        killed += 1
        assert in_child(lambda place=place: whole(place, format_)) == 0
        outcomes.append(place)
        call += 1
    return {"killed": killed, "places": [place.url for place in outcomes], "undisturbed": str(undisturbed / "toy")}


def kills(root: Path, format_: str, runs: int, seed: int) -> dict[str, object]:
    """Kill at random moments, again and again in one folder, until a run survives; `runs` kills in all."""
    rng, places, killed = random.Random(seed), [], 0
    begun = time.perf_counter()
    assert in_child(lambda: whole(storage_at(root / "undisturbed" / "toy"), format_)) == 0
    length = time.perf_counter() - begun
    while killed < runs:
        place = storage_at(root / f"run-{len(places)}" / "toy")
        places.append(place.url)
        while True:
            child = os.fork()
            if not child:
                whole(place, format_)
                os._exit(0)
            time.sleep(rng.uniform(0, length))
            os.kill(child, signal.SIGKILL)
            if os.waitpid(child, 0)[1] == 0:
                break
            killed += 1
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


def raced(writer: int, turn: int) -> list[Sample]:
    """What a writer extracts in its turn."""
    shared = [Sample(f"shared-{row}", row + 1) for row in range(4)]
    return [*shared, *(Sample(f"own-{writer}-{row}", 100 * (writer + 1) + row) for row in range(turn + 1))]


if __name__ == "__main__":
    pa.array(np.zeros(1, bool))  # imports pandas where there is one: once, and not in every child
    command, where, kind, *numbers = sys.argv[1:]
    if command == "points":
        told = points(Path(where), kind, *map(int, numbers))
    elif command == "kills":
        told = kills(Path(where), kind, *map(int, numbers))
    else:
        told = race(where, kind, *map(int, numbers))
    print(json.dumps(told))
