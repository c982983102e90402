"""A client, a scheduler and two workers that share no file system, only an S3 endpoint; one worker is killed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from . import hosts

NAMESPACES = ["unshare", "--user", "--map-root-user", "--net", "--mount"]
FILES = {
    "config.json",
    "environment.json",
    "metrics.jsonl",
    "predictions-test.parquet",
    "predictions-val.parquet",
    "result.json",
    "weights.safetensors",
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the client found; see hosts.py."""
    try:
        allowed = subprocess.run(
            [*NAMESPACES, "ip", "link", "add", "br0", "type", "bridge"], capture_output=True, check=False
        )
    except FileNotFoundError as error:
        pytest.skip(f"no {error.filename} on this machine")
    if allowed.returncode:
        pytest.skip(f"namespaces are not allowed here: {allowed.stderr.decode().strip()}")
    base = tmp_path_factory.mktemp("machine")
    command = [*NAMESPACES, sys.executable, hosts.__file__, str(base)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    assert list(base.iterdir()) == []
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same extraction, serially in a folder."""
    folder = tmp_path_factory.mktemp("alone")
    hosts.extract(hosts.write_table(folder), folder / "features", "--executor=serial")
    return folder


@pytest.mark.slow
def test_the_features_are_those_of_one_machine(found: dict[str, Any], alone: Path) -> None:
    assert found["killed"]
    assert found["segments_then"] < found["segments"]
    info = hosts.pgm("cache", "info", "--features", str(alone / "features"), "--json")
    assert found["content"] == info[0]["content"]
    assert found["segments"] == info[0]["segments"]
    assert (found["versions"], found["failed"]) == ([1], 0)


@pytest.mark.slow
def test_finished_runs_come_back_whole(found: dict[str, Any], alone: Path) -> None:
    rows = hosts.ablate(alone / "features", alone / "runs", "--plan")["rows"]
    assert set(found["here"]) == {run for row in rows for run in row["runs"]}
    assert all(set(files) == FILES for files in found["here"].values())
    assert found["there"] == ["finished"] * len(rows)
