"""Commands through a line that fails: refusals, silence, answers lost after the server did what was asked.

Every write is met by each fault once. What comes of it is what comes of it undisturbed: the same contents, one version,
no segment twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pgm.cache import storage_at
from pgm.cache.storage import remote

from .conftest import TINY, Places, import_arrays, run, said

WRITES = ("store.json", "zarr.json", "/c/0", ".index", "/toy/samples/", "/toy/versions/", "split.json")
FAULTS = ("500", "lost", "stall")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Silence is given up after a quarter of a second."""
    monkeypatch.setattr(remote, "STALLED", timedelta(seconds=0.25))
    remote.client.cache_clear()
    yield
    remote.client.cache_clear()


def put_of(name: str) -> Callable[[str, str], bool]:
    return lambda method, path: method == "PUT" and name in path


def get_of(name: str) -> Callable[[str, str], bool]:
    return lambda method, path: method in ("GET", "HEAD") and name in path


def told(root: object) -> dict[str, Any]:
    """Contents, versions and segments of all that lies in a features root; what decides whether two are the same."""
    storage = storage_at(root)  # type: ignore[arg-type]
    names = [entry.key.split("/")[3] for entry in storage.entries() if "/segments/" in entry.key]
    assert names
    return {
        "contents": [one["content"] for one in said("cache", "info", "--features", root)],
        "versions": {
            place: [row["version"] for row in said("cache", "log", place, "--features", root)]
            for place in ("toy", *(f"toy/{name}" for name in storage.names("toy") if "--" in name))
        },
        "segments": sorted(set(names)),
        "sound": [report["sound"] for report in said("cache", "verify", "--features", root)],
    }


@pytest.mark.parametrize("what", FAULTS)
def test_importing_splitting_and_compacting(what: str, bucket: str, proxy: Any, arrays: Path, tmp_path: Path) -> None:
    there = f"{bucket}/faulty-{what}"
    proxy.faults += [(put_of(name), what) for name in WRITES]
    proxy.faults += [(put_of("/versions/000001.json"), what)] * 2
    for root in (tmp_path, there):
        import_arrays(arrays, root)
        run("cache", "split", "toy", "--by", "label", "--features", root)
        made = said("cache", "compact", "toy", "--format", "hdf5", "--features", root)
        assert [one["version"] for one in made] == [2, 2]
    assert len(proxy.met) == len(WRITES) + 2
    assert told(there) == told(tmp_path)


def test_extracting(bucket: str, proxy: Any, digits_root: Path) -> None:
    asked = ["extract", "digits", "--limit=24", "--modality=text", "--executor=serial", "--root", digits_root]
    there = f"{bucket}/faulty-extract"
    proxy.faults += [(put_of(name), what) for what in ("lost", "500") for name in ("zarr.json", ".index", "/versions/")]
    proxy.faults += [(get_of("/versions/"), what) for what in ("500", "cut", "lost")]
    first = said(*asked, "--features", there)["modalities"]["text"]
    assert len(proxy.met) == 9
    assert (first["version"], first["failed"]) == (1, 0)
    assert [row["version"] for row in said("cache", "log", "digits", "--features", there)] == [1]
    assert all(report["sound"] for report in said("cache", "verify", "--features", there))


def test_training(places: Places, proxy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["train", "--cached", "--method=concat", "--seed=7", *TINY]
    here = said(*asked, "--features", places.folder, "--runs", tmp_path / "here")
    monkeypatch.setenv("PGM_MIRROR", str(tmp_path / "empty mirror"))
    proxy.faults += [
        (get_of(name), what)
        for name in ("/c/0", "zarr.json", ".index", "/samples/", "/versions/")
        for what in ("500", "cut", "flip", "lost", "stall")
        if (name, what) != ("/versions/", "flip")
    ]
    found = said(*asked, "--features", places.url, "--runs", tmp_path / "there")
    assert len(proxy.met) >= 20
    assert (found["run"], found["test"]) == (here["run"], here["test"])
