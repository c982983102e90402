"""Where one sample's raw input of one modality lies, and how its bytes are read.

A `Media` is a small picklable value: planning lists them, worker processes read them. Nothing is decoded here. The
digest of the bytes is what tells later whether a source has changed, whatever its path or its modification time say.
Only regular files are read: a pipe, a socket or a device could block a worker for ever or never end.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import xxhash

# Of a file: its size, inode and times of modification and of change, in nanoseconds.
Seen = tuple[int, int, int, int]
# A file is read whole into memory before it is decoded.
MAX_BYTES = 4 << 30


@dataclass(frozen=True, slots=True)
class FileMedia:
    """A media file (image, sound, video or text).

    Frames are taken of the clip's first `seconds`, where given; of sound every encoder takes 30 s at most.
    """

    path: str
    seconds: float | None = None

    def read(self) -> bytes:
        """The file's bytes. Raises OSError where it cannot be read, is no regular file, or exceeds `MAX_BYTES`."""
        return self.loaded().data

    def blocks(self) -> Iterator[bytes]:
        """The same bytes in pieces, so that a long video needs no memory of its size."""
        with _opened(self.path) as (file, _):
            while block := os.read(file, 1 << 20):
                yield block

    def digest(self) -> str:
        """128-bit content hash."""
        hasher = xxhash.xxh3_128()
        for block in self.blocks():
            hasher.update(block)
        if self.seconds is not None:
            # What is used of the file is part of the source: another limit means other features.
            hasher.update(f"first {self.seconds:g} s".encode())
        return hasher.hexdigest()

    def loaded(self) -> LoadedFile:
        """The file with its bytes, read once for whatever is asked of it. Raises OSError as `read` does."""
        with _opened(self.path) as (file, seen):
            return LoadedFile(self.path, self.seconds, _exactly(file, seen[0]), seen)

    @property
    def name(self) -> str:
        """The file's name without its folders, which differ between machines."""
        return os.path.basename(self.path)

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True, slots=True)
class LoadedFile(FileMedia):
    """A media file whose bytes are in memory, `seen` as it was opened; None where it never was on a disk."""

    data: bytes = b""
    seen: Seen | None = None

    def digest(self) -> str:
        # In one call: of a short text a hasher of its own costs a twentieth of what encoding it does.
        return xxhash.xxh3_128_hexdigest(self.data) if self.seconds is None else FileMedia.digest(self)

    def read(self) -> bytes:
        return self.data

    def blocks(self) -> Iterator[bytes]:
        yield self.data

    def loaded(self) -> LoadedFile:
        return self


@dataclass(frozen=True, slots=True)
class TextMedia:
    """A text that stands in the dataset's table itself."""

    text: str

    def read(self) -> bytes:
        return self.text.encode("utf-8", errors="surrogatepass")

    def digest(self) -> str:
        return xxhash.xxh3_128_hexdigest(self.read())

    def loaded(self) -> TextMedia:
        return self

    @property
    def name(self) -> str:
        return repr(self.text[:60])

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class ArrayMedia:
    """Row `row` of array `key` of an .npz file: an image of shape (H, W) or (H, W, 3), uint8."""

    path: str
    key: str
    row: int

    def array(self) -> np.ndarray:
        return np.asarray(_npz_array(self.path, self.key)[self.row])

    def read(self) -> bytes:
        buffer = io.BytesIO()
        np.save(buffer, self.array(), allow_pickle=False)
        return buffer.getvalue()

    def digest(self) -> str:
        return xxhash.xxh3_128_hexdigest(self.read())

    def loaded(self) -> ArrayMedia:
        return self

    @property
    def name(self) -> str:
        return f"{Path(self.path).name}[{self.key}][{self.row}]"

    def __str__(self) -> str:
        return f"{self.path}[{self.key}][{self.row}]"


Media = FileMedia | TextMedia | ArrayMedia

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def seen(status: os.stat_result) -> Seen:
    """What a file is known by."""
    return status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns


class _opened:
    """The file's descriptor, and what it is known by. Raises OSError for what is no regular file, before it is read.

    A class, and the system's own calls: of a short text this is a tenth of what encoding it costs.
    """

    __slots__ = ("file", "path")

    def __init__(self, path: str) -> None:
        self.path = path

    def __enter__(self) -> tuple[int, Seen]:
        path = self.path
        if (kind := stat.S_IFMT(os.stat(path).st_mode)) != stat.S_IFREG:
            raise OSError(errno.EINVAL, f"{KINDS.get(kind, 'something else')}, not a regular file", path)
        self.file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        # Again: what lies at a path may change between a look and a read.
        now = os.fstat(self.file)
        try:
            if not stat.S_ISREG(now.st_mode):
                raise OSError(errno.EINVAL, "not a regular file", path)
            if now.st_size > MAX_BYTES:
                raise OSError(errno.EFBIG, f"file of {now.st_size:,} bytes; the limit is {MAX_BYTES:,}", path)
        except OSError:
            os.close(self.file)
            raise
        return self.file, seen(now)

    def __exit__(self, *_: object) -> None:
        os.close(self.file)


def _exactly(file: int, size: int) -> bytes:
    """All of a file that had so many bytes a moment ago."""
    content = os.read(file, size + 1)
    if len(content) == size:
        return content
    # It grew, or the system gives no more than 2 GiB at once.
    parts = [content]
    while part := os.read(file, 1 << 30):
        parts.append(part)
    return b"".join(parts)


@lru_cache(maxsize=4)
def _npz_array(path: str, key: str) -> np.ndarray:
    with np.load(path, allow_pickle=False) as archive:
        return np.asarray(archive[key])
