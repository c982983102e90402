"""An object store that fails, lies or is not there: what may pass is tried again, the rest is said in plain words."""

from __future__ import annotations

import os
import time
from datetime import timedelta

import pytest
from pgm.cache.errors import CorruptStore, RunFailed, UserError
from pgm.cache.storage import Storage, remote, storage_at
from pgm.cache.storage.base import digest_of


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stalled connection is given up after a second, and clients of other tests are not used."""
    monkeypatch.setattr(remote, "STALLED", timedelta(seconds=1))
    remote.client.cache_clear()


@pytest.fixture
def storage(s3_bucket: str, proxy: object) -> Storage:
    storage = storage_at(f"{s3_bucket}/x")
    storage.put("there", [b"bytes"])
    return storage


def is_put(name: str) -> object:
    return lambda method, path: method == "PUT" and name in path


def is_get(name: str) -> object:
    return lambda method, path: method == "GET" and name in path


@pytest.mark.parametrize("what", ["500", "503", "stall"])
def test_a_put_is_sent_again_after(what: str, storage: Storage, proxy: object) -> None:
    proxy.faults += [(is_put("/new"), what)]
    assert storage.put("new", [b"content"])
    assert storage.read("new") == b"content"
    assert len(proxy.met) == 1


@pytest.mark.parametrize("what", ["500", "stall", "cut", "lost"])
def test_a_read_is_sent_again_after(what: str, storage: Storage, proxy: object) -> None:
    storage.put("large", [content := os.urandom(1 << 20)])
    proxy.faults += [(is_get("/large"), what)] * 2
    assert storage.local("large", digest_of({"": [content]})).read_bytes() == content
    assert len(proxy.met) == 2


def test_a_put_whose_answer_is_lost_is_there_once_and_is_not_taken_for_anothers(
    storage: Storage, proxy: object
) -> None:
    proxy.faults += [(is_put("/version"), "lost")]
    made = storage.put("version", [b"mine"])
    assert made or storage.read("version") == b"mine"
    assert not storage.put("version", [b"another's"])
    assert storage.read("version") == b"mine"


def test_a_large_object_goes_up_in_parts_through_faults(
    storage: Storage, proxy: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "MULTIPART", 8 << 20)
    monkeypatch.setattr(remote, "PIECE", 5 << 20)
    parts = [os.urandom(6 << 20), os.urandom(5), os.urandom(7 << 20)]
    proxy.faults += [(is_put("partNumber=2"), "500"), (is_put("partNumber=3"), "500")]
    assert storage.put("large", parts)
    assert not storage.put("large", parts)
    assert storage.local("large", digest_of({"": parts})).read_bytes() == b"".join(parts)
    assert len(proxy.met) == 2


def test_a_group_whose_upload_broke_off_is_not_there_until_somebody_finishes_it(
    storage: Storage, proxy: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = {"tokens/c/0/0": [b"rows"], "zarr.json": [b"{}"]}
    with monkeypatch.context() as patch:
        patch.setattr(remote, "ATTEMPTS", 1)
        proxy.faults += [(is_put("one.zarr/zarr.json"), "stall")]
        with pytest.raises(RunFailed, match="run the same command again"):
            storage.put_group("segments/one.zarr", group)
    assert storage.groups("segments", "zarr.json") == []
    assert storage.put_group("segments/one.zarr", group)
    assert storage.groups("segments", "zarr.json") == ["one.zarr"]


def test_a_wrong_byte_on_the_line_is_fetched_again_and_a_wrong_object_refused(storage: Storage, proxy: object) -> None:
    proxy.faults += [(is_get("/there"), "flip")]
    assert storage.local("there", digest_of({"": [b"bytes"]})).read_bytes() == b"bytes"
    storage.put("second", [b"second"])
    proxy.faults += [(is_get("/second"), "flip")] * 2
    with pytest.raises(CorruptStore, match="not as it was written"):
        storage.local("second", digest_of({"": [b"second"]}))


def test_a_bucket_that_is_not_there(storage: Storage) -> None:
    wrong = storage_at("s3://no-such-bucket/x")
    for request in (lambda: wrong.read("a"), lambda: wrong.put("a", [b""]), lambda: wrong.size("a"), wrong.names):
        with pytest.raises(UserError, match="s3://no-such-bucket: the bucket does not exist"):
            request()


def test_no_credentials(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(UserError, match="AWS_ACCESS_KEY_ID"):
        storage.read("there")


def test_an_endpoint_that_does_not_answer_is_told_within_seconds(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    begun = time.monotonic()
    with pytest.raises(RunFailed, match="the endpoint does not answer"):
        storage.read("there")
    assert time.monotonic() - begun < 10


def test_an_azure_account_that_was_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="AZURE_STORAGE_ACCOUNT_NAME"):
        storage_at("az://container/x").read("a")
