"""Are the bytes that lie there the bytes that were written? Everything is read and held against its name or seal.

A segment is checked by the digest its name ends in; of a damaged one every sample's checksum is tried, so that the
samples that are lost can be named. Beyond that the parts must agree: a version's segments with its index, its index
with the content digest it claims. Reading is all it costs.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import CorruptStore, PgMError
from ..segment import SEGMENTS, is_intact, read_segment
from ..storage import Storage, storage_at
from ..storage.base import joined
from ..store import Index, Log, Store, Version
from ..store.index import placed
from ..store.store import STORE
from ..store.verified import verified_rows
from ..store.version import VERSIONS, index_key, version_key
from ..store.version import version_from as store_version
from .dataset import version_from
from .samples import ids_digest, read_samples, samples_key
from .sealed import KINDS, read_named_table, read_recipe, table_names

THREADS = 2
NAMED = 5


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: which file, how, and the ids of the samples it costs."""

    file: str
    what: str
    samples: tuple[str, ...] = ()

    def __str__(self) -> str:
        more = f" and {len(self.samples) - NAMED:,} more" if len(self.samples) > NAMED else ""
        lost = f"; it costs {', '.join(self.samples[:NAMED])}{more}" if self.samples else ""
        return f"{self.file} {self.what}{lost}"


@dataclass(frozen=True)
class Report:
    """What was found in one store, or in a dataset besides its stores."""

    url: str
    kind: str
    bytes: int
    problems: tuple[Problem, ...] = field(default=())

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify_store(storage: Storage, ids: Sequence[str] | None = None) -> Report:
    """Check every byte of a store. ids: of the dataset's samples now, so that lost ones can be named."""
    read = sum(entry.bytes for entry in storage.entries())
    try:
        store = Store.open(storage)
    except PgMError as error:
        return Report(storage.url, "store", read, (Problem(STORE, f"cannot be believed ({error})"),))
    problems: list[Problem] = []
    unlisted = dict(_segments(storage))
    intact = {name for name, whole in unlisted.items() if whole}
    told: set[str] = set()
    for number in store.log.numbers():
        version, index, found = _version(store, number)
        problems += found
        if version is None or index is None:
            continue
        known = ids if ids is not None and ids_digest(ids) == version.sample_ids else None
        for place, name in enumerate(version.segments):
            if name in intact:
                problems += _disagreements(store, version, index, place, known)
            elif name not in told:
                problems.append(_lost(store, version, index, place, known))
                told.add(name)
            unlisted.pop(name, None)
    for name in sorted(unlisted.keys() - intact):
        problems.append(Problem(joined(SEGMENTS, name), "is not what its name says, and no version lists it"))
    return Report(storage.url, "store", read, tuple(problems))


def verify_dataset(dataset: Storage) -> Report:
    """Check a dataset's versions, samples, named splits and masks (not its stores)."""
    problems: list[Problem] = []
    log = Log(dataset)
    tables: set[str] = set()
    for number in log.numbers():
        try:
            version = version_from(log.read(number), dataset.url)
            tables.add(version.samples)
            ids = read_samples(dataset, version.samples)["id"].to_pylist()
            if ids_digest(ids) != version.sample_ids:
                raise CorruptStore(f"{samples_key(version.samples)} lists other samples")
        except (PgMError, KeyError) as error:
            problems.append(Problem(version_key(number), f"or its samples are not as they were written ({error})"))
    for kind in KINDS:
        for name in table_names(dataset, kind):
            try:
                recipe = read_recipe(dataset, kind, name)
                read_named_table(dataset, kind, name, recipe["table"], f"draw the {kind.thing} again")
            except (PgMError, KeyError) as error:
                problems.append(Problem(kind.seal_key(name), f"is not as it was written ({error})"))
    sizes = [dataset.size(key) or 0 for key in (*map(version_key, log.numbers()), *map(samples_key, tables))]
    return Report(dataset.url, "dataset", sum(sizes), tuple(problems))


def discard(dataset: Storage, reports: Sequence[Report]) -> list[str]:
    """Remove what was found damaged in a dataset and its stores, so that `pgm extract` makes it again.

    With it go the versions that cannot be opened without it; a store whose description is damaged is left for
    `pgm cache rm`. Returns the places of what was removed.
    """
    doomed = [(storage_at(report.url), key) for report in reports for p in report.problems for key in removed_with(p)]
    for storage, key in doomed:
        storage.delete(key)
    log = Log(dataset)
    for number in log.numbers():
        stores = log.read(number)["stores"].items()
        if not all(dataset.exists(joined(folder, version_key(version))) for folder, version in stores):
            doomed.append((dataset, version_key(number)))
            dataset.delete(version_key(number))
    return [f"{storage.url}/{key}" for storage, key in doomed]


def removed_with(problem: Problem) -> list[str]:
    """The keys that go to be rid of a problem."""
    folder, _, name = problem.file.partition("/")
    if folder == VERSIONS:
        # An index carries its version's number.
        return [problem.file, *([version_key(int(name[:6]))] if name.endswith(".index") else [])]
    return [] if problem.file == STORE else [problem.file]


def sample_ids(dataset: Storage) -> list[str] | None:
    """The ids of a dataset's latest version, None where they cannot be read."""
    try:
        version = version_from(Log(dataset).find(), dataset.url)
        ids: list[str] = read_samples(dataset, version.samples)["id"].to_pylist()
    except (PgMError, KeyError):
        return None
    return ids


def _segments(storage: Storage) -> Iterator[tuple[str, bool]]:
    """Every segment that is there, and whether it is what its name says."""
    names = storage.names(SEGMENTS)
    with ThreadPoolExecutor(THREADS) as pool:
        yield from zip(names, pool.map(lambda name: is_intact(storage, name), names), strict=True)


def _version(store: Store, number: int) -> tuple[Version | None, Index | None, list[Problem]]:
    """A version and its index as far as they can be believed, and what is wrong with them."""
    try:
        version = store_version(store.log.read(number), store.storage.url)
    except PgMError as error:
        return None, None, [Problem(version_key(number), f"cannot be believed ({error})")]
    key = index_key(version.index)
    try:
        index = store.index(version)
        if index.content_digest(store.dim, store.stored) != version.content:
            raise CorruptStore("it holds other rows than the version says")
    except CorruptStore as error:
        return version, None, [Problem(key, f"is not as it was written ({error})")]
    return version, index, []


def _lost(store: Store, version: Version, index: Index, place: int, ids: Sequence[str] | None) -> Problem:
    """A damaged or missing segment of a version, and the samples whose own checksum fails."""
    rows = np.flatnonzero((index.segment == place) & (index.length > 0)).astype(np.int64)
    lost = rows[~verified_rows(store, version, index, rows)].tolist()
    name = version.segments[place]
    there = name in store.storage.names(SEGMENTS)
    return Problem(joined(SEGMENTS, name), "is not what its name says" if there else "is missing", _named(lost, ids))


def _disagreements(
    store: Store, version: Version, index: Index, place: int, ids: Sequence[str] | None
) -> Iterator[Problem]:
    """The rows that an index says lie in an intact segment, and that do not lie there as it says."""
    name = version.segments[place]
    rows = np.flatnonzero(index.segment == place)
    held = set(_described(placed(read_segment(store.storage, name))))
    wrong = [row for row, told in zip(rows.tolist(), _described(index.at(rows)), strict=True) if told not in held]
    if wrong:
        what = f"says of {joined(SEGMENTS, name)} what that does not hold"
        yield Problem(index_key(version.index), what, _named(wrong, ids))


def _described(index: Index) -> Iterator[tuple[Any, ...]]:
    """A tuple a sample of all that an index says of it, but for the segment."""
    numbers = (index.start, index.length, index.checksum, index.status)
    return zip(*(column.tolist() for column in numbers), map(bytes, index.source), strict=True)


def _named(rows: Sequence[int], ids: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(ids[row] if ids else f"row {row}" for row in rows)
