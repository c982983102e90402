"""`pgm cache push` and `pull`: what arrives is what was there, once, however often the copy was broken off."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pgm.cache import DatasetCard, Identity, ids_digest, open_dataset, publish, storage_at, write_features
from pgm.cache.errors import CorruptStore, NotFound

from .conftest import Places, run, said

PGM = str(Path(sys.executable).parent / "pgm")
CARD = DatasetCard("grown", "classification", ("a", "b"), ("accuracy",))


def grow(root: object, samples: int, weights: str = "toy") -> None:
    """A dataset of so many samples, six a segment; growing it adds segments."""
    dataset = storage_at(root).under("grown")  # type: ignore[arg-type]
    ids = [f"clip {row}" for row in range(samples)]
    tokens = np.random.default_rng(0).normal(size=(samples * 2, 8)).astype(np.float32)
    identity = Identity("text", "toy", {"weights": weights})
    lengths = [2] * samples
    version = write_features(
        dataset, identity, ids, ids_digest(ids), lengths, tokens, "float32", segment_bytes=6 * 2 * 8 * 4
    )
    table = pa.table({"id": ids, "split": ["train"] * samples, "label": [row % 2 for row in range(samples)]})
    publish(dataset, CARD, table, {identity.folder: version.number})


def contents(root: object) -> list[str]:
    return [one["content"] for one in said("cache", "info", "--features", root)]


def is_sound(root: object) -> bool:
    return all(report["sound"] for report in said("cache", "verify", "--features", root))


def test_there_and_back_again(places: Places, tmp_path: Path) -> None:
    run("cache", "split", "toy", "--by", "random", "--features", places.folder)
    pushed = said("cache", "push", "toy", f"{places.bucket}/pushed", "--features", places.folder)
    assert (pushed["segments"], pushed["there"], pushed["version"]) == (2, 0, 1)
    before = list(storage_at(f"{places.bucket}/pushed").entries())
    again = said("cache", "push", "toy", f"{places.bucket}/pushed", "--features", places.folder)
    assert (again["segments"], again["there"], again["version"]) == (0, 2, 1)
    assert list(storage_at(f"{places.bucket}/pushed").entries()) == before
    said("cache", "pull", f"{places.bucket}/pushed/toy", "--features", tmp_path)
    assert contents(tmp_path) == contents(places.folder)
    assert open_dataset(tmp_path, "toy").samples == open_dataset(places.folder, "toy").samples
    listed = said("cache", "split", "toy", "--list", "--features", tmp_path)
    assert listed == json.loads(
        json.dumps(said("cache", "split", "toy", "--list", "--features", places.folder)).replace(
            str(places.folder), str(tmp_path)
        )
    )
    assert is_sound(tmp_path)


def test_only_what_is_new_is_copied_and_older_versions_stay(bucket: str, tmp_path: Path) -> None:
    here, there = tmp_path / "here", f"{bucket}/growing"
    grow(here, 60)
    assert said("cache", "push", "grown", there, "--features", here)["segments"] == 10
    grow(here, 66)
    pushed = said("cache", "push", "grown", there, "--features", here)
    assert (pushed["segments"], pushed["there"], pushed["version"]) == (1, 10, 2)
    earlier = said("cache", "pull", there, "--version", "1", "--features", tmp_path / "back")
    assert (earlier["segments"], earlier["version"]) == (10, 1)
    assert len(open_dataset(tmp_path / "back", "grown").samples) == 60
    # The first version is there under its number, and is not committed a second time over the newer one.
    assert said("cache", "push", "grown", there, "--version", "1", "--features", here)["version"] == 1
    assert len(open_dataset(there, "grown").samples) == 66


def test_a_push_that_was_killed_goes_on_from_what_arrived(
    bucket: str, proxy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", f"{bucket}/killed"
    grow(here, 180)
    command = [PGM, "cache", "push", "grown", there, "--features", str(here)]
    whole: set[str] = set()

    def late(method: str, path: str) -> bool:
        if method == "PUT" and path.endswith(".zarr/zarr.json"):
            whole.add(path)
        return len(whole) > 20

    proxy.faults += [(late, "stall")] * 100
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while len(whole) <= 20:
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    proxy.faults.clear()
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    with pytest.raises(NotFound):
        open_dataset(there, "grown")
    pushed = said("cache", "push", "grown", there, "--features", here)
    assert pushed["there"] >= 15
    assert pushed["segments"] + pushed["there"] == 30
    assert contents(there) == contents(here)
    assert is_sound(there)
    assert [row["version"] for row in said("cache", "log", "grown", "--features", there)] == [1]


def test_a_pull_through_faults_gives_the_same_once(bucket: str, proxy: Any, tmp_path: Path) -> None:
    there = f"{bucket}/faulty"
    grow(there, 60)
    whole = contents(there)
    proxy.faults += [
        (lambda method, path, name=name: method == "GET" and name in path, what)
        for name in ("c/0", "zarr.json", "samples", ".index")
        for what in ("500", "flip", "cut", "lost")
    ]
    said("cache", "pull", there, "--features", tmp_path)
    assert len(proxy.met) >= 10
    assert contents(tmp_path) == whole
    assert is_sound(tmp_path)


def test_a_damaged_segment_is_refused_and_nothing_is_published(bucket: str, tmp_path: Path) -> None:
    here, there = tmp_path / "here", f"{bucket}/refused"
    grow(here, 12)
    [path, *_] = (here / "grown").glob("text--*/segments/*/tokens/c/0/0")
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    with pytest.raises(CorruptStore, match="is not as it was written"):
        run("cache", "push", "grown", there, "--features", here)
    with pytest.raises(NotFound):
        open_dataset(there, "grown")


def test_a_store_of_another_identity_stands_beside_and_a_pull_of_nothing_is_told(bucket: str, tmp_path: Path) -> None:
    grow(tmp_path, 12)
    grow(f"{bucket}/two", 12, weights="others")
    run("cache", "push", "grown", f"{bucket}/two", "--features", tmp_path)
    assert len(said("cache", "ls", "--features", f"{bucket}/two")) == 2
    with pytest.raises(NotFound, match="is no dataset, and holds none"):
        run("cache", "pull", f"{bucket}/nothing", "--features", tmp_path)
