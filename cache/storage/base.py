"""What the cache asks of a place that keeps bytes: read, put if absent, list, delete. Nothing is ever rewritten.

Keys are relative and use `/`. An object appears whole or not at all, and a put says whether it was the one that made
it: that is all a commit needs, on a disk as on an object store.
"""

import errno
import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import xxhash

from ..errors import CorruptStore, UserError

Parts = Sequence[bytes | memoryview]
Pieces = Iterable[bytes | memoryview]
T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """An object: its key, its size in bytes and when it was written (seconds since 1970, by the storage's clock)."""

    key: str
    bytes: int
    modified: float


class Stream(NamedTuple):
    """An object on its way: its bytes, and the pieces they come in, which can be taken once."""

    size: int
    pieces: Pieces


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

    def fetch(self, key: str) -> dict[str, Stream]:
        """An object under "", or every object of a group by name: sorted, and to be read in that order.

        Raises FileNotFoundError, here or while it is read.
        """
        return {name: Stream(size, self._whole(joined(key, name))) for name, size in self.sizes(key).items()}

    def sizes(self, key: str) -> dict[str, int]:
        """The bytes of an object under "", or of every object of a group by name, sorted. Raises FileNotFoundError."""
        if (size := self.size(key)) is not None:
            return {"": size}
        below = {entry.key.removeprefix(key).lstrip("/"): entry.bytes for entry in self.entries(key)}
        if not below:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{self.url}/{key}")
        return dict(sorted(below.items()))

    def _whole(self, key: str) -> Iterator[bytes]:
        yield self.read(key)

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


def in_memory(objects: Mapping[str, Stream]) -> dict[str, Parts]:
    """All of their bytes."""
    return {name: list(stream.pieces) for name, stream in objects.items()}


def fetch_checked(storage: Storage, key: str, digest: str, keep: Callable[[dict[str, Stream]], T]) -> T:
    """What `keep` makes of what is fetched, held against its digest while it is read and before the last piece ends.

    Asked for once more where that fails, as what was wrong may be the line. Raises FileNotFoundError, CorruptStore.
    """
    try:
        return keep(checked(storage, key, digest))
    except CorruptStore:
        return keep(checked(storage, key, digest))


def checked(storage: Storage, key: str, digest: str) -> dict[str, Stream]:
    """What `Storage.fetch` gives; the end of the last object is a CorruptStore where the digest is another."""
    objects = storage.fetch(key)
    hasher = xxhash.xxh3_64()

    def read(name: str, stream: Stream, last: bool) -> Iterator[bytes | memoryview]:
        hasher.update(f"{name} {stream.size}\n".encode())
        for piece in stream.pieces:
            hasher.update(piece)
            yield piece
        if last and hasher.hexdigest() != digest:
            raise CorruptStore(
                f"{storage.url}/{key} is not as it was written: its digest is not {digest}; run `pgm cache verify`"
            )

    return {name: Stream(it.size, read(name, it, name == max(objects))) for name, it in objects.items()}


def is_whole(storage: Storage, key: str, digest: str) -> bool:
    """Whether an object or group is there and is what was written. Reads all of it."""
    try:
        for stream in checked(storage, key, digest).values():
            deque(stream.pieces, maxlen=0)
    except (FileNotFoundError, CorruptStore):
        return False
    return True


def put_named(storage: Storage, key: str, parts: Parts, digest: str) -> None:
    """Put an object whose key carries the digest of its bytes; one that has been damaged since is replaced."""
    if not storage.put(key, parts) and digest_of({"": [storage.read(key)]}) != digest:
        storage.delete(key)
        storage.put(key, parts)


def as_bytes(array: npt.NDArray[Any]) -> memoryview:
    """The bytes of a contiguous array, not copied."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
