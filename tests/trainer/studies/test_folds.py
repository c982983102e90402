"""Cross-validation: folds that keep groups whole, in the names of runs, in tables, and in the corrected t-test."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pgm.cache import open_dataset
from pgm.cache.errors import NotFound, UserError
from pgm.cli import app
from pgm.trainer import table
from pgm.trainer.data.folds import CrossValidation, Fold, cross_validation, fold_of
from pgm.trainer.run.inference import evaluate_run
from pgm.trainer.run.request import Request, resolve
from pgm.trainer.run.runs import list_runs
from pgm.trainer.studies.engine.significance import paired_t, seed_tests
from pgm.trainer.tasks import Recomputed, SampleScores
from scipy import stats
from typer.testing import CliRunner

from ..conftest import TINY


@pytest.fixture(scope="module")
def grouped(make_toy: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 20 videos with four folds of its own."""
    return make_toy(tmp_path_factory.mktemp("features"), groups=20, more={"fold": np.arange(160) % 4})


def test_a_folds_name_says_all_of_it() -> None:
    for fold in (Fold(0, 5, "own"), Fold(3, 4, "group", 7)):
        assert fold_of(fold.name) == fold
    assert fold_of("by-hand") is None
    with pytest.raises(UserError, match="counted from 0"):
        fold_of("fold:5/5:group")
    with pytest.raises(UserError, match=r"not 'groups'. Did you mean 'group'"):
        cross_validation(5, "groups")
    with pytest.raises(UserError, match="3 or more"):
        cross_validation("2", None)
    with pytest.raises(UserError, match="--by says how --folds are drawn"):
        cross_validation(None, "group")


@pytest.mark.parametrize("by", ["own", "group", "label", "random"])
def test_every_sample_is_tested_once_and_groups_stay_whole(grouped: Path, by: str) -> None:
    dataset = open_dataset(grouped, "toy")
    folds = CrossValidation(0 if by == "own" else 4, by).folds(dataset.samples, dataset.card)
    columns = np.stack([np.array(fold.column(dataset.samples, dataset.card).to_pylist()) for fold in folds])
    assert ((columns == "test").sum(axis=0) == 1).all()
    assert ((columns == "val").sum(axis=0) == 1).all()
    assert np.array_equal(columns[0] == "val", columns[1] == "test"), "the next fold validates"
    if by == "group":
        groups = np.array(dataset.samples["group"].to_pylist())
        assert all(len(set(columns[0][groups == group])) == 1 for group in groups)


def test_what_a_dataset_has_not_is_told(toy: Path, grouped: Path) -> None:
    def asked(root: Path, split: str) -> Any:
        return resolve(Request(root, Path("unused"), method="concat", split=split, settings=TINY))

    with pytest.raises(NotFound, match="no folds of its own"):
        asked(toy, "fold:0/5:own")
    with pytest.raises(UserError, match="4 folds of its own, not 5"):
        asked(grouped, "fold:0/5:own")
    with pytest.raises(UserError, match="no groups to draw folds by"):
        asked(toy, "fold:0/5:group")
    with pytest.raises(UserError, match="20 groups, too few for 30 folds"):
        asked(grouped, "fold:0/30:group")
    one, other = asked(grouped, "fold:0/4:own"), asked(grouped, "fold:1/4:own")
    assert one.config["split"] == "fold:0/4:own"
    assert one.run.id != other.run.id


def test_the_t_test_counts_that_folds_share_training_samples() -> None:
    generator = np.random.default_rng(0)
    gaps = generator.normal(1.0, 1.0, 10)
    found = paired_t(gaps, np.zeros(10), 1 / 4)
    t = gaps.mean() / np.sqrt((1 / 10 + 1 / 4) * gaps.var(ddof=1))
    assert found == pytest.approx(2 * stats.t.sf(t, 9))
    assert found > paired_t(gaps, np.zeros(10))
    (test,) = seed_tests([(gaps, np.zeros(10))], 1 / 4)
    assert test.p_sign_flip is None, "folds are not independent"


def test_scores_of_a_fold_among_all_are_its_own() -> None:
    values = np.array([1.0, 0.0, 1.0])
    one = SampleScores.of_all(values)
    assert one.among(5, 6).metric == one.metric
    assert one.among(5, 6).values[2:5, 0].tolist() == values.tolist()
    curve = Recomputed(lambda weights: (weights * values).sum(axis=1) / weights.sum(axis=1), values)
    assert curve.among(5, 6).of(np.array([[9.0, 9, 2, 1, 1, 9]]))[0] == pytest.approx(3 / 4)


def test_a_row_is_the_mean_over_folds_and_seeds(grouped: Path, tmp_path: Path) -> None:
    how = {"features": grouped, "runs": tmp_path, "seeds": 2, "settings": {**TINY, "epochs": 1}}
    found = table("fusion", methods="concat,add", folds="own", **how)
    results = found.results
    row = results.rows[1]
    assert (results.folds, len(row.seeds), results.overlap) == (4, 8, pytest.approx(1 / 3))
    assert "4 x 2" in found.text()
    assert "corrected resampled t-test" in found.text()
    assert "needs a mean of" in found.text()
    comparison = results.comparisons["Add"]
    means = [np.mean(one.test["accuracy"]["values"]) for one in (row, results.rows[0])]
    assert comparison.difference == pytest.approx(means[0] - means[1])
    assert comparison.low <= comparison.difference <= comparison.high
    runs = list_runs(tmp_path)
    assert len({run.config["split"] for run in runs}) == 4
    evaluated = evaluate_run(runs[0], "test", grouped, "auto", "cpu")
    assert evaluated["metrics"]["accuracy"] == runs[0].result["test"]["accuracy"], "the fold is drawn again"
    floors = {run.config["split"]: run.result["floors"]["majority"]["accuracy"] for run in runs}
    assert results.floors["majority"]["accuracy"] == pytest.approx(np.mean(list(floors.values())))
    with pytest.raises(UserError, match="missing is of one split"):
        table("missing", folds=4, **how)


def test_train_takes_folds_and_a_single_one(grouped: Path, tmp_path: Path) -> None:
    asked = ["train", "--cached", "--method", "concat", "--features", str(grouped), "--runs", str(tmp_path), "--json"]
    asked += [part for name, value in TINY.items() for part in ("--set", f"{name}={value}")]
    every = json.loads(CliRunner().invoke(app, [*asked, "--folds", "3", "--by", "label"]).stdout)
    assert len(every["run"]) == 3
    one = json.loads(CliRunner().invoke(app, [*asked, "--split", "fold:1/3:label"]).stdout)
    assert one["run"] == every["run"][1]
    both = CliRunner().invoke(app, [*asked, "--folds", "3", "--split", "other"])
    assert isinstance(both.exception, UserError)
