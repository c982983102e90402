"""What no version lists, and how to be rid of it: old versions, and the segments and indices that only they used.

Nothing that somebody may be about to commit is taken: what is younger than `grace` seconds stays. A version that a
process of this machine has open keeps everything it reads mapped, and files that are gone stay readable to it.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from ..segment import SEGMENTS
from ..storage import Entry, Storage
from ..storage.base import joined
from ..store import Log
from ..store.version import VERSIONS, index_key, version_key
from .dataset import store_folders
from .samples import FOLDER, samples_key

GRACE = 24 * 3600.0


@dataclass(frozen=True)
class Garbage:
    """Something nobody lists: its key below `storage`, why it can go, its bytes."""

    storage: Storage
    key: str
    why: str
    bytes: int


def garbage(dataset: Storage, keep: int | None = None, grace: float = GRACE) -> list[Garbage]:
    """What of a dataset can go. keep: how many of its latest versions of every name stay (None: all)."""
    log, kept = Log(dataset), _kept(Log(dataset), keep)
    found = [_found(dataset, version_key(n), "an older version") for n in log.numbers() if n not in kept]
    samples = {samples_key(log.read(number)["samples"]) for number in kept}
    unlisted = (e for e in dataset.entries(FOLDER) if e.key not in samples)
    found += [Garbage(dataset, e.key, "samples no version lists", e.bytes) for e in unlisted if _old(e, grace)]
    listed: dict[str, set[int]] = {}
    for number in kept:
        for folder, version in log.read(number)["stores"].items():
            listed.setdefault(folder, set()).add(version)
    for folder in store_folders(dataset):
        found += _of_store(dataset.under(folder), listed.get(folder, set()), grace)
    return found


def remove(found: list[Garbage]) -> int:
    """Delete it, versions before what they list; returns the bytes."""
    for item in found:
        item.storage.delete(item.key)
    return sum(item.bytes for item in found)


def _kept(log: Log, keep: int | None) -> list[int]:
    kept: list[int] = []
    seen: dict[str, int] = {}
    for number in reversed(log.numbers()):
        name = log.read(number)["name"]
        seen[name] = seen.get(name, 0) + 1
        if keep is None or seen[name] <= keep:
            kept.append(number)
    return kept


def _of_store(store: Storage, listed: set[int], grace: float) -> Iterator[Garbage]:
    log = Log(store)
    segments: set[str] = set()
    files: set[str] = set()
    for number in log.numbers():
        value, key = log.read(number), version_key(number)
        size = store.size(key) or 0
        if number not in listed and _old(Entry(key, size, _modified(store, key)), grace):
            yield Garbage(store, key, "a version no dataset version lists", size)
            continue
        segments |= set(value["segments"])
        files |= {key, index_key(value["index"])}
    for entry in store.entries(VERSIONS):
        if entry.key.endswith(".index") and entry.key not in files and _old(entry, grace):
            yield Garbage(store, entry.key, "an index no version lists", entry.bytes)
    for name in store.names(SEGMENTS):
        entries = list(store.entries(joined(SEGMENTS, name))) or [
            Entry(name, store.size(joined(SEGMENTS, name)) or 0, _modified(store, joined(SEGMENTS, name)))
        ]
        if name not in segments and all(_old(entry, grace) for entry in entries):
            yield Garbage(store, joined(SEGMENTS, name), "no version lists it", sum(e.bytes for e in entries))


def _found(storage: Storage, key: str, why: str) -> Garbage:
    return Garbage(storage, key, why, storage.size(key) or 0)


def _modified(storage: Storage, key: str) -> float:
    folder = key.rsplit("/", 1)[0]
    return next((entry.modified for entry in storage.entries(folder) if entry.key == key), 0.0)


def _old(entry: Entry, grace: float) -> bool:
    return not grace or time.time() - entry.modified > grace
