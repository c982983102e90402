"""AUROC, average precision, balanced accuracy: scikit-learn's numbers, chosen by card or option, and bootstrapped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pgm.cache.errors import UserError
from pgm.cli import app
from pgm.trainer import table
from pgm.trainer.batch import Inputs
from pgm.trainer.methods import MethodOutput
from pgm.trainer.run.request import Request, resolve
from pgm.trainer.studies.engine.bootstrap import recomputed
from pgm.trainer.tasks import Classification, Recomputed, weighted
from pgm.trainer.tasks.classification import softmax
from scipy import stats
from sklearn import metrics as sklearn
from typer.testing import CliRunner

from ..conftest import TINY


def drawn(classes: int, seed: int, count: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, probabilities with ties, and weights."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, classes, count)
    logits = (generator.normal(size=(count, classes)) + np.eye(classes)[truth]).round(1).astype(np.float32)
    return truth, softmax(logits), generator.integers(0, 4, (3, count)).astype(float)


def test_curves_are_scikit_learns_also_of_tied_and_weighted_samples() -> None:
    for seed in range(5):
        truth, probabilities, weights = drawn(2, seed)
        score = probabilities[:, 1].round(4)
        for found, w in zip(weighted.auroc(truth, np.stack([1 - score, score], 1), weights), weights, strict=True):
            assert found == pytest.approx(sklearn.roc_auc_score(truth, score, sample_weight=w))
        truth, probabilities, weights = drawn(4, seed)
        found = weighted.auroc(truth, probabilities, np.ones((1, 60)))[0]
        assert found == pytest.approx(sklearn.roc_auc_score(truth, probabilities, multi_class="ovr"), abs=1e-6)
        precision = [sklearn.average_precision_score(truth == c, probabilities[:, c]) for c in range(4)]
        found = weighted.average_precision(truth, probabilities, np.ones((1, 60)))[0]
        assert found == pytest.approx(np.mean(precision), abs=1e-6)
        guess = probabilities.argmax(axis=1)
        for found, w in zip(weighted.weighted_f1(truth, guess, weights), weights, strict=True):
            expected = sklearn.f1_score(truth, guess, average="weighted", sample_weight=w, zero_division=0)
            assert found == pytest.approx(expected)


def test_certain_answers_are_still_ranked() -> None:
    logits = np.array([[0, 18], [0, 19], [0, 20]], np.float32)  # as float32 probabilities, all 1
    assert weighted.auroc(np.array([0, 1, 1]), softmax(logits), np.ones((1, 3)))[0] == 1.0


@pytest.mark.parametrize("metric", ["accuracy", "weighted_f1", "balanced_accuracy", "auroc", "average_precision"])
def test_what_is_drawn_again_is_what_is_printed(metric: str) -> None:
    truth, _, _ = drawn(3, 0)
    task = Classification(("a", "b", "c"))
    task.primary = metric
    views = {"logits": np.random.default_rng(1).normal(size=(60, 3)).astype(np.float32)}
    columns = {name: np.asarray(values) for name, values in task.predictions(views).items()}
    found = task.sample_scores({**columns, "target": truth})
    assert found.metric == pytest.approx(task.metrics(views, truth)[metric], abs=1e-12)


def test_the_interval_of_an_area_is_that_of_scipy() -> None:
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 2, 80)
    one, other = (truth * shift + generator.normal(size=80) for shift in (2.0, 1.0))

    def scores(logits: np.ndarray) -> Recomputed:
        probabilities = softmax(np.stack([np.zeros(80), logits], 1).astype(np.float32))
        return Recomputed(lambda weights: weighted.auroc(truth, probabilities, weights), np.zeros(80))

    def difference(rows: np.ndarray) -> float:
        areas = [stats.rankdata(side[rows])[truth[rows] == 1].sum() for side in (one, other)]
        positive = int(truth[rows].sum())
        return (areas[0] - areas[1]) / (positive * (80 - positive))

    ours = recomputed([(scores(one), scores(other))])
    scipys = stats.bootstrap((np.arange(80),), difference, n_resamples=2000, vectorized=False, random_state=0)
    assert ours == pytest.approx(scipys.confidence_interval, abs=0.012)
    low, high = recomputed([(scores(one), scores(other))], [f"g{i // 10}" for i in range(80)]) or (0, 0)
    assert low < high
    assert recomputed([(scores(one), scores(other))], ["all"] * 80) is None, "one group is one draw"


def skewed(make_toy: Callable[..., Path], root: Path, test: int | None = None, **how: Any) -> Path:
    """Two classes, one in four positive. test: the only class of the test split."""
    labels = (np.arange(160) % 4 == 0).astype(np.int32)
    if test is not None:
        labels[128:] = test
    return make_toy(root, labels=labels, **how)


def test_a_card_says_what_rows_are_selected_and_compared_on(make_toy: Callable[..., Path], tmp_path: Path) -> None:
    plain = skewed(make_toy, tmp_path / "plain")
    carded = skewed(make_toy, tmp_path / "carded", metrics=("auroc", "accuracy"))

    def asked(features: Path, **settings: Any) -> Any:
        return resolve(Request(features, tmp_path / "runs", method="concat", settings={**TINY, **settings}))

    by_card, by_option = asked(carded), asked(plain, metric="auroc")
    assert by_card.data.task.primary == by_card.data.task.monitor == "auroc"
    assert by_card.run.id == by_option.run.id, "however it was asked for"
    assert by_card.run.id != asked(plain).run.id, "another epoch may be selected"
    kept = asked(carded, select_on="accuracy")
    assert (kept.data.task.primary, kept.run.id) == ("auroc", asked(plain).run.id)
    with pytest.raises(UserError, match=r"cannot be compared on 'auroq'.*Did you mean 'auroc'"):
        asked(plain, metric="auroq")


def test_a_table_compares_on_the_metric_and_prints_the_cards(make_toy: Callable[..., Path], tmp_path: Path) -> None:
    features = skewed(make_toy, tmp_path / "features", metrics=("auroc", "accuracy"))
    made = table("fusion", features=features, runs=tmp_path, seeds=2, settings=TINY, methods="concat,add")
    assert made.results.metrics == ("auroc", "accuracy")
    comparison = made.results.comparisons["Add"]
    assert comparison.metric == "auroc"
    assert comparison.low <= comparison.difference <= comparison.high
    gap = np.mean(made.results.rows[1].test["auroc"]["values"]) - np.mean(made.results.rows[0].test["auroc"]["values"])
    assert comparison.difference == pytest.approx(gap)


def test_a_split_of_one_class_says_so(make_toy: Callable[..., Path], tmp_path: Path) -> None:
    features = skewed(make_toy, tmp_path / "features", test=1)
    asked = ["--features", str(features), "--runs", str(tmp_path / "runs"), "--seeds", "1", "--methods", "concat"]
    tiny = [part for name, value in TINY.items() for part in ("--set", f"{name}={value}")]
    found = CliRunner().invoke(app, ["table", "fusion", *asked, *tiny, "--metric", "auroc"])
    assert found.exit_code == 0, found.output
    assert "undefined" in found.stdout
    assert "The test split holds one class only: auroc and average_precision are not defined there." in found.stdout
    text = CliRunner().invoke(app, ["table", "fusion", *asked, *tiny, "--metric", "auroc", "--json"]).stdout
    printed = json.loads(text, parse_constant=pytest.fail)
    assert printed["rows"][0]["test"]["auroc"]["mean"] is None
    assert printed["rows"][0]["test"]["accuracy"]["mean"] >= 0
    labels = (np.arange(160) % 2).astype(np.int32)
    labels[96:128] = 0
    with pytest.raises(UserError, match="validation split holds one class only, so auroc is not defined"):
        resolve(
            Request(make_toy(tmp_path / "v", labels=labels), tmp_path, method="concat", settings={"metric": "auroc"})
        )


def test_class_weights_are_in_the_loss_and_in_the_name(make_toy: Callable[..., Path], tmp_path: Path) -> None:
    features = skewed(make_toy, tmp_path / "features")

    def asked(**settings: Any) -> Any:
        return resolve(Request(features, tmp_path / "runs", method="concat", settings={**TINY, **settings}))

    plain, balanced = asked(), asked(class_weights="balanced")
    assert plain.run.id != balanced.run.id
    assert plain.run.id == asked(class_weights="none").run.id
    logits, targets = torch.randn(8, 4), torch.tensor([0, 1, 0, 0, 1, 0, 0, 0])

    def loss(resolved: Any) -> float:
        return float(resolved.data.task.loss(lambda i: MethodOutput(logits, logits), Inputs({}, {}), targets)[0])

    weights = torch.tensor([96 / (2 * 72), 96 / (2 * 24), 0, 0])  # 24 of the 96 training samples are positive
    assert loss(balanced) == pytest.approx(float(torch.nn.functional.cross_entropy(logits, targets, weights)))
    assert loss(plain) == pytest.approx(float(torch.nn.functional.cross_entropy(logits, targets)))
    retrieval = make_toy(tmp_path / "r", task="retrieval")
    with pytest.raises(UserError, match="retrieval has none to weigh"):
        resolve(Request(retrieval, tmp_path, method="concat", settings={"class_weights": "balanced"}))
