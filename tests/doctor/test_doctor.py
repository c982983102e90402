"""What `pgm doctor` says of real places and processes, and that it leaves nothing behind and tells nothing secret."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from pgm.cli import app
from pgm.doctor import Check
from pgm.doctor.environment import constraints, dependencies, descriptors, environment, unmet
from pgm.doctor.network import other_versions, workers
from pgm.doctor.places import file_system, places
from pgm.doctor.report import anonymous, bundle, examine
from pgm.workers import Workers
from typer.testing import CliRunner

ROOT = Path(__file__).parents[2]


def states(checks: Iterator[Check]) -> dict[str, str]:
    return {check.name: check.state for check in checks}


def test_this_machine_can_run_its_own_tests() -> None:
    found = list(environment())
    assert [check.name for check in found if check.state == "fail"] == []
    assert dependencies().state == "ok"


def test_versions_are_held_against_what_is_declared_and_pinned() -> None:
    assert unmet(Requirement("numpy>=2")) == ""
    assert unmet(Requirement("numpy>=99")) == f"numpy is {version('numpy')}, and >=99 is needed"
    assert unmet(Requirement("no-such-package")) == "no-such-package is not installed"
    assert constraints(f"# pins\nnumpy=={version('numpy')}\nno-such-package==1\n").state == "ok"
    other = constraints("numpy==0.1\n")
    assert (other.state, f"numpy {version('numpy')} (not 0.1)" in other.found) == ("warn", True)


def test_few_files_a_process_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (256, 4096))
    assert (descriptors().state, "ulimit -n 4096" in descriptors().advice) == ("warn", True)


def test_a_folder_is_tried_for_real_and_left_as_it_was(tmp_path: Path) -> None:
    wanted = tmp_path / "with spaces" / "features"
    found = list(places({"features": str(wanted), "runs": str(tmp_path / "runs")}))
    assert {check.name for check in found} == {
        "features",
        "features: commits",
        "features: clock",
        "features: speed",
        "runs",
    }
    assert {check.state for check in found} <= {"ok", "warn"}
    assert next(check for check in found if check.name == "features: commits").state == "ok"
    assert list(tmp_path.iterdir()) == []
    assert file_system(Path("/proc")) == "proc"


def test_a_place_that_takes_no_files_fails() -> None:
    found = list(places({"features": "/proc/features"}))
    assert found[-1].state == "fail"


def test_an_address_that_is_none_fails_with_what_to_give() -> None:
    (check,) = places({"features": "ftp://somewhere"})
    assert (check.state, "s3://BUCKET/PREFIX" in check.found) == ("fail", True)


def test_a_bucket_is_tried_by_a_conditional_put(s3_bucket: str) -> None:
    (check,) = places({"features": f"{s3_bucket}/prefix"})
    assert (check.state, "conditional puts hold" in check.found) == ("ok", True)


def test_a_bucket_that_is_not_there_fails_and_names_the_credentials(s3_bucket: str) -> None:
    (check,) = places({"features": f"{s3_bucket}-not/prefix"})
    assert (check.state, "AWS_ACCESS_KEY_ID" in check.advice) == ("fail", True)


def test_workers_of_a_running_scheduler_are_asked_for_their_versions() -> None:
    with Workers(1) as running:
        (check,) = workers(running.client.scheduler.address)
        assert (check.state, "1 workers" in check.found) == ("ok", True)


def test_a_worker_with_another_version_is_named() -> None:
    def of(numpy: str) -> dict[str, Any]:
        return {"packages": {"numpy": numpy, "dask": "1"}}

    assert other_versions({"client": of("2"), "workers": {"a": of("2"), "b": of("1")}}) == ["numpy"]


def test_a_report_names_no_path_address_or_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "marie")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    place = str(tmp_path / "a b" / "features")
    found = [*environment(), *places({"features": place}), Check("x", "ok", "s3://secret/place of marie")]
    text = bundle(found, [place])
    assert str(tmp_path) not in text
    assert "PATH (" in text
    assert "hush" not in text
    assert "marie" not in text
    assert "secret" not in text
    assert f"numpy=={version('numpy')}" in text
    assert anonymous("/home/marie/a (ext4, 3 GB)") == "PATH (ext4, 3 GB)"
    assert anonymous("tcp://10.0.0.1:8786 answers") == "ADDRESS answers"


def test_the_command_prints_lines_or_json_and_ends_by_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgm.doctor.report.workers", lambda scheduler: iter([Check("Dask", "ok", "not tried here")]))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    places = ["--features", str(tmp_path / "f"), "--runs", str(tmp_path / "r")]
    plain = CliRunner().invoke(app, ["doctor", *places])
    assert plain.exit_code == 0, plain.output
    assert plain.stdout.splitlines()[-1].endswith("0 in the way")
    found = json.loads(CliRunner().invoke(app, ["doctor", *places, "--json"]).stdout)
    assert {"name", "state", "found", "advice"} == set(found[0])
    failed = CliRunner().invoke(app, ["doctor", "--features", "ftp://x", "--runs", str(tmp_path)])
    assert failed.exit_code == 1
    assert "fail features:" in failed.stdout


def test_all_of_it_in_turn(tmp_path: Path) -> None:
    found = states(examine(str(tmp_path / "f"), str(tmp_path / "r")))
    assert next(iter(found)) == "Python"
    assert list(found)[-1] == "Dask"
    assert found["Dask"] == "ok"
