"""Remote objects on this machine's disk: fetched once, checked by digest, the least recently used ones removed.

`PGM_MIRROR` is the folder (~/.cache/pgm/mirror), `PGM_MIRROR_SIZE` what it may hold (as 200GB; by default half of what
the disk could give it). Objects never change, so what is there is right; a process that has mapped a file keeps it when
it is removed, and whoever asks for it again fetches it again.

Nobody waits for the disk here. A thread asks it, when it must have written, and removes what it could not keep. A
machine that loses power may leave anything under an entry's name: what was last used before this one started is held
against its digest again.
"""

import contextlib
import os
import re
import shutil
import threading
import time
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from queue import SimpleQueue

import xxhash

from ..errors import RunFailed, UserError
from .base import Storage, Stream, fetch_checked, is_whole
from .local import TEMPORARY, LocalStorage, sync

FOLDER = "PGM_MIRROR"
SIZE = "PGM_MIRROR_SIZE"
UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
KEPT = 0.8  # of its size, after making room
CLOCK = 60.0  # seconds by which a machine's clock may be set right after its start
WRITTEN = 60.0  # seconds in which a kernel writes what it was given: then a flush costs nothing, and tells of errors
ABANDONED = 3600.0  # seconds after which a half-fetched object is nobody's


@dataclass(eq=False)
class Mirror:
    """A folder of fetched objects and groups, each one entry. size: bytes it may hold; None: half of what is free."""

    folder: Path
    size: int | None = None
    _unseen: float = 0.0  # bytes that may still be fetched before the folder is looked at again
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @staticmethod
    def here() -> "Mirror":
        """The mirror the environment names."""
        return mirror_of(os.environ.get(FOLDER, ""), os.environ.get(SIZE, ""))

    def path(self, storage: Storage, key: str, digest: str) -> Path:
        """Where an object or group lies on this disk, fetched if need be. Raises FileNotFoundError, CorruptStore."""
        place = self.folder / entry_name(storage.url, key)
        try:
            if place.stat().st_mtime < started() and not is_whole(self._here, place.name, digest):
                self._here.delete(place.name)
            os.utime(place)
        except FileNotFoundError:
            self._fetch(storage, key, digest, place.name)
        unsettled().put((time.monotonic() + WRITTEN, self, place))
        return place

    def settle(self, place: Path) -> None:
        """Remove an entry that the disk could not keep: who asks for it next fetches it again."""
        try:
            for path in [*place.rglob("*"), place]:
                sync(path)
        except FileNotFoundError:
            pass  # it had to make room
        except OSError:
            self._here.delete(place.name)

    @property
    def _here(self) -> LocalStorage:
        return LocalStorage(self.folder, durable=False)

    def _fetch(self, storage: Storage, key: str, digest: str, name: str) -> None:
        def keep(objects: dict[str, Stream]) -> None:
            """Each piece goes to the disk as it comes: what was fetched is never in memory as a whole."""
            self._make_room(sum(stream.size for stream in objects.values()))
            pieces = {name: stream.pieces for name, stream in objects.items()}
            if "" in pieces:
                self._here.put(name, pieces[""])
            else:
                self._here.put_group(name, pieces)

        try:
            fetch_checked(storage, key, digest, keep)
        except RunFailed as failed:
            if not is_of_disk(failed):
                raise
            self.shrink(self.held() // 2)
            try:
                fetch_checked(storage, key, digest, keep)
            except RunFailed as again:
                if not is_of_disk(again):
                    raise
                raise RunFailed(f"the mirror of remote features: {again} Or let {FOLDER} name another disk.") from again

    def _make_room(self, size: int) -> None:
        with self._lock:
            self._unseen -= size
            if self._unseen > 0:
                return
            held, limit = self.held(), self.limit()
            if held + size > limit:
                held = self.shrink(int(limit * KEPT) - size)
            # Other processes fetch, too: look again before they and this one can have filled it.
            self._unseen = (limit - held - size) / 8

    def limit(self) -> int:
        """Bytes the mirror may hold."""
        if self.size is not None:
            return self.size
        self.folder.mkdir(parents=True, exist_ok=True)
        return (shutil.disk_usage(self.folder).free + self.held()) // 2

    def held(self) -> int:
        """Bytes the mirror holds."""
        return sum(size for _, size, _ in self._entries())

    def shrink(self, limit: int) -> int:
        """Remove the least recently used entries until `limit` bytes are left; returns the bytes left."""
        entries = sorted(self._entries())
        left = sum(size for _, size, _ in entries)
        for used, size, name in entries:
            if name.startswith(TEMPORARY):
                if time.time() - used < ABANDONED:
                    continue
            elif left <= limit:
                continue
            # Another process may remove it at the same time.
            with contextlib.suppress(FileNotFoundError):
                self._here.delete(name)
            left -= size
        return left

    def _entries(self) -> list[tuple[float, int, str]]:
        """(last used, bytes, name) of each entry; those that vanish meanwhile are left out."""
        found = []
        for name in os.listdir(self.folder) if self.folder.is_dir() else []:
            path = self.folder / name
            with contextlib.suppress(FileNotFoundError):
                files = [path, *path.rglob("*")] if path.is_dir() else [path]
                size = sum(file.stat().st_size for file in files)
                found.append((path.stat().st_mtime, size, name))
        return found


@cache
def unsettled() -> "SimpleQueue[tuple[float, Mirror, Path]]":
    """Entries that were used, and when to ask the disk for each; what does. A process ends without waiting for it."""
    queue: SimpleQueue[tuple[float, Mirror, Path]] = SimpleQueue()

    def ask() -> None:
        while True:
            due, mirror, place = queue.get()
            time.sleep(max(0.0, due - time.monotonic()))
            mirror.settle(place)

    threading.Thread(target=ask, name="pgm-mirror", daemon=True).start()
    return queue


def is_of_disk(error: RunFailed) -> bool:
    """Whether this machine's disk is why, and not the place that was fetched from."""
    return isinstance(error.__cause__, OSError)


def started() -> float:
    """When this machine started, or a little later (in seconds since 1970)."""
    return time.time() - time.monotonic() + CLOCK


@lru_cache(maxsize=8)
def mirror_of(folder: str, size: str) -> Mirror:
    """The mirror of these two variables. Raises UserError for a size that is none."""
    path = Path(folder).expanduser() if folder else Path.home() / ".cache/pgm/mirror"
    if not size:
        return Mirror(path)
    parsed = re.fullmatch(r"([0-9.]+)\s*([KMGT]B)?", size.strip().upper())
    if not parsed:
        raise UserError(f"{SIZE}={size!r} is no size; give bytes, or for example {SIZE}=200GB")
    return Mirror(path, int(float(parsed[1]) * UNITS[parsed[2] or ""]))


def entry_name(url: str, key: str) -> str:
    """A name of its own for every object of every storage, that ends as the object's."""
    return f"{xxhash.xxh3_64_hexdigest(f'{url}/{key}'.encode())}-{key.rsplit('/', 1)[-1]}"
