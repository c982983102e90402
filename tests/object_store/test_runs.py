"""`--runs s3://...`: finished runs are put whole and found there, by machines that share nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pgm.cache import storage_at
from pgm.cache.errors import NotFound, UserError
from pgm.trainer import Run, list_runs, open_run
from pgm.trainer.run.home import home_of

from .conftest import TINY, Places, run, said

PGM = str(Path(sys.executable).parent / "pgm")


@pytest.fixture
def another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, a machine without the mirror and the scratch folder of before."""
    monkeypatch.setenv("PGM_SCRATCH", str(tmp_path / "another/scratch"))
    monkeypatch.setenv("PGM_MIRROR", str(tmp_path / "another/mirror"))


def train(places: Places, runs: object, *more: str) -> Any:
    return said("train", "--cached", "--method=concat", "--features", places.url, "--runs", runs, *TINY, *more)


def objects(url: str) -> list[str]:
    return [entry.key for entry in storage_at(url).entries()]


@pytest.fixture(scope="module")
def kept(places: Places) -> tuple[str, Any]:
    """A runs place with one run in it, and what was said of the run."""
    return f"{places.bucket}/kept", train(places, f"{places.bucket}/kept")


def test_a_run_is_what_it_is_in_a_folder_and_another_machine_answers_from_it(
    kept: tuple[str, Any], places: Places, tmp_path: Path, another_machine: None
) -> None:
    url, told = kept
    here = train(places, tmp_path / "runs")
    for field in ("run", "val", "test", "floors", "epochs"):
        assert here[field] == told[field], field
    before = objects(url)
    assert train(places, url) == told
    assert objects(url) == before
    [found] = list_runs(url)
    weights = Run(tmp_path / "runs" / told["run"]).weights
    assert found.weights.read_bytes() == weights.read_bytes()
    assert {path.name for path in found.path.iterdir()} == {path.name for path in weights.parent.iterdir()}


def test_the_commands_about_runs(kept: tuple[str, Any], places: Places, tmp_path: Path, another_machine: None) -> None:
    url, told = kept
    assert [(one["run"], one["state"]) for one in said("runs", "ls", "--runs", url)] == [(told["run"], "finished")]
    assert said("runs", "show", told["run"][:6], "--runs", url)["result"]["test"] == told["test"]
    assert said("evaluate", told["run"], "--runs", url)["metrics"] == told["test"]
    run("predict", told["run"], "--runs", url, "--features", places.url, "--out", tmp_path / "predictions.parquet")
    with pytest.raises(NotFound, match="There are 1; see: pgm runs ls"):
        run("runs", "show", "nothing", "--runs", url)
    with pytest.raises(UserError, match="s4://x/y is no place"):
        run("runs", "ls", "--runs", "s4://x/y")


def test_removing_and_training_anew(places: Places) -> None:
    url = f"{places.bucket}/removed"
    told = train(places, url)
    again = train(places, url, "--force")
    assert again["test"] == told["test"]
    assert again["seconds"] != told["seconds"]
    assert storage_at(url).under(told["run"]).names("versions") == ["000001.json", "000002.json"]
    run("runs", "rm", told["run"], "--runs", url)
    assert objects(url) == []
    assert list_runs(url) == []


def test_of_two_machines_that_finish_one_run_the_first_keeps_it(
    places: Places, tmp_path: Path, another_machine: None
) -> None:
    url = f"{places.bucket}/raced"
    first, second = train(places, url), train(places, tmp_path)
    folder = tmp_path / second["run"]
    assert first["seconds"] != second["seconds"]
    before = objects(url)
    home = home_of(url, second["run"])
    assert home is not None
    home.put(folder, {})
    assert Run(folder).result == open_run(url, first["run"]).result == first
    assert storage_at(url).under(first["run"]).names("versions") == ["000001.json"]
    assert set(before) <= set(objects(url))


def test_a_kill_before_the_run_is_handed_back_leaves_none_and_the_same_command_finishes_it(
    places: Places, bucket: str, proxy: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = f"{bucket}/killed-run"
    monkeypatch.setenv("PGM_SCRATCH", str(tmp_path / "scratch"))
    command = [PGM, "train", "--cached", "--method=concat", "--features", places.url, "--runs", url, *TINY]
    proxy.faults += [(lambda method, path: method == "PUT" and "/versions/" in path, "stall")] * 20
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not proxy.met:
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    proxy.faults.clear()
    assert objects(url)
    with monkeypatch.context() as patch:
        patch.setenv("PGM_SCRATCH", str(tmp_path / "another"))
        assert list_runs(url) == []
    told = train(places, url)
    assert storage_at(url).under(told["run"]).names("versions") == ["000001.json"]


def test_a_run_is_handed_back_once_through_faults(
    places: Places, bucket: str, proxy: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = f"{bucket}/faulty-runs"

    def put_of(name: str) -> Any:
        return lambda method, path: method == "PUT" and name in path

    proxy.faults += [(put_of(name), what) for what in ("500", "lost") for name in ("weights", "result", "/versions/")]
    told = train(places, url, "--seed=3")
    assert len(proxy.met) == 6
    assert storage_at(url).under(told["run"]).names("versions") == ["000001.json"]
    monkeypatch.setenv("PGM_SCRATCH", str(tmp_path / "another"))
    assert open_run(url, told["run"]).result == told


def test_what_a_table_measures_of_a_run_is_handed_back_too(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{places.bucket}/measured"
    words = ["--dataset=toy", "--seeds=1", "--workers=1", "--methods=concat", "--features", places.url, "--runs", url]
    table = ["table", "balance", *words, *TINY, "--format=json"]
    first = json.loads(run(*table).stdout)
    before = objects(url)
    monkeypatch.setenv("PGM_SCRATCH", str(tmp_path / "another"))
    assert json.loads(run(*table).stdout) == first
    assert objects(url) == before
    assert any("laziness-1.json" in name for name in before)
