"""Files that are either whole or not there: temporary name, flush, rename; and their checksums.

A shard is renamed without waiting for the disk; `settle` waits once, before a store is called complete. A power cut in
between costs the shards whose checksums then fail, and never a wrong answer.
"""

import errno
import json
import mmap
import os
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from .errors import CorruptStore, RunFailed

SEAL = "checksum"
SETTLING = 16
OUT_OF_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class FileRecord:
    """A finished file: its name inside the store, its size and the xxh3_128 of all its bytes."""

    name: str
    bytes: int
    checksum: str

    def as_list(self) -> list[Any]:
        """Compact JSON: a big store has thousands of these."""
        return [self.name, self.bytes, self.checksum]


def checksum(path: Path) -> str:
    """xxh3_128 of a file's bytes, read through the page cache."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            return xxhash.xxh3_128_hexdigest(b"")
        with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as mapped:
            return xxhash.xxh3_128_hexdigest(mapped)


def record_file(folder: Path, name: str) -> FileRecord:
    """The record of a file that is already in place."""
    path = folder / name
    return FileRecord(name, path.stat().st_size, checksum(path))


@contextmanager
def explain_full_disk(path: Path) -> Iterator[None]:
    """Turn "no space left" into an error that says what stays and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in OUT_OF_SPACE:
            raise
        free = shutil.disk_usage(path.parent).free
        raise RunFailed(
            f"no room to write {path} ({os.strerror(error.errno)}; {free / 1e6:,.0f} MB free on that disk). "
            "What was finished is intact: free some space and run the same command again."
        ) from error


def write_parts(path: Path, parts: Iterable[bytes | memoryview]) -> tuple[int, str]:
    """Write byte parts to `path`; return the size and the xxh3_128."""
    hasher, size = xxhash.xxh3_128(), 0
    with explain_full_disk(path), path.open("wb", buffering=0) as file:
        for part in parts:
            view = memoryview(part).cast("B")
            hasher.update(view)
            size += len(view)
            # In one call where the system takes it: a shard then lies in large folios of the page cache, which a
            # reader maps by 2 MiB entries. In calls of 1 MiB it would not (0.85 against 0.6 of memory's speed).
            while view:
                view = view[file.write(view) :]
    return size, hasher.hexdigest()


def write_atomically(path: Path, content: bytes, sync: bool = False) -> None:
    """Write a small file whole or not at all; with `sync`, on the disk when this returns."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write_parts(temporary, [content])
        if sync:
            settle([temporary])
        os.replace(temporary, path)
        if sync:
            settle([path.parent])
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any, sync: bool = False) -> None:
    """JSON for people and programs: sorted, indented, one final newline."""
    write_atomically(path, _spelled(value), sync)


def write_sealed_json(path: Path, value: dict[str, Any], sync: bool = False) -> None:
    """JSON that carries the checksum of its other fields."""
    write_atomically(path, _spelled({**value, SEAL: xxhash.xxh3_128_hexdigest(_spelled(value))}), sync)


def read_sealed_json(path: Path) -> dict[str, Any]:
    """JSON written by `write_sealed_json`, to the byte; CorruptStore when any has changed."""
    value = read_json(path)
    seal = value.pop(SEAL, None)
    if xxhash.xxh3_128_hexdigest(_spelled(value)) != seal or path.read_bytes() != _spelled({**value, SEAL: seal}):
        raise CorruptStore(f"{path} is not as it was written: its own checksum fails; run `pgm cache verify`")
    return value


def _spelled(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; CorruptStore names the file when it is not one."""
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise CorruptStore(
            f"{path} is not readable JSON ({error}); `pgm cache verify` says what else is wrong"
        ) from error
    if not isinstance(value, dict):
        raise CorruptStore(f"{path} should hold a JSON object and holds {type(value).__name__}")
    return value


def settle(paths: Iterable[Path]) -> None:
    """Wait until files or folders are on the disk; several at once, because a disk commits them together."""
    with ThreadPoolExecutor(SETTLING) as pool:
        list(pool.map(_settle_one, paths))


def _settle_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
