"""The mirror: fetched once whoever races, never over its size, and never wrong for who reads from it."""

from __future__ import annotations

import errno
import multiprocessing
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from pgm.cache.errors import RunFailed, UserError
from pgm.cache.storage import Storage, local, mirror, storage_at
from pgm.cache.storage.base import digest_of
from pgm.cache.storage.mapping import map_file
from pgm.cache.storage.mirror import Mirror, mirror_of


@pytest.fixture
def storage(s3_bucket: str) -> Storage:
    return storage_at(f"{s3_bucket}/x")


def put(storage: Storage, name: str, size: int = 100_000) -> tuple[str, str, bytes]:
    """An object of random bytes: key, digest, content."""
    content = os.urandom(size)
    storage.put(name, [content])
    return name, digest_of({"": [content]}), content


def test_a_second_read_asks_nobody(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    key, digest, content = put(storage, "a")
    first = storage.local(key, digest)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert storage.local(key, digest) == first
    assert first.read_bytes() == content


def test_the_same_key_of_two_places_is_two_objects(s3_bucket: str) -> None:
    here, there = storage_at(f"{s3_bucket}/here"), storage_at(f"{s3_bucket}/there")
    one, two = put(here, "a"), put(there, "a")
    assert here.local(*one[:2]).read_bytes() == one[2]
    assert there.local(*two[:2]).read_bytes() == two[2]


def test_the_least_recently_used_go_first_and_come_back_when_asked_for(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGM_MIRROR_SIZE", "450KB")
    made = [put(storage, f"object-{n}") for n in range(10)]
    here = Mirror.here()
    for n, (key, digest, content) in enumerate(made):
        path = storage.local(key, digest)
        os.utime(path, (n, n))
        os.utime(storage.local(*made[0][:2]), (99, 99))
        assert path.read_bytes() == content
        assert here.held() <= 450_000
    there = sorted(path.name.split("-", 1)[1] for path in (tmp_path / "mirror").iterdir())
    assert "object-0" in there
    assert "object-9" in there
    assert "object-1" not in there
    assert all(storage.local(key, digest).read_bytes() == content for key, digest, content in made)


def test_what_a_power_cut_left_under_an_entry_s_name_is_fetched_again(storage: Storage) -> None:
    """Nothing in the mirror waits for the disk: after a start of the machine bytes are held against their digest."""
    key, digest, content = put(storage, "a")
    path = storage.local(key, digest)
    path.write_bytes(bytes(len(content)))
    os.utime(path, (mirror.started() - 1, mirror.started() - 1))
    assert storage.local(key, digest).read_bytes() == content
    os.utime(path, (mirror.started() - 1, mirror.started() - 1))
    before = path.stat().st_ino
    assert storage.local(key, digest).stat().st_ino == before


def test_a_mirrored_object_waits_for_no_disk(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.local(*put(storage, "whatever made the folder")[:2])
    key, digest, content = put(storage, "a")
    waited = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: waited.append(threading.current_thread()))
    assert storage.local(key, digest).read_bytes() == content
    assert threading.main_thread() not in waited


def test_what_the_disk_could_not_keep_is_fetched_again(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page cache took it, and the disk refuses it later: after that its pages may read as anything."""
    storage.local(*put(storage, "whatever made the folder")[:2])
    key, digest, content = put(storage, "a")
    mirror.unsettled.cache_clear()  # what was used before is asked for in a minute
    asked = threading.Event()

    def broken(descriptor: int) -> None:
        asked.set()
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", broken)
        patched.setattr(mirror, "WRITTEN", 0.2)
        path = storage.local(key, digest)
        assert path.read_bytes() == content
        assert asked.wait(10)
        while path.exists():
            time.sleep(0.01)
    assert storage.local(key, digest).read_bytes() == content


def test_who_has_mapped_a_file_keeps_it(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGM_MIRROR_SIZE", "150KB")
    key, digest, content = put(storage, "first")
    path = storage.local(key, digest)
    mapped = map_file(path)
    storage.local(*put(storage, "second")[:2])
    assert not path.exists()
    assert mapped.tobytes() == content


def test_an_object_larger_than_the_mirror_is_read_all_the_same(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGM_MIRROR_SIZE", "10KB")
    key, digest, content = put(storage, "large")
    assert storage.local(key, digest).read_bytes() == content


def fetch(url: str, made: list[tuple[str, str]], begin: object, found: object) -> None:
    """Child: fetch everything, and say what was read."""
    storage = storage_at(url)
    begin.wait()  # type: ignore[attr-defined]
    found.put([digest_of({"": [map_file(storage.local(*each)).data]}) for each in made])  # type: ignore[attr-defined]


def test_processes_that_race_for_the_same_objects_all_read_them_whole(storage: Storage, tmp_path: Path) -> None:
    made = [put(storage, f"object-{n}", 1_000_000)[:2] for n in range(5)]
    spawn = multiprocessing.get_context("spawn")
    begin, found = spawn.Barrier(3), spawn.Queue()
    readers = [spawn.Process(target=fetch, args=(storage.url, made, begin, found)) for _ in range(3)]
    for reader in readers:
        reader.start()
    assert [found.get(timeout=60) for _ in readers] == [[digest for _, digest in made]] * 3
    for reader in readers:
        reader.join()
    assert len(list((tmp_path / "mirror").iterdir())) == 5


def test_a_full_disk_makes_room_and_then_says_what_to_do(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = put(storage, "first"), put(storage, "second")
    kept = storage.local(*first[:2])
    write_parts = local.write_parts

    def full(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(
        local, "write_parts", lambda *call, **options: (full if kept.exists() else write_parts)(*call, **options)
    )
    assert storage.local(*second[:2]).read_bytes() == second[2]
    third = put(storage, "third")
    monkeypatch.setattr(local, "write_parts", full)
    with pytest.raises(RunFailed, match="PGM_MIRROR name another disk"):
        storage.local(*third[:2])


def test_what_a_killed_process_left_is_swept(storage: Storage, tmp_path: Path) -> None:
    left = tmp_path / "mirror" / ".tmp-1-abc"
    left.mkdir(parents=True)
    (left / "part").write_bytes(b"x" * 1000)
    os.utime(left, (0, 0))
    Mirror.here().shrink(0)
    assert not left.exists()


@pytest.mark.parametrize(("size", "bytes"), [("200GB", 200 * 10**9), ("1.5 mb", 1_500_000), ("700", 700)])
def test_sizes(size: str, bytes: int) -> None:
    assert mirror_of("/tmp/x", size).limit() == bytes


def test_a_size_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match="PGM_MIRROR_SIZE=200GB"):
        mirror_of("/tmp/x", "plenty")


def test_the_default_leaves_half_of_the_free_disk(tmp_path: Path) -> None:
    free = os.statvfs(tmp_path)
    assert np.isclose(mirror_of(str(tmp_path / "m"), "").limit(), free.f_bavail * free.f_frsize / 2, rtol=0.1)
