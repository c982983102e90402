"""What every storage promises, on a disk and on an S3 server alike."""

from __future__ import annotations

import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pgm.cache.errors import CorruptStore, UserError
from pgm.cache.storage import Storage, storage_at
from pgm.cache.storage.base import digest_of

GROUP = {"tokens/c/0/0": [b"rows", b"more"], "tokens/zarr.json": [b"{}"], "empty": [b""], "zarr.json": [b"{1}"]}


def test_a_put_makes_an_object_once_and_says_so(storage: Storage) -> None:
    assert storage.put("versions/1.json", [b"first", memoryview(b" one")])
    assert not storage.put("versions/1.json", [b"second"])
    assert storage.read("versions/1.json") == b"first one"
    assert storage.size("versions/1.json") == 9


def test_parts_of_an_object_are_read_by_their_bytes(storage: Storage) -> None:
    storage.put("a", [b"0123456789"])
    reads = [storage.read("a", 3), storage.read("a", 3, 5), storage.read("a", 8, 99), storage.read("a", 9, 2)]
    assert reads == [b"3456789", b"34", b"89", b""]


def test_an_object_may_be_empty(storage: Storage) -> None:
    assert storage.put("nothing", [])
    assert (storage.read("nothing"), storage.size("nothing")) == (b"", 0)
    assert storage.local("nothing", digest_of({"": []})).read_bytes() == b""


def test_what_is_not_there(storage: Storage) -> None:
    for read in (
        lambda: storage.read("a/b"),
        lambda: storage.local("a/b", "0" * 16),
        lambda: storage.read("a/b", 1, 2),
    ):
        with pytest.raises(FileNotFoundError):
            read()
    assert (storage.size("a/b"), storage.exists("a/b"), storage.names("a"), list(storage.entries("a"))) == (
        None,
        False,
        [],
        [],
    )
    storage.delete("a/b")


def test_names_entries_and_groups(storage: Storage) -> None:
    storage.put_group("segments/one.zarr", GROUP)
    storage.put("segments/two.h5", [b"hdf5"])
    storage.put("other", [b"x"])
    assert storage.names() == ["other", "segments"]
    assert storage.names("segments") == storage.groups("segments", "zarr.json") == ["one.zarr", "two.h5"]
    there = {entry.key: entry.bytes for entry in storage.entries("segments")}
    assert there == {
        "segments/one.zarr/empty": 0,
        "segments/one.zarr/tokens/c/0/0": 8,
        "segments/one.zarr/tokens/zarr.json": 2,
        "segments/one.zarr/zarr.json": 3,
        "segments/two.h5": 4,
    }
    assert list(storage.entries("segments")) == sorted(storage.entries("segments"), key=lambda entry: entry.key)


def test_a_name_that_begins_another_is_not_below_it(storage: Storage) -> None:
    storage.put("food/a", [b"1"])
    storage.put("food101/a", [b"2"])
    assert [entry.key for entry in storage.entries("food")] == ["food/a"]
    storage.delete("food")
    assert storage.names() == ["food101"]


def test_a_group_is_put_once_and_comes_back_whole(storage: Storage) -> None:
    assert storage.put_group("segments/one.zarr", GROUP)
    assert not storage.put_group("segments/one.zarr", GROUP)
    folder = storage.local("segments/one.zarr", digest_of(GROUP))
    assert {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()} == {
        name: b"".join(parts) for name, parts in GROUP.items()
    }


def test_deleting_a_group_and_an_object(storage: Storage) -> None:
    storage.put_group("segments/one.zarr", GROUP)
    storage.put("segments/two.h5", [b"hdf5"])
    storage.delete("segments/one.zarr")
    assert storage.names("segments") == ["two.h5"]
    storage.delete("segments/two.h5")
    assert list(storage.entries()) == []
    assert storage.put_group("segments/one.zarr", GROUP)


def test_a_storage_below_another_and_in_another_process(storage: Storage) -> None:
    storage.put("food/store/versions/1.json", [b"{}"])
    below = pickle.loads(pickle.dumps(storage.under("food").under("store")))
    assert below.read("versions/1.json") == b"{}"
    assert (below.name, below.url) == ("store", f"{storage.url}/food/store")
    assert below == storage.under("food/store")
    assert storage_at(storage.url) == storage


def test_many_threads_put_one_key_and_one_of_them_makes_it(storage: Storage) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: storage.put("version", [f"writer {n}".encode()]), range(8)))
    assert sorted(made) == [False] * 7 + [True]
    assert storage.read("version") == f"writer {made.index(True)}".encode()


def race(url: str, writer: int, begin: object, found: object) -> None:
    """Child: put twenty keys as fast as it goes."""
    storage = storage_at(url)
    begin.wait()  # type: ignore[attr-defined]
    found.put((writer, [n for n in range(20) if storage.put(f"versions/{n}", [b"%d" % writer])]))  # type: ignore[attr-defined]


def test_two_processes_race_and_every_key_has_one_maker(storage: Storage) -> None:
    spawn = multiprocessing.get_context("spawn")
    begin, found = spawn.Barrier(2), spawn.Queue()
    writers = [spawn.Process(target=race, args=(storage.url, n, begin, found)) for n in (1, 2)]
    for writer in writers:
        writer.start()
    made = dict(found.get(timeout=60) for _ in writers)
    for writer in writers:
        writer.join()
    assert sorted(made[1] + made[2]) == list(range(20))
    assert all(storage.read(f"versions/{n}") == b"%d" % writer for writer, keys in made.items() for n in keys)


@pytest.mark.parametrize("place", ["s4://bucket/x", "hf://datasets/a/b", "s3://", "s3://bucket//x", "s3://a/../b"])
def test_a_url_of_no_known_store_names_those_there_are(place: str) -> None:
    with pytest.raises(UserError, match="s3://BUCKET/PREFIX"):
        storage_at(place)


def test_what_a_mirror_fetches_is_checked(s3_bucket: str, tmp_path: Path) -> None:
    storage = storage_at(f"{s3_bucket}/x")
    storage.put("a", [b"right"])
    with pytest.raises(CorruptStore, match=r"s3://.*x/a is not as it was written"):
        storage.local("a", digest_of({"": [b"other"]}))
    assert list((tmp_path / "mirror").rglob("*")) == []
