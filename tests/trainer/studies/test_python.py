"""From Python: runs and tables as objects, with the numbers the command line has."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pgm
import pyarrow.parquet as pq
import pytest
from pgm.cache.errors import NotFound, UserError
from pgm.cli import app
from pgm.trainer import Row, Run, Study, TableSpec
from typer.testing import CliRunner

from ..conftest import TINY

QUICK = {**TINY, "epochs": 1, "pretrain_epochs": 1}


@pytest.fixture(scope="module")
def run(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return pgm.train(toy, "toy", "concat", runs=tmp_path_factory.mktemp("runs"), settings=TINY)


def test_a_run_gives_its_predictions_epochs_and_model(run: Run, toy: Path) -> None:
    said = run.predictions()
    assert list(said["id"]) == pq.read_table(run.predictions_path("test"))["id"].to_pylist()
    assert (said["prediction"] == said["target"]).mean() == pytest.approx(run.test["accuracy"])
    assert list(run.history["val.accuracy"]) == [record["val"]["accuracy"] for record in run.metrics]
    model = run.model()
    assert not model.training
    assert sum(p.numel() for p in model.parameters()) == run.result["parameters"]
    assert run.id in run._repr_html_()
    with pytest.raises(NotFound, match="no predictions of 'train'"):
        run.predictions("train")


def test_evaluate_and_predict_answer_what_the_run_has_stored(run: Run, toy: Path) -> None:
    assert pgm.evaluate(run) == run.test
    assert pgm.evaluate(run, "val", toy) == run.val
    everything = pgm.predict(run, "toy", toy).set_index("id")
    stored = run.predictions().set_index("id")
    assert len(everything) == 160
    assert (everything.loc[stored.index, "prediction"] == stored["prediction"]).all()


def test_a_table_is_the_command_lines(toy: Path, tmp_path: Path) -> None:
    made = pgm.table("3", "toy", toy, runs=tmp_path, seeds=2, settings=QUICK)
    switches = [f"--set={name}={value}" for name, value in QUICK.items()]
    where = [f"--features={toy}", f"--runs={tmp_path}", "--seeds=2", "--workers=1"]
    typed = CliRunner().invoke(app, ["table", "modules", *where, *switches, "--format", "json"])
    assert json.loads(typed.stdout) == json.loads(made.text("json"))
    frame = made.to_pandas()
    accuracy = frame[(frame["row"] == "PgM") & (frame["metric"] == "accuracy")]["mean"].item()
    assert accuracy == pytest.approx(made.results.rows[0].test["accuracy"]["mean"])
    assert "\\toprule" in made.to_latex()
    assert "w/o Modal Partitioner" in made._repr_html_()
    assert made.figure().axes


def test_an_ablation_and_a_study_of_ones_own(toy: Path, tmp_path: Path) -> None:
    varied = pgm.ablate(["iterations=1,2"], dataset="toy", features=toy, runs=tmp_path, seeds=1, settings=QUICK)
    assert [row.label for row in varied.results.rows] == ["pgm, defaults", "iterations=1", "iterations=2"]

    class Pair(Study):
        name = "pair"

        def spec(self, request: object, options: object) -> TableSpec:
            return TableSpec("Two", (Row("one", "concat"), Row("other", "add")), "one")

    pair = pgm.table(Pair(), features=toy, runs=tmp_path, seeds=1, settings=QUICK)
    assert np.isfinite(pair.results.rows[1].comparison.difference)
    with pytest.raises(UserError, match="--rates belongs to missing, not to pair"):
        pgm.table(Pair(), features=toy, runs=tmp_path, rates="0,0.1")


def test_a_run_that_stops_is_not_trained_again(toy: Path, tmp_path: Path, quick: Callable[..., Run]) -> None:
    run = quick(toy, tmp_path)
    again = pgm.open_run(tmp_path, run.id)
    assert again.result == run.result
