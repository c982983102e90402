"""An extraction without encoders: what a sample becomes is a matter of the number of its source."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
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
    write_segment,
)
from pgm.cache.segment import is_intact, read_segment
from pgm.cache.store.index import OK

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
    committed = store.commit(lambda: draft)
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
    for number, name in enumerate(version.segments):
        rows = np.flatnonzero((index.segment == number) & ((index.status == OK) | (not retry)))
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


def raced(writer: int, turn: int) -> list[Sample]:
    """What a writer extracts in its turn."""
    shared = [Sample(f"shared-{row}", row + 1) for row in range(4)]
    return [*shared, *(Sample(f"own-{writer}-{row}", 100 * (writer + 1) + row) for row in range(turn + 1))]
