"""A hint that spares reading media again: which file, as it was last seen, had which digest.

A file is known by its path, size, inode and times of modification and of change, in nanoseconds. The time of change
(ctime) is the file system's own: copying over a file, `cp -p`, `touch -d` and `rsync -t` all set it to now, whatever
they make of the time of modification. Not trusted is a file changed less than `SETTLED` seconds before it was looked
at, as file systems keep time in ticks, nor one changed in the future. What a file was is asked of the open file before
it is read: one that changes afterwards is another. So a change goes unnoticed only where a clock was set back and
ticked the same nanosecond again, or a disk was written to beneath its file system; then the earlier features stay,
under the digest of the bytes they were made from.
What is encoded is digested from the bytes that are encoded, journal or not. `--check-sources` reads everything.

The journal is a file of the user's cache folder, and belongs to this machine. It is appended to, 32 bytes a source and
a checksum a block; what a writer that died left of a block is passed over. Losing it costs one reading of the media.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from ..media import FileMedia, Media, Seen, seen

Digests = NDArray[np.uint8]
SETTLED = 2.0
HEADER = struct.Struct("<4sIQ")  # mark, sources, xxh3_64 of what follows
MARK = b"pgmj"
NO_KEY = bytes(16)


@dataclass(frozen=True)
class Journal:
    """The journal in a file, which need not be there."""

    path: Path

    @staticmethod
    def of(store: str) -> Journal:
        """That of the store at a URL."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return Journal(cache / "pgm" / "sources" / f"{xxhash.xxh3_64_hexdigest(store.encode())}.journal")

    def find(self, keys: Digests) -> Digests:
        """(N, 16) the digest each of (N, 16) keys had; zeros where none is known."""
        found = np.zeros_like(keys)
        known = self._read()
        rows = np.flatnonzero(keys.any(axis=1))
        if len(known) and len(rows):
            there, asked = first_half(known[:, :16]), first_half(keys[rows])
            order = np.argsort(there, kind="stable")
            # The last of equal keys: what was seen later.
            at = order[np.maximum(np.searchsorted(there[order], asked, side="right") - 1, 0)]
            same = (known[at, :16] == keys[rows]).all(axis=1)
            found[rows[same]] = known[at[same], 16:]
        return found

    def add(self, keys: Digests, digests: Digests) -> None:
        """Remember digests (n, 16) of keys (n, 16); zeros in either are left out."""
        some = keys.any(axis=1) & digests.any(axis=1)
        content = np.concatenate([keys[some], digests[some]], axis=1).tobytes()
        if not content:
            return
        block = HEADER.pack(MARK, len(content) // 32, xxhash.xxh3_64_intdigest(content)) + content
        # A hint: where the folder cannot be written to, media are read again.
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab", buffering=0) as file:
                file.write(block)

    def _read(self) -> Digests:
        content = b""
        with suppress(OSError):
            content = self.path.read_bytes()
        return np.concatenate([np.zeros((0, 32), np.uint8), *_blocks(content)])


def _blocks(content: bytes) -> Iterator[Digests]:
    """The sound blocks, (n, 32) each."""
    at = content.find(MARK)
    while at >= 0:
        after = at + 1
        if at + HEADER.size <= len(content):
            _, count, checksum = HEADER.unpack_from(content, at)
            start, stop = at + HEADER.size, at + HEADER.size + 32 * count
            if stop <= len(content) and xxhash.xxh3_64_intdigest(content[start:stop]) == checksum:
                yield np.frombuffer(content, np.uint8, 32 * count, start).reshape(-1, 32)
                after = stop
        at = content.find(MARK, after)


def first_half(digests: Digests) -> NDArray[np.uint64]:
    """(n,) the first eight bytes of (n, 16) digests."""
    halves: NDArray[np.uint64] = np.ascontiguousarray(digests).view(np.uint64)[:, 0]
    return halves


def file_keys(media: Sequence[Media | None]) -> Digests:
    """(N, 16) what each file is known by; zeros for what is no file, cannot be seen, or changed a moment ago."""
    if not any(issubclass(kind, FileMedia) for kind in set(map(type, media))):
        return np.zeros((len(media), 16), np.uint8)
    before = settled()
    keys = [
        file_key(source, _looked_at(source.path), before) if isinstance(source, FileMedia) else NO_KEY
        for source in media
    ]
    return np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 16)


def _looked_at(path: str) -> Seen | None:
    try:
        return seen(os.stat(path))
    except (OSError, ValueError):
        return None


def settled() -> float:
    """What changed before this moment, in nanoseconds, can be told from what changes from now on."""
    return (time.time() - SETTLED) * 1e9


def file_key(source: FileMedia, seen: Seen | None, settled: float) -> bytes:
    """16 bytes that a file is known by; zeros where it was not there, or changed a moment ago."""
    if seen is None or seen[2] > settled or seen[3] > settled:
        return NO_KEY
    told = f"{source.path}\0{source.seconds} {seen[0]} {seen[1]} {seen[2]} {seen[3]}"
    return xxhash.xxh3_128_digest(told.encode(errors="surrogateescape"))
