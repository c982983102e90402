"""A folder of a file system. Objects are files: written under a temporary name, flushed, then given their name.

A single object gets its name by a hard link, which fails where the name is taken; a group by renaming its folder. Both
are atomic, so a kill leaves at most a temporary name that `pgm cache gc` sweeps.
"""

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import RunFailed, UserError
from .base import Entry, Pieces, Storage

TEMPORARY = ".tmp-"
OUT_OF_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}
TAKEN = {errno.EEXIST, errno.ENOTEMPTY}
SYNCING = 16  # files at once: a disk commits them together
_settled: set[Path] = set()  # folders whose names this process knows to be on the disk


class LocalStorage(Storage):
    """Objects as files below `path`. durable: whether a put waits for the disk."""

    def __init__(self, path: Path, durable: bool = True) -> None:
        self.path, self.durable = Path(path), durable

    @property
    def url(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        return self.path.absolute().name

    @property
    def parent(self) -> "LocalStorage":
        return LocalStorage(self.path.absolute().parent)

    def under(self, key: str) -> "LocalStorage":
        return LocalStorage(self.path / key)

    def read(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        with (self.path / key).open("rb") as file:
            file.seek(start)
            return file.read(-1 if stop is None else max(stop - start, 0))

    def local(self, key: str, digest: str) -> Path:
        path = self.path / key
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return path

    def put(self, key: str, parts: Pieces) -> bool:
        path = self.path / key
        with explain(path):
            make_folder(path.parent)
            temporary = _temporary(path)
            try:
                write_parts(temporary, parts, self.durable)
                made = _unless_taken(os.link, temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
            # Of a taken name too: whoever made it may not have come so far.
            self._settle([path.parent])
        return made

    def put_group(self, key: str, objects: Mapping[str, Pieces]) -> bool:
        path = self.path / key
        if path.exists():
            self._settle([path.parent])
            return False
        with explain(path):
            make_folder(path.parent)
            temporary = _temporary(path)
            try:
                for name, parts in objects.items():
                    (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                    write_parts(temporary / name, parts, flush=False)
                # Together, and not one after another: a disk then waits once.
                self._settle([*(temporary / name for name in objects), *folders_of(temporary)])
                made = _unless_taken(os.rename, temporary, path)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            self._settle([path.parent])
        return made

    def _settle(self, paths: list[Path]) -> None:
        if self.durable and len(paths) == 1:
            sync(*paths)
        elif self.durable:
            settle(paths)

    def names(self, key: str = "") -> list[str]:
        try:
            return sorted(name for name in os.listdir(self.path / key) if not name.startswith(TEMPORARY))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def entries(self, key: str = "") -> Iterator[Entry]:
        root = self.path / key
        paths = sorted(path for path in root.rglob("*") if not path.is_dir() or path.is_symlink())
        for path in paths:
            name = path.relative_to(self.path).as_posix()
            with suppress(FileNotFoundError):
                status = path.stat()
                if f"/{TEMPORARY}" not in f"/{name}":
                    yield Entry(name, status.st_size, status.st_mtime)

    def size(self, key: str) -> int | None:
        path = self.path / key
        try:
            return path.stat().st_size if path.is_file() else None
        except OSError:
            return None

    def hold(self, key: str) -> object | None:
        return Hold.shared(self.path / key)

    def in_use(self, key: str) -> bool:
        return Hold.is_taken(self.path / key)

    def leftovers(self) -> Iterator[Entry]:
        for path in sorted(self.path.rglob(f"{TEMPORARY}*")):
            with suppress(FileNotFoundError):
                files = [path, *path.rglob("*")] if path.is_dir() else [path]
                statuses = [file.stat() for file in files]
                newest = max(status.st_mtime for status in statuses)
                yield Entry(path.relative_to(self.path).as_posix(), sum(s.st_size for s in statuses), newest)

    def delete(self, key: str) -> None:
        path = self.path / key
        if path.is_dir() and not path.is_symlink():
            # Out of the way in one step: whoever looks sees the whole group, or none of it.
            doomed = _temporary(path)
            os.rename(path, doomed)
            self._settle([path.parent])
            shutil.rmtree(doomed)
        elif path.exists():
            path.unlink(missing_ok=True)
            self._settle([path.parent])

    def flush(self, key: str) -> None:
        with suppress(FileNotFoundError):
            sync(self.path / key)


class Hold:
    """A shared lock on a file, by the kernel: it goes with the process, however that ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @staticmethod
    def shared(path: Path) -> "Hold | None":
        """Say that a file is in use; None where it is gone, or the file system knows no locks."""
        try:
            hold = Hold(os.open(path, os.O_RDONLY))
            fcntl.flock(hold._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return None
        return hold

    @staticmethod
    def is_taken(path: Path) -> bool:
        """Whether anybody, this process too, says that a file is in use."""
        try:
            hold = Hold(os.open(path, os.O_RDONLY))
            fcntl.flock(hold._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def __del__(self) -> None:
        os.close(self._descriptor)


def _unless_taken(give_name: Callable[[Path, Path], None], temporary: Path, path: Path) -> bool:
    try:
        give_name(temporary, path)
    except OSError as error:
        if error.errno in TAKEN:
            return False
        raise
    return True


def make_folder(path: Path) -> None:
    """A folder and those above it, their names on the disk too: whoever made them may not have come so far."""
    path = path.absolute()
    if (path in _settled and path.is_dir()) or path == path.parent:
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    with suppress(PermissionError):
        sync(path.parent)
    _settled.add(path)


def _temporary(path: Path) -> Path:
    return path.with_name(f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}")


def write_parts(path: Path, parts: Pieces, flush: bool = True) -> None:
    """A new file from byte parts."""
    with path.open("xb", buffering=0) as file:
        for part in parts:
            view = memoryview(part).cast("B")
            # In one call where the system takes it: a file then lies in large folios of the page cache, which a
            # reader maps by 2 MiB entries. In calls of 1 MiB it would not (0.85 against 0.6 of memory's speed).
            while view:
                view = view[file.write(view) :]
        if flush:
            os.fsync(file.fileno())


def folders_of(root: Path) -> list[Path]:
    """A folder and those below it."""
    return [root, *(path for path in root.rglob("*") if path.is_dir())]


def settle(paths: list[Path]) -> None:
    """Wait until files and folders are on the disk."""
    with ThreadPoolExecutor(min(SYNCING, len(paths))) as pool:
        list(pool.map(sync, paths))


def sync(path: Path) -> None:
    """Wait until one file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def explain(path: Path) -> Iterator[None]:
    """Turn a full or read-only disk into an error that says what stays and what to do."""
    try:
        yield
    except OSError as error:
        there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
        if error.errno in OUT_OF_SPACE:
            free = shutil.disk_usage(there).free
            raise RunFailed(
                f"no room to write {path} ({os.strerror(error.errno)}; {free / 1e6:,.0f} MB free on that disk). "
                "What was finished is intact: free some space and run the same command again."
            ) from error
        if error.errno in READ_ONLY:
            raise UserError(
                f"{path} cannot be written ({os.strerror(error.errno)} at {there}). Choose another --features folder, "
                "or give yourself the right to write there."
            ) from error
        raise
