"""A task of somebody else's is asked for by a card, named, trained, restored, predicted and tabulated like ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pgm.cache.errors import UserError
from pgm.cli import app
from pgm.trainer import Run
from pgm.trainer.run.inference import evaluate_run
from pgm.trainer.run.request import Request, resolve
from typer.testing import CliRunner

from ..conftest import TINY

EXAMPLE = Path(__file__).parents[3] / "examples" / "own_package"
PATH = "pgm_gas_task:BalancedClassification"


@pytest.fixture(autouse=True)
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example's module, and the entry point that its installation leaves (tests/pipeline installs it for real)."""
    info = tmp_path / "site" / "pgm_gas-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pgm-gas\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(f"[pgm.tasks]\nbalanced = {PATH}\n")
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.syspath_prepend(str(info.parent))


def asked(features: Path) -> Any:
    return resolve(Request(features, Path("unused"), method="concat", settings=TINY))


def test_however_the_card_asks_for_it_a_run_carries_its_import_path_and_version(
    make_toy: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_name, by_path, ours = (asked(make_toy(tmp_path / task, task=task)) for task in ("balanced", PATH, "emotion"))
    assert by_name.run.id == by_path.run.id != ours.run.id
    assert by_name.config["task"] == PATH
    assert by_name.config["recipe"]["task"] == {"BalancedClassification": 1, "Classification": 2, "Task": 1}
    assert (ours.config["task"], ours.config["recipe"]["task"]) == ("emotion", 2)
    before = by_name.run.id
    monkeypatch.setattr(type(by_name.data.task), "version", 2)
    assert by_name.data.task.code == {"BalancedClassification": 2, "Classification": 2, "Task": 1}
    assert asked(tmp_path / "balanced").run.id != before


def test_it_trains_restores_predicts_and_stands_in_tables(
    make_toy: Callable[..., Path], quick: Callable[..., Run], tmp_path: Path
) -> None:
    features = make_toy(tmp_path / "features", task="balanced", counts={"train": 64, "val": 24, "test": 24})
    run = quick(features, tmp_path / "runs", "concat")
    assert set(run.test) == {"balanced_accuracy", "accuracy", "weighted_f1", "auroc", "average_precision"}
    found = run.predictions("test")
    recalls = [np.mean(part["prediction"] == target) for target, part in found.groupby("target")]
    assert run.test["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    assert run.result["floors"]["majority"]["balanced_accuracy"] == pytest.approx(0.25)
    assert evaluate_run(run, "test", features, "auto", "cpu")["metrics"] == run.test

    where = ["--features", str(features), "--runs", str(tmp_path / "runs")]
    out = tmp_path / "predictions.parquet"
    assert CliRunner().invoke(app, ["predict", run.id, *where, "--out", str(out)]).exit_code == 0
    assert pq.read_table(out).num_rows == 112
    few = [f"--set={name}={value}" for name, value in TINY.items()]
    table = ["table", "fusion", "--methods=concat,linear", "--seeds=2", "--workers=1", "--json", *where, *few]
    made = json.loads(CliRunner().invoke(app, table, catch_exceptions=False).stdout)
    assert (made["task"], made["primary"]) == (PATH, "balanced_accuracy")
    assert run.id in made["rows"][0]["runs"]
    assert made["rows"][1]["comparison"]["metric"] == "balanced_accuracy"


BROKEN = """
from pgm.trainer.tasks import Classification, Task

class Unversioned(Classification):
    pass

class Unfinished(Task):
    version = 1
"""


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (
            "clasification",
            r"the task 'clasification'. There are: .*balanced.* Did you mean 'classification'\?",
        ),
        ("balance", r"Did you mean 'balanced'\?"),
        ("nowhere_at_all:Task", "Task 'nowhere_at_all:Task': there is no module"),
        ("broken_tasks:Unversoned", "It has .*Unversioned.* Did you mean 'Unversioned'"),
        ("broken_tasks:Unversioned", "says no version of its own"),
        (
            "broken_tasks:Unfinished",
            "it has no criterion and no metrics and no of and no predictions and no",
        ),
        ("pathlib:Path", "pathlib:Path is no task: a task is a class that extends"),
    ],
)
def test_what_is_no_task_is_told_so_in_plain_words(
    task: str, message: str, make_toy: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_tasks.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match=message):
        asked(make_toy(tmp_path / "features", task=task))
