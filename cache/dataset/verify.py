"""Are the bytes that lie there the bytes that were written? Everything is read and held against its name or seal.

A segment is checked by the digest its name ends in; of a damaged one every sample's checksum is tried, so that the
samples that are lost can be named. Beyond that the parts must agree: a version's segments with its index, its index
with the content digest it claims. Reading is all it costs.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from ..errors import CorruptStore, PgMError
from ..segment import SEGMENTS
from ..segment.check import is_intact
from ..storage import Storage
from ..storage.base import joined
from ..store import Index, Log, Store, Version
from ..store.store import STORE
from ..store.verified import verified_rows
from ..store.version import index_key, version_key
from ..store.version import version_from as store_version
from .dataset import version_from
from .samples import ids_digest, read_samples, samples_key
from .sealed import KINDS, read_recipe, read_table, table_names

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
    damaged = set(_damaged_segments(storage))
    listed: set[str] = set()
    for number in store.log.numbers():
        version, index, found = _version(store, number)
        problems += found
        if version is None or index is None:
            continue
        for name in damaged & set(version.segments) - listed:
            problems.append(_lost(store, version, index, name, ids))
        listed |= set(version.segments)
    for name in sorted(damaged - listed):
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
            if version.samples not in tables:
                tables.add(version.samples)
                read_samples(dataset, version.samples)
        except (PgMError, KeyError) as error:
            problems.append(Problem(version_key(number), f"or its samples are not as they were written ({error})"))
    for kind in KINDS:
        for name in table_names(dataset, kind):
            try:
                recipe = read_recipe(dataset, kind, name)
                read_table(dataset, kind, name, recipe["table"], f"draw the {kind.thing} again")
            except (PgMError, KeyError) as error:
                problems.append(Problem(kind.seal_key(name), f"is not as it was written ({error})"))
    sizes = [dataset.size(key) or 0 for key in (*map(version_key, log.numbers()), *map(samples_key, tables))]
    return Report(dataset.url, "dataset", sum(sizes), tuple(problems))


def sample_ids(dataset: Storage) -> list[str] | None:
    """The ids of a dataset's latest version, None where they cannot be read."""
    try:
        version = version_from(Log(dataset).find(), dataset.url)
        ids: list[str] = read_samples(dataset, version.samples)["id"].to_pylist()
    except (PgMError, KeyError):
        return None
    return ids


def _damaged_segments(storage: Storage) -> Iterator[str]:
    names = storage.names(SEGMENTS)
    with ThreadPoolExecutor(THREADS) as pool:
        for name, intact in zip(names, pool.map(lambda name: is_intact(storage, name), names), strict=True):
            if not intact:
                yield name


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
    there = set(store.storage.names(SEGMENTS))
    missing = [name for name in version.segments if name not in there]
    found = [Problem(joined(SEGMENTS, name), f"is missing; version {number} lists it") for name in missing]
    return version, index, found


def _lost(store: Store, version: Version, index: Index, name: str, ids: Sequence[str] | None) -> Problem:
    """A damaged segment of a version, and the samples whose own checksum fails."""
    rows = np.flatnonzero((index.segment == version.segments.index(name)) & (index.length > 0)).astype(np.int64)
    lost = rows[~verified_rows(store, version, index, rows)].tolist()
    known = ids if ids is not None and ids_digest(ids) == version.sample_ids else None
    names = tuple(known[row] if known else f"row {row}" for row in lost)
    return Problem(joined(SEGMENTS, name), "is not what its name says", names)
