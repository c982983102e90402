"""Where features, runs and the mirror lie: can they be written, how fast, and does the place keep its promises?

The promises are those the cache rests on: an object is put once, a second writer sees that it is there, a reader maps
what is being removed, and the clock of the files is the machine's.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..cache.errors import PgMError
from ..cache.storage import LocalStorage, Storage, storage_at
from .check import Check, fail, ok, warn

PROBE = ".pgm-doctor-"
BYTES = 64 << 20
LEAST_FREE = 10e9  # bytes
SLOW = 100e6  # bytes a second
NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "lustre", "beegfs", "ceph", "gpfs"}
VOLATILE = {"tmpfs", "ramfs"}
SKEW = 2.0  # seconds
ADVICE_LINKS = "Choose a folder on a local disk (--features), or an object store; this one cannot commit safely."
CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION, with AWS_ENDPOINT_URL for another endpoint",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}


def places(named: Mapping[str, str]) -> Iterator[Check]:
    """All that can be found out of the places for features and runs; what is written there for it is removed again.

    A disk that holds several is tried once.
    """
    tried: set[int] = set()
    for name, where in named.items():
        yield from place(name, where, tried)


def place(name: str, where: str, tried: set[int]) -> Iterator[Check]:
    """One of them. tried: the devices whose promises and speed are known."""
    try:
        storage = storage_at(where)
        if isinstance(storage, LocalStorage):
            yield from folder(name, storage.path, tried)
        else:
            yield bucket(name, storage)
    except PgMError as error:
        scheme = where.partition("://")[0]
        known = f" The credentials are read from {CREDENTIALS[scheme]}." if scheme in CREDENTIALS else ""
        yield fail(name, f"{where}: {error}", f"Mend the address, the credentials or the network.{known}")


def folder(name: str, path: Path, tried: set[int]) -> Iterator[Check]:
    """A folder of a file system: kind, room, rights, promises and speed."""
    there = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    kind, free = file_system(there), shutil.disk_usage(there).free
    found = f"{path.absolute()} ({kind}, {free / 1e9:,.0f} GB free)"
    if not os.access(there, os.W_OK | os.X_OK):
        yield fail(name, f"{found}: it cannot be written", "Choose another folder, or give yourself the right.")
        return
    if free < LEAST_FREE:
        yield warn(name, found, "Paper-size features of 100,000 samples take tens of GB: choose a larger disk.")
    elif kind in NETWORK:
        advice = "A network file system: every epoch reads at its speed; s3:// and the like keep a local mirror."
        yield warn(name, found, advice)
    elif kind in VOLATILE:
        yield warn(name, found, "This file system is in memory: what lies there is gone after a restart.")
    else:
        yield ok(name, found)
    if (device := there.stat().st_dev) in tried:
        return
    tried.add(device)
    try:
        with tempfile.TemporaryDirectory(prefix=PROBE, dir=there) as scratch:
            yield commits(f"{name}: commits", LocalStorage(Path(scratch)))
            yield clock(f"{name}: clock", Path(scratch))
            yield speed(f"{name}: speed", Path(scratch))
    except OSError as error:
        yield fail(f"{name}: writing", f"it takes no files: {error}", "Choose another folder, or free some space.")


def bucket(name: str, storage: Storage) -> Check:
    """A prefix of an object store: credentials, rights, conditional puts, and how long a small object takes."""
    key = f"{PROBE}{secrets.token_hex(4)}"
    begun = time.perf_counter()
    try:
        first, second = storage.put(key, [b"first"]), storage.put(key, [b"second"])
        kept = storage.read(key)
        took = (time.perf_counter() - begun) / 3
    finally:
        storage.delete(key)
    found = f"{storage.url}: {took * 1e3:.0f} ms a request"
    if not first or second or kept != b"first":
        advice = "The store ignores If-None-Match: two writers could overwrite each other. Update it, or use another."
        return fail(name, f"{found}; a second put replaced the first", advice)
    return ok(name, f"{found}, conditional puts hold")


def commits(name: str, storage: LocalStorage) -> Check:
    """Whether put-if-absent holds here: by a hard link for an object, by a rename for a group of objects."""
    try:
        found = [storage.put("one", [b"first"]), storage.put("one", [b"second"])]
        found += [storage.put_group("many", {"a": [b"first"]}), storage.put_group("many", {"a": [b"second"]})]
    except (OSError, PgMError) as error:
        return fail(name, f"an object could not be put: {error}", ADVICE_LINKS)
    whole = storage.read("one") + storage.read("many/a")
    if found != [True, False, True, False] or whole != b"firstfirst":
        return fail(name, "a second put replaced the first", ADVICE_LINKS)
    return ok(name, "an object is put once, and a second writer sees it")


def clock(name: str, path: Path) -> Check:
    """Whether files get the machine's time."""
    probe = path / "clock"
    before = time.time()
    probe.touch()
    dated = probe.stat().st_mtime
    skew = max(before - dated, dated - time.time())
    if skew > SKEW:
        advice = "The file server's clock is off (ntpd, chronyd): `pgm cache gc` judges by it which versions are young."
        return warn(name, f"files are dated {skew:.0f} s off", advice)
    return ok(name, "files have the machine's time")


def speed(name: str, path: Path) -> Check:
    """Writing (on the disk when the clock stops), reading from the disk, and reading again from the page cache."""
    probe, content = path / "speed", secrets.token_bytes(1 << 20) * (BYTES >> 20)
    begun = time.perf_counter()
    with probe.open("wb", buffering=0) as file:
        file.write(content)
        os.fsync(file.fileno())
        written = time.perf_counter() - begun
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    took, buffer = [], bytearray(BYTES)
    for _ in range(2):
        begun = time.perf_counter()
        with probe.open("rb", buffering=0) as file:
            file.readinto(buffer)
        took.append(time.perf_counter() - begun)
    write, read, again = (BYTES / seconds for seconds in (written, *took))
    found = f"writes {in_rate(write)}, reads {in_rate(read)}, again {in_rate(again)}"
    if min(write, read) < SLOW:
        return warn(name, found, "A slow disk: extraction and the first epoch wait for it. Choose another if you can.")
    if again < max(read / 2, 3 * SLOW):
        return warn(
            name, found, "What was read does not stay in the page cache: every epoch costs what the first does."
        )
    return ok(name, found)


def file_system(path: Path) -> str:
    """The kind of the file system a path lies on, as /proc/mounts calls it."""
    kinds: dict[str, str] = {}
    for line in Path("/proc/mounts").read_text().splitlines():
        _, point, kind, *_ = line.split(" ")
        kinds[point.encode().decode("unicode_escape")] = kind
    lies = next(str(parent) for parent in (path, *path.parents) if str(parent) in kinds)
    return kinds[lies]


def in_rate(rate: float) -> str:
    """Bytes a second for people."""
    return f"{rate / 1e9:.1f} GB/s" if rate >= 1e9 else f"{rate / 1e6:.0f} MB/s"
