"""What the cache asks of a place that keeps bytes: read, put if absent, list, delete. Nothing is ever rewritten.

Keys are relative and use `/`. An object appears whole or not at all, and a put says whether it was the one that made
it: that is all a commit needs, on a disk as on an object store.
"""

import errno
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from ..errors import CorruptStore, UserError

Parts = Sequence[bytes | memoryview]


@dataclass(frozen=True)
class Entry:
    """An object: its key, its size in bytes and when it was written (seconds since 1970, by the storage's clock)."""

    key: str
    bytes: int
    modified: float


class Storage(ABC):
    """A root under which objects lie. Picklable; safe to share between threads."""

    @property
    @abstractmethod
    def url(self) -> str:
        """The root as a user names it: a path, or s3://bucket/prefix."""

    @property
    def name(self) -> str:
        """The root's last component."""
        return self.url.rstrip("/").rsplit("/", 1)[-1]

    @property
    def parent(self) -> "Storage":
        """The storage one level up."""
        return storage_at(self.url.rstrip("/").rsplit("/", 1)[0])

    @abstractmethod
    def under(self, key: str) -> "Storage":
        """The storage rooted at `key`; nothing needs to be there yet."""

    @abstractmethod
    def read(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        """Bytes start:stop of an object. Raises FileNotFoundError."""

    @abstractmethod
    def local(self, key: str, digest: str) -> Path:
        """A path on this machine that holds the object, or the group below `key`; remote ones are fetched once.

        digest: what `digest_of` gave when it was written; what is fetched is checked by it. Raises FileNotFoundError,
        CorruptStore for other bytes.
        """

    def fetch(self, key: str) -> dict[str, Parts]:
        """An object's bytes under "", or those of every object of a group by name. Raises FileNotFoundError."""
        if self.exists(key):
            return {"": [self.read(key)]}
        objects: dict[str, Parts] = {e.key.removeprefix(f"{key}/"): [self.read(e.key)] for e in self.entries(key)}
        if not objects:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{self.url}/{key}")
        return objects

    @abstractmethod
    def put(self, key: str, parts: Parts) -> bool:
        """Write an object unless the key is taken; True where this call made it. Durable when it returns.

        An object store may say False of a put of ours whose first answer was lost: who must know compares the bytes.
        Keys of objects beyond 64 MiB must carry a digest of their bytes: an object store may write those twice.
        """

    @abstractmethod
    def put_group(self, key: str, objects: Mapping[str, Parts]) -> bool:
        """Write several objects below `key` unless they are there; the last is the one that says the group is whole."""

    @abstractmethod
    def names(self, key: str = "") -> list[str]:
        """The names directly below `key`, sorted; empty where there is nothing."""

    def groups(self, key: str, marker: str) -> list[str]:
        """The names directly below `key` of objects, and of groups that are whole: that have their `marker`."""
        return self.names(key)

    @abstractmethod
    def entries(self, key: str = "") -> Iterator[Entry]:
        """Every object below `key`, sorted by key."""

    @abstractmethod
    def size(self, key: str) -> int | None:
        """An object's bytes; None where there is none."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object, or everything below a key; nothing happens where there is nothing. Durable."""

    def flush(self, key: str) -> None:
        """Wait until the names directly below `key` are durable, whoever gave them."""
        return  # where an object can be seen, it is

    def hold(self, key: str) -> object | None:
        """Something to keep for as long as an object is in use, so that `in_use` sees it; None where nobody can."""
        return None

    def in_use(self, key: str) -> bool:
        """Whether a process is known to hold an object. Advice: an object store knows of nobody."""
        return False

    def leftovers(self) -> Iterator[Entry]:
        """What writers that died left under temporary names, anywhere below."""
        return iter(())

    def exists(self, key: str) -> bool:
        """Whether there is an object of this key."""
        return self.size(key) is not None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Storage) and self.url == other.url

    def __hash__(self) -> int:
        return hash(self.url)


def storage_at(place: "Storage | PathLike[str] | str") -> Storage:
    """The storage a user names: a folder, or s3://, gs:// or az:// with credentials from the usual environment."""
    if isinstance(place, Storage):
        return place
    text = str(place)
    if "://" in text and not text.startswith("file://"):
        # obstore is only imported where there is an object store to talk to.
        try:
            from .remote import RemoteStorage
        except ModuleNotFoundError as error:
            raise UserError(f"{text} needs the package {error.name}: python -m pip install {error.name}") from error

        return RemoteStorage(text)
    from .local import LocalStorage

    return LocalStorage(Path(text.removeprefix("file://")))


def absolute_url(place: "Storage | PathLike[str] | str") -> str:
    """The place as another process, with another working folder, can open it."""
    url = storage_at(place).url
    return url if "://" in url else str(Path(url).absolute())


def joined(*parts: str) -> str:
    """Keys put together, without empty components."""
    return "/".join(part.strip("/") for part in parts if part.strip("/"))


def total_bytes(objects: Mapping[str, Parts]) -> int:
    """Bytes of all objects."""
    return sum(memoryview(part).nbytes for parts in objects.values() for part in parts)


def digest_of(objects: Mapping[str, Parts]) -> str:
    """16 hex digits (xxh3_64) of the names, sizes and bytes of a group's objects; a single object's name is ''."""
    hasher = xxhash.xxh3_64()
    for name in sorted(objects):
        views = [memoryview(part).cast("B") for part in objects[name]]
        hasher.update(f"{name} {sum(map(len, views))}\n".encode())
        for view in views:
            hasher.update(view)
    return hasher.hexdigest()


def fetch_checked(storage: Storage, key: str, digest: str) -> dict[str, Parts]:
    """What `Storage.fetch` gives, held against its digest; asked for once more, as what was wrong may be the line.

    Raises FileNotFoundError, CorruptStore.
    """
    for _ in range(2):
        objects = storage.fetch(key)
        if digest_of(objects) == digest:
            return objects
    raise CorruptStore(
        f"{storage.url}/{key} is not as it was written: its digest is not {digest}; run `pgm cache verify`"
    )


def put_named(storage: Storage, key: str, parts: Parts, digest: str) -> None:
    """Put an object whose key carries the digest of its bytes; one that has been damaged since is replaced."""
    if not storage.put(key, parts) and digest_of({"": [storage.read(key)]}) != digest:
        storage.delete(key)
        storage.put(key, parts)


def as_bytes(array: npt.NDArray[Any]) -> memoryview:
    """The bytes of a contiguous array, not copied."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
