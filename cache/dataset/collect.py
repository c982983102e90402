"""What no version lists, and how to be rid of it: old versions, and the segments, indices and samples only they used.

What is younger than `grace` seconds stays, because an extraction may be about to commit it, and so does a version that
a process on this machine has open (advice: other machines and object stores are not asked; there, a reader of a removed
version learns that its segments are gone, and never reads others in their place).
"""

import time
from collections import defaultdict
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
    """What of a dataset can go, versions before what they list.

    keep: how many of its latest versions of every name stay (None: all). Raises CorruptStore where a version cannot be
    read: nobody can say then what it lists.
    """
    log = Log(dataset)
    kept = latest_of_names(log, keep)
    old = (number for number in log.numbers() if number not in kept)
    found = [Garbage(dataset, version_key(n), "an older version", dataset.size(version_key(n)) or 0) for n in old]
    samples = {samples_key(log.read(number)["samples"]) for number in kept}
    listed: dict[str, set[int]] = defaultdict(set)
    for number in kept:
        for folder, version in log.read(number)["stores"].items():
            listed[folder].add(version)
    candidates = [(entry, "samples no version lists") for entry in dataset.entries(FOLDER) if entry.key not in samples]
    candidates += [(entry, "left by a writer that died") for entry in dataset.leftovers()]
    found += [Garbage(dataset, entry.key, why, entry.bytes) for entry, why in candidates if is_old(entry, grace)]
    for folder in store_folders(dataset):
        found += of_store(dataset.under(folder), listed[folder], grace)
    return found


def remove(found: list[Garbage]) -> int:
    """Delete it, in this order; returns the bytes."""
    for item in found:
        item.storage.delete(item.key)
    return sum(item.bytes for item in found)


def latest_of_names(log: Log, keep: int | None) -> set[int]:
    """The numbers of the `keep` latest versions of every name; of all of them for None."""
    numbers: dict[str, list[int]] = defaultdict(list)
    for number in reversed(log.numbers()):
        numbers[log.read(number)["name"]].append(number)
    return {number for every in numbers.values() for number in every[:keep]}


def of_store(store: Storage, listed: set[int], grace: float) -> Iterator[Garbage]:
    """What of a store can go, where the dataset's versions list `listed` of its versions."""
    log, segments, files = Log(store), set(), set()
    entries = {entry.key: entry for entry in store.entries(VERSIONS)}
    numbers = log.numbers()
    for number in numbers:
        value, key = log.read(number), version_key(number)
        # The last one stays in any case, so that its number is never given to another.
        free = number not in listed and number != numbers[-1]
        if free and is_old(entries[key], grace) and not store.in_use(key):
            yield Garbage(store, key, "a version no dataset version lists", entries[key].bytes)
            continue
        segments |= set(value["segments"])
        files |= {key, index_key(value["index"])}
    for key, entry in entries.items():
        if key.endswith(".index") and key not in files and is_old(entry, grace):
            yield Garbage(store, key, "an index no version lists", entry.bytes)
    for name, (size, newest) in segment_sizes(store).items():
        if name not in segments and is_old(Entry(name, size, newest), grace):
            yield Garbage(store, joined(SEGMENTS, name), "a segment no version lists", size)


def segment_sizes(store: Storage) -> dict[str, tuple[int, float]]:
    """Segment -> its bytes and when the last of them were written; also of those that were never finished."""
    found: dict[str, tuple[int, float]] = {}
    for entry in store.entries(SEGMENTS):
        name = entry.key.split("/")[1]
        size, newest = found.get(name, (0, 0.0))
        found[name] = size + entry.bytes, max(newest, entry.modified)
    return found


def is_old(entry: Entry, grace: float) -> bool:
    """Whether nobody can be about to list it any more."""
    return not grace or time.time() - entry.modified > grace
