"""What a store holds already of the samples that are wanted, found by source digest and by the reasons of failures.

The latest version of every name counts, so that a full extraction takes what a limited one encoded. Bytes are checked
before they are counted on: the samples of a segment that is not what was written are made again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from ...cache.segment import read_segment
from ...cache.store import Index, Store, Version
from ...cache.store.index import FAILED, OK
from ...cache.store.verified import in_intact_segments
from ..media import Media
from .journal import Digests, first_half

Rows = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Held:
    """Samples that a version has: `rows` (n,) of those wanted lie at `places` (n,) of its index."""

    version: Version
    index: Index
    rows: Rows
    places: Rows

    def __len__(self) -> int:
        return len(self.rows)

    def only(self, kept: Bools) -> Held:
        """Those where `kept` (n,) is True."""
        return Held(self.version, self.index, self.rows[kept], self.places[kept])


@dataclass(frozen=True, eq=False)
class Found:
    """encoded: samples with features in intact segments. failed: samples that could not be encoded, of unchanged
    sources, with `reasons` by row. damaged: samples whose segment is no longer what was written."""

    encoded: tuple[Held, ...]
    failed: tuple[Held, ...]
    reasons: dict[int, str]
    damaged: int


def find_held(
    store: Store, ids: Sequence[str], sources: Digests, wanted: Bools, media: Sequence[Media | None] = ()
) -> Found:
    """Look through the latest versions of a store, the newest first.

    ids, sources (N, 16), wanted (N,) bool: of the samples that are asked for. media: theirs, where samples of one
    source share its failure. Raises CorruptStore for an index that is not as it was written.
    """
    left = wanted.copy()
    encoded: list[Held] = []
    failed: list[Held] = []
    reasons: dict[int, str] = {}
    damaged = 0
    for version in latest_versions(store):
        index = store.index(version, inf)
        there = same_sources(index, sources, left)
        intact = in_intact_segments(store, version, index, there.places)
        damaged += int((~intact).sum())
        encoded.append(Held(version, index, there.rows, there.places).only(intact))
        left[encoded[-1].rows] = False
        again, why = same_failures(store, version, index, ids, sources, left, media)
        failed.append(again)
        reasons |= why
        left[again.rows] = False
    return Found(tuple(h for h in encoded if len(h)), tuple(h for h in failed if len(h)), reasons, damaged)


def latest_versions(store: Store) -> Iterator[Version]:
    """The latest version of each name, the newest first."""
    names: set[str] = set()
    for number in reversed(store.log.numbers()):
        version = store.version(number)
        if version.name not in names:
            names.add(version.name)
            yield version


@dataclass(frozen=True, eq=False)
class _Matches:
    rows: Rows
    places: Rows

    def __len__(self) -> int:
        return len(self.rows)


def same_sources(index: Index, sources: Digests, wanted: Bools) -> _Matches:
    """The wanted samples whose source an index has features of, and where."""
    rows = np.flatnonzero(wanted & sources.any(axis=1))
    places = np.flatnonzero(index.status == OK)
    if not len(rows) or not len(places):
        return _Matches(np.zeros(0, np.int64), np.zeros(0, np.int64))
    here, asked = first_half(index.source[places]), first_half(sources[rows])
    order = np.argsort(here, kind="stable")
    at = order[np.minimum(np.searchsorted(here[order], asked), len(here) - 1)]
    # Two sources that share 64 of their 128 bits are told apart here: one of them is encoded again.
    same = (index.source[places[at]] == sources[rows]).all(axis=1)
    return _Matches(rows[same], places[at[same]])


def same_failures(
    store: Store,
    version: Version,
    index: Index,
    ids: Sequence[str],
    sources: Digests,
    wanted: Bools,
    media: Sequence[Media | None] = (),
) -> tuple[Held, dict[int, str]]:
    """The wanted samples that failed with the source they have now, and why; those that share their source too."""
    failures = np.flatnonzero(index.status == FAILED)
    failures = failures[in_intact_segments(store, version, index, failures)]
    places: dict[int, int] = {}
    reasons: dict[int, str] = {}
    if len(failures) and wanted.any():
        left = np.flatnonzero(wanted).tolist()
        row_of = {ids[row]: row for row in left}
        sharing = rows_of_sources(left, media)
        for number in np.unique(index.segment[failures]).tolist():
            items = read_segment(store.storage, version.segments[number]).items
            for place in failures[index.segment[failures] == number].tolist():
                item = int(index.start[place])
                row = row_of.get(items.ids[item])
                if row is not None and (index.source[place] == sources[row]).all():
                    for each in sharing[media[row]] if media else [row]:
                        places[each], reasons[each] = place, items.errors[item]
    return Held(version, index, np.array([*places], np.int64), np.array([*places.values()], np.int64)), reasons


def rows_of_sources(rows: Sequence[int], media: Sequence[Media | None]) -> dict[Media | None, list[int]]:
    """Each source with those of the rows that have it."""
    told: dict[Media | None, list[int]] = defaultdict(list)
    for row in rows if media else ():
        told[media[row]].append(row)
    return told
