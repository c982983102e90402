"""Other people's metrics select, and their callbacks stop runs and add to them: in the run's name, and recorded."""

from __future__ import annotations

import importlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pgm
import pytest
from pgm.cache.errors import RunFailed, UserError
from pgm.cli import app
from pgm.trainer import Run
from pgm.trainer.run.inference import evaluate_run
from pgm.trainer.run.request import Request, resolve
from pgm.trainer.run.training import Execution, carry_out
from typer.testing import CliRunner

from .test_resume import SETTINGS, assert_same, unfinished

EXAMPLE = Path(__file__).parents[3] / "examples" / "own_method"
STOPS = "pgm_lowrank_metric:Converged"
CALIBRATION = "pgm_lowrank_metric:CalibrationError"
POINTS = f"[pgm.metrics]\ncalibration = {CALIBRATION}\n[pgm.callbacks]\nconverged = {STOPS}\n"
OWN = """
from dataclasses import dataclass
from typing import ClassVar
from pgm.trainer.run.callbacks import Callback

@dataclass(frozen=True)
class Second(Callback):
    version: ClassVar[int] = 1

    def stop(self, history):
        history[0]["losses"].clear()
        return history[-1]["stage"] == "task" and history[-1]["epoch"] == 2

    def metrics(self, history):
        return {"accuracy": -float(history[-1]["epoch"])}

@dataclass(frozen=True)
class Stage1(Callback):
    version: ClassVar[int] = 1

    def stop(self, history):
        return history[0]["stage"] == history[-1]["stage"] and history[-1]["epoch"] == 2

@dataclass(frozen=True)
class Words(Callback):
    version: ClassVar[int] = 1

    def metrics(self, history):
        return {"mood": "good"}

@dataclass(frozen=True)
class Failing(Callback):
    version: ClassVar[int] = 1

    def stop(self, history):
        return history[7]["epoch"]

class Undecorated(Callback):
    version = 1

@dataclass(frozen=True)
class Unversioned(Callback):
    pass
"""
KILLED = """
import os, signal, sys
from pgm.trainer.run.events import BatchFinished, EpochFinished
from pgm.trainer.run.request import Request, resolve
from pgm.trainer.run.training import Execution, carry_out

features, runs, callback, epochs, settings = *sys.argv[1:4], int(sys.argv[4]), eval(sys.argv[5])
seen = 0

def kill(event):
    global seen
    seen += isinstance(event, EpochFinished)
    if isinstance(event, BatchFinished) and seen == epochs:
        os.kill(os.getpid(), signal.SIGKILL)

from pathlib import Path
request = Request(Path(features), Path(runs), method="pgm", settings=settings, callbacks=[callback])
carry_out(resolve(request), Execution(listener=kill, checkpoint_seconds=0))
"""


@pytest.fixture(autouse=True)
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example's module with the entry points that its installation leaves, and a module of callbacks."""
    info = tmp_path / "site" / "pgm_lowrank-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pgm-lowrank\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(POINTS)
    (info.parent / "own_callbacks.py").write_text(OWN)
    for folder in (str(EXAMPLE), str(info.parent)):
        monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", f"{EXAMPLE}:{info.parent}")
    monkeypatch.delitem(sys.modules, "own_callbacks", raising=False)


def resolved(features: Path, runs: Path = Path("unused"), settings: Any = None, **asked: Any) -> Any:
    return resolve(Request(features, runs, settings={**SETTINGS, **(settings or {})}, **asked))


def test_a_run_with_a_callback_has_a_name_of_its_own_and_stops_where_it_says(toy: Path, tmp_path: Path) -> None:
    plain = carry_out(resolved(toy, tmp_path), Execution())
    run = carry_out(resolved(toy, tmp_path, callbacks=["own_callbacks:Second"]), Execution())
    assert run.id != plain.id
    assert [(r["stage"], r["epoch"]) for r in run.metrics] == [(r["stage"], r["epoch"]) for r in plain.metrics][:-1]
    assert run.metrics[0]["losses"] == plain.metrics[0]["losses"]
    stage = run.metrics[-1]["stage"]
    assert run.result["callbacks"] == {
        "own_callbacks:Second": {"metrics": {"accuracy": -2.0}, "stopped": [{"stage": stage, "epoch": 2}]}
    }
    assert set(run.test) == set(plain.test)
    assert run.test["accuracy"] >= 0
    assert f"Stage {stage} was stopped after epoch 2 by own_callbacks:Second." in run.result["notes"]
    assert "callbacks" not in plain.result
    # What it stopped is never taken for the unhindered run, nor its stages for those of others.
    assert carry_out(resolved(toy, tmp_path), Execution()).id == plain.id
    assert len(list((tmp_path / "stages").iterdir())) == 1


def test_name_import_path_class_and_callback_are_one_run_and_its_version_and_fields_are_in_the_name(
    toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = importlib.import_module("pgm_lowrank_metric").Converged
    asked = ("converged", STOPS, kind, kind(), kind(least=0.01))
    before = {resolved(toy, callbacks=[one]).run.id for one in asked}
    assert len(before) == 1
    assert resolved(toy, callbacks=[kind(least=0.5)]).run.id not in before
    monkeypatch.setattr(kind, "version", 2)
    assert resolved(toy, callbacks=["converged"]).run.id not in before


def test_killed_before_and_after_a_stop_it_ends_with_the_same_bits(toy: Path, tmp_path: Path) -> None:
    asked = resolved(toy, tmp_path / "whole", {"epochs": 3, "pretrain_epochs": 3}, callbacks=["own_callbacks:Stage1"])
    whole = carry_out(asked, Execution())
    assert [stop["stage"] for stop in whole.result["callbacks"]["own_callbacks:Stage1"]["stopped"]]
    for epochs in (1, 2):
        settings = repr({**SETTINGS, "epochs": 3, "pretrain_epochs": 3})
        arguments = [str(toy), str(tmp_path / "cut"), "own_callbacks:Stage1", str(epochs), settings]
        killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, check=False)
        assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    unfinished(tmp_path / "cut" / whole.id)
    again = resolved(toy, tmp_path / "cut", {"epochs": 3, "pretrain_epochs": 3}, callbacks=["own_callbacks:Stage1"])
    run = carry_out(again, Execution())
    assert_same(run, whole)
    assert run.result["callbacks"] == whole.result["callbacks"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["convergd"], r"No callback 'convergd'. There are: converged; or .* Did you mean 'converged'\?"),
        (["own_callbacks:Secnd"], "Did you mean 'Second'"),
        (["own_callbacks:Undecorated"], "dataclass.* is missing above the class"),
        (["own_callbacks:Unversioned"], "says no version of its own"),
        (["pathlib:Path"], "is no callback: a callback is a frozen dataclass"),
        (["converged", STOPS], "comes twice"),
    ],
)
def test_what_is_no_callback_is_told_so_in_plain_words(asked: list[str], message: str, toy: Path) -> None:
    with pytest.raises(UserError, match=message):
        resolved(toy, callbacks=asked)


@pytest.mark.parametrize(
    ("name", "message"),
    [("Words", r"metrics\(\) of the callback own_callbacks:Words gave"), ("Failing", "failed: IndexError")],
)
def test_a_callback_that_fails_fails_the_run_by_its_name(
    name: str, message: str, toy: Path, tmp_path: Path, quick: Callable[..., Run]
) -> None:
    with pytest.raises(RunFailed, match=message):
        quick(toy, tmp_path, "linear", callbacks=[f"own_callbacks:{name}"])


def test_the_epoch_is_chosen_by_the_metric_asked_for(toy: Path, tmp_path: Path, quick: Callable[..., Run]) -> None:
    def trained(on: str, **more: Any) -> Run:
        return quick(toy, tmp_path, "linear", settings={"epochs": 6, "lr": 3e-2, "select_on": on, **more})

    by_name, by_path, plain = trained("calibration"), trained(CALIBRATION), trained("accuracy")
    assert by_name.id == by_path.id != plain.id
    assert plain.id == trained("").id
    assert by_name.config["metric"] == {"CalibrationError": 1}
    values = [record["val"][CALIBRATION] for record in by_name.metrics]
    assert by_name.result["epochs"] == {"task": 1 + int(np.argmin(values))}
    assert by_name.val[CALIBRATION] == pytest.approx(min(values))
    assert evaluate_run(by_name, "test", toy, "auto", "cpu")["metrics"] == by_name.test
    assert by_name.result["floors"] == plain.result["floors"]
    f1 = trained("weighted_f1")
    assert f1.config["protocol"]["select_on"] == "weighted_f1"
    assert f1.id != plain.id
    with pytest.raises(UserError, match=r"No metric 'acuracy' to select on. There are: accuracy, .*Did you mean"):
        trained("acuracy")


def test_where_less_is_better_the_least_is_chosen(
    make_toy: Callable[..., Path], tmp_path: Path, quick: Callable[..., Run]
) -> None:
    features = make_toy(tmp_path / "features", task="sentiment")
    settings = {"epochs": 6, "lr": 3e-2}
    runs = {on: quick(features, tmp_path, "linear", settings={**settings, "select_on": on}) for on in ("mae", "corr")}
    for on, best in (("mae", np.argmin), ("corr", np.argmax)):
        assert runs[on].result["epochs"] == {"task": 1 + int(best([r["val"][on] for r in runs[on].metrics]))}


def test_a_table_and_an_ablation_train_with_callbacks_and_find_the_runs_that_train_made(
    toy: Path, tmp_path: Path
) -> None:
    settings = {**SETTINGS, "epochs": 3}
    how = {"runs": tmp_path, "seeds": 1, "settings": settings, "callbacks": ["own_callbacks:Second"]}
    run = carry_out(resolved(toy, tmp_path, settings, method="concat", callbacks=["own_callbacks:Second"]), Execution())
    made = pgm.table("fusion", features=toy, methods="concat,add", **how)
    assert made.results.rows[0].runs == (run.id,)
    assert all(cell.run.result["callbacks"]["own_callbacks:Second"]["stopped"] for cell in made.plan.cells)
    assert any("stopped after epoch 2 by own_callbacks:Second" in note for note in made.results.notes)
    given = [f"--set={name}={value}" for name, value in settings.items()]
    where = ["--features", str(toy), "--runs", str(tmp_path), "--seeds=1", "--workers=1", "--json", *given]
    asked = ["ablate", "--vary=dropout=0.2", "--method=concat", "--callback=own_callbacks:Second", *where]
    found = json.loads(CliRunner().invoke(app, asked, catch_exceptions=False).stdout)
    assert found["rows"][0]["runs"] == [run.id]
