"""Table 4: pairs of one model with and without PgM, each row with PgM held against its own row without."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pgm.cache.errors import UserError
from pgm.cli import app
from pgm.trainer.run.request import Request
from pgm.trainer.studies.engine.options import StudyOptions
from pgm.trainer.studies.engine.plan import plan_table
from pgm.trainer.studies.engine.results import TableResult
from pgm.trainer.studies.engine.runner import WorkerPool, run_cells
from pgm.trainer.studies.prior import STUDY
from typer.testing import CliRunner

QUICK = {"pretrain_epochs": 1, "epochs": 2, "batch": 16}
COUNTS = {"train": 48, "val": 16, "test": 24}


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory, make_toy: Callable[..., Path]) -> Path:
    return make_toy(tmp_path_factory.mktemp("scores"), task="sentiment", counts=COUNTS, groups=8, longest=1)


def invoked(features: Path, runs: Path, *words: str) -> Any:
    switches = [f"--set={name}={value}" for name, value in QUICK.items()]
    where = [f"--features={features}", f"--runs={runs}", "--workers=1"]
    return CliRunner().invoke(app, ["table", "4", *where, *switches, *words])


def table_of(features: Path, runs: Path) -> TableResult:
    request = Request(features, runs, dataset="toy", settings=QUICK)
    plan = plan_table(STUDY.spec(request, StudyOptions()), request, seeds=2)
    assert not run_cells(plan.missing, WorkerPool(1), lambda *_: None)
    return STUDY.results(plan)


def test_every_row_with_pgm_is_held_against_its_own_model(scores: Path, tmp_path: Path) -> None:
    result = table_of(scores, tmp_path / "runs")
    labels = ["Self-MM", "Self-MM + PgM", "MMIM", "MMIM + PgM", "UniMSE", "UniMSE + PgM"]
    assert [row.label for row in result.rows] == labels
    means = {row.label: np.mean(row.test[result.primary]["values"]) for row in result.rows}
    for row in result.rows:
        if row.label.endswith("+ PgM"):
            assert row.comparison is not None
            plain = means[row.label.removesuffix(" + PgM")]
            assert row.comparison.difference == pytest.approx(means[row.label] - plain)
        else:
            assert row.comparison is None
    # MMIM's two passes are one epoch of the loop; all rows have as many epochs.
    assert {tuple(row.budget.values()) for row in result.rows} == {(3,)}


def test_the_command_says_what_is_lost_who_is_left_out_and_how_long_it_took(scores: Path, tmp_path: Path) -> None:
    table_of(scores, tmp_path / "runs")
    printed = invoked(scores, tmp_path / "runs", "--seeds=2")
    assert printed.exit_code == 0, printed.output
    for word in ("Self-MM loses the fine-tuned BERT", "Seconds, all seeds: Self-MM", "UniMEEC-style is left out: "):
        assert word in printed.output.replace("\n", " ")
    found = json.loads(invoked(scores, tmp_path / "runs", "--seeds=2", "--json").stdout)
    assert found["reference"] == "the same model without PgM"
    assert "against the same model without PgM" in printed.output.replace("\n", " ")


def test_sequences_are_other_runs_of_the_same_table(scores: Path, tmp_path: Path) -> None:
    plans = [invoked(scores, tmp_path, "--plan", "--json", *more) for more in ((), ("--sequence=group",))]
    rows = [json.loads(plan.stdout)["rows"] for plan in plans]
    assert not {run for row in rows[0] for run in row["runs"]} & {run for row in rows[1] for run in row["runs"]}
    refused = invoked(scores, tmp_path, "--context=3")
    assert "--context counts the neighbours" in str(refused.exception)


def test_emotions_have_unimse_and_over_dialogues_unimeec(make_toy: Callable[..., Path], tmp_path: Path) -> None:
    roots = [make_toy(tmp_path / str(groups), task="emotion", counts=COUNTS, groups=groups) for groups in (0, 8)]
    rows = []
    for root in roots:
        spec = STUDY.spec(Request(root, tmp_path / "runs", dataset="toy", settings=QUICK), StudyOptions())
        rows.append([row.method for row in spec.rows])
        assert [note.split()[0] for note in spec.notes][:2] == ["Self-MM", "MMIM"]
    assert rows[0] == ["unimse", "unimse+pgm"]
    assert rows[1] == ["unimse", "unimse+pgm", "unimeec", "unimeec+pgm"]


def test_retrieval_has_no_prior_model(make_toy: Callable[..., Path], tmp_path: Path) -> None:
    root = make_toy(tmp_path / "pairs", task="retrieval")
    request = Request(root, tmp_path, dataset="toy", settings=QUICK)
    with pytest.raises(UserError, match="retriev"):
        plan_table(STUDY.spec(request, StudyOptions()), request, seeds=1)
