"""Copying a version of a dataset from one place to another: only what is not there, every byte held against its name.

Segments go first and the dataset's version last, so that a copy which dies has changed nothing for readers, and the
next one goes on from the segments that arrived. Numbers are the target's own: a version that is there already, under
whichever number, is not committed again.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ..segment import MARKER, SEGMENTS, SegmentName
from ..segment.write import put_objects
from ..storage import Storage
from ..storage.base import fetch_checked, in_memory, joined, put_named, total_bytes
from ..store import Log, Store, Version
from ..store.version import draft_of, index_key
from .dataset import CachedDataset, DatasetVersion, publish, version_from
from .samples import table_key
from .sealed import KINDS, read_recipe, table_names

AT_ONCE = 4  # segments, of 64 MiB or so each


@dataclass(frozen=True)
class Copied:
    """A dataset's version at its target. exact: whether it lists just what was copied; a later one may list more.

    segments, bytes: that were copied; there: segments that were there before.
    """

    version: DatasetVersion
    exact: bool
    segments: int
    bytes: int
    there: int


@dataclass(frozen=True)
class Arrived:
    """How far a copy has come: segments of a store that are at the target, of how many, and the bytes of the last."""

    store: str
    segments: int
    of: int
    bytes: int


def copy_dataset(
    source: CachedDataset, target: Storage, tell: Callable[[Arrived], None] = lambda arrived: None
) -> Copied:
    """Copy the version that `source` is open at, with its stores, samples, named splits and masks.

    Raises IdentityMismatch where the target has a store of the same name that holds something else, CorruptStore for
    bytes that are not what their name says.
    """
    numbers, segments, size, there = {}, 0, 0, 0
    for folder, number in source.version.stores.items():
        arrived: list[int] = []

        def told(event: Arrived, arrived: list[int] = arrived) -> None:
            arrived.append(event.bytes)
            tell(event)

        held = copy_store(Store.open(source.storage.under(folder)), number, target, told)
        numbers[folder] = held.number
        segments, size = segments + len(arrived), size + sum(arrived)
        there += len(held.segments) - len(arrived)
    for kind in KINDS:
        taken = table_names(target, kind)
        for name in table_names(source.storage, kind):
            if name not in taken:
                digest = read_recipe(source.storage, kind, name)["table"]
                copy_named(source.storage, target, table_key(kind.folder, digest), digest)
                target.put(kind.seal_key(name), [source.storage.read(kind.seal_key(name))])
    version = published(source, target, numbers)
    return Copied(version, version.stores == numbers, segments, size, there)


def copy_store(source: Store, number: int, target: Storage, tell: Callable[[Arrived], None]) -> Version:
    """Copy a version of a store into the dataset `target`; returns it as it is there."""
    version = source.version(number)
    parts = source.index(version).to_parts()
    store = Store.create(target, source.identity, source.dim, source.stored)
    there = set(store.storage.groups(SEGMENTS, MARKER))
    lacking = [name for name in version.segments if name not in there]
    written = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        sizes = pool.map(lambda name: copy_segment(source.storage, store.storage, name), lacking)
        for count, size in enumerate(sizes, len(version.segments) - len(lacking) + 1):
            written += size
            tell(Arrived(store.identity.folder, count, len(version.segments), size))

    def draft(latest: int) -> dict[str, Any] | None:
        if find_same(store, version) is not None:
            return None
        file = f"{latest + 1:06d}-{version.index_digest}.index"
        put_named(store.storage, index_key(file), parts, version.index_digest)
        cost = {"segments": len(lacking), "reused": len(version.segments) - len(lacking), "bytes": written}
        return {**draft_of(version), "index": file, "written": cost}

    store.log.commit(draft)
    found = find_same(store, version)
    assert found is not None
    return found


def find_same(store: Store, version: Version) -> Version | None:
    """The version of a store that says of every sample what `version`, of another place, says."""
    for number in reversed(store.log.numbers()):
        here = store.version(number)
        if all(getattr(here, name) == getattr(version, name) for name in ("name", "index_digest", "segments")):
            return here
    return None


def copy_segment(source: Storage, target: Storage, name: str) -> int:
    """Copy one segment; returns its bytes."""
    parsed, key = SegmentName.parse(name), joined(SEGMENTS, name)
    objects = fetch_checked(source, key, parsed.content if parsed else "", in_memory)
    # They come by name, and a group's marker is the last of all names.
    put_objects(target, key, objects)
    return total_bytes(objects)


def copy_named(source: Storage, target: Storage, key: str, digest: str) -> None:
    """Copy an object whose key carries the digest of its bytes."""
    put_named(target, key, fetch_checked(source, key, digest, in_memory)[""], digest)


def published(source: CachedDataset, target: Storage, stores: dict[str, int]) -> DatasetVersion:
    """The dataset's version at the target: one that is there, whatever came after it, or a new one."""
    log, version = Log(target), source.version
    for number in log.numbers():
        here = version_from(log.read(number), target.url)
        same = (here.name, here.samples, here.stores) == (version.name, version.samples, stores)
        if same and here.card.as_dict() == version.card.as_dict():
            return here
    return publish(target, version.card, source.samples, stores, source.presence, version.name)
