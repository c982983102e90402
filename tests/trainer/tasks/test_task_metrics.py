"""Metrics follow the field's conventions to the digit, on the vectors of the literature notes."""

from __future__ import annotations

import numpy as np
import pytest
from pgm.cache import DatasetCard
from pgm.trainer.protocol import Protocol
from pgm.trainer.tasks import SentimentClasses, metrics, task_for
from sklearn.metrics import f1_score

TRUTH = np.array([0, -0.2, 0, 2.4, -3, 0.6, -1.4, 1])
GUESS = np.array([-0.1, 0, 0.2, 1.5, -2.6, -0.3, -1.5, 0.5])


def test_sentiment_regression_metrics_on_the_reference_vector() -> None:
    expected = {
        "acc2_has0": 0.625,
        "f1_has0": 0.630952,
        "acc2_non0": 0.833333,
        "f1_non0": 0.828571,
        "acc7": 0.625,
        "acc5": 0.625,
        "mae": 0.4125,
        "corr": 0.968367,
    }
    found = metrics.sentiment_scores(TRUTH, GUESS)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-6), name


def test_a_constant_guess_correlates_with_nothing() -> None:
    assert metrics.sentiment_scores(TRUTH, np.zeros(8))["corr"] == 0.0


def test_three_class_sentiment_lets_neutral_join_the_negative() -> None:
    truth = np.array([0, 1, 2, 1, 2, 0])
    logits = np.array([[2, 0, 1], [0, 3, -1], [0, 1, 2], [-1, 0, 5], [3, 0, 1], [1, 4, 0]], np.float32)
    found = metrics.sentiment_classes(truth, logits)
    # Over negative against positive logits the guesses are - - + + - -; truth with neutral as negative: - - + - + -.
    assert found["acc2_has0"] == pytest.approx(4 / 6)
    assert found["acc2_non0"] == pytest.approx(3 / 4)
    assert found["acc3"] == pytest.approx(3 / 6)
    assert found["f1_3"] == pytest.approx(f1_score(truth, logits.argmax(1), average="weighted"))


def test_weighted_f1_equals_scikit_learn_also_for_classes_never_guessed() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        truth, guess = generator.integers(0, 5, 40), generator.integers(0, 3, 40)
        assert metrics.weighted_f1(truth, guess) == pytest.approx(
            f1_score(truth, guess, average="weighted", zero_division=0)
        )


def test_average_precision_on_the_reference_ranking() -> None:
    relevant = np.array([[1, 0, 1, 0, 0, 1, 0, 0, 0, 0, 1, 0]], bool)
    assert metrics.average_precision(relevant)[0] == pytest.approx(0.632576, abs=1e-6)
    assert metrics.average_precision(relevant, 5)[0] == pytest.approx(0.833333, abs=1e-6)
    assert metrics.average_precision(relevant, 10)[0] == pytest.approx(0.722222, abs=1e-6)
    assert metrics.average_precision(np.zeros((1, 4), bool))[0] == 0


def test_retrieval_ranks_by_cosine_over_the_whole_gallery() -> None:
    # Items at angles on the circle, of very different lengths: cosine order differs from Euclidean order.
    degrees, lengths = np.radians([0, 20, 45, 90]), np.array([9.0, 1.0, 0.1, 1.0])
    gallery = np.stack([np.cos(degrees), np.sin(degrees)], axis=1) * lengths[:, None]
    order = metrics.ranked(np.array([[1.0, 0.1]]), gallery)
    found = metrics.retrieval_scores(np.array([7, 3, 7, 3])[order] == 7)
    assert found["map"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["p10"] == pytest.approx(0.2)
    # Against recall in plain words: three queries whose first relevant item comes first, third and never.
    relevant = np.zeros((3, 12), bool)
    relevant[0, [0, 4]], relevant[1, 2], relevant[2, 10] = True, True, True
    recalls = metrics.retrieval_scores(relevant)
    assert [recalls[name] for name in ("r1", "r5", "r10")] == pytest.approx([1 / 3, 2 / 3, 2 / 3])


@pytest.mark.parametrize(
    ("task", "sentiment", "monitor"),
    [
        ("classification", "regression", "accuracy"),
        ("emotion", "regression", "weighted_f1"),
        ("sentiment", "regression", "mae"),
        ("sentiment", "classes", "acc3"),
        ("retrieval", "regression", "map"),
    ],
)
def test_each_task_selects_on_its_own_validation_metric(task: str, sentiment: str, monitor: str) -> None:
    card = DatasetCard("d", task, ("a", "b", "c"), ())
    chosen = task_for(card, Protocol(sentiment=sentiment), ("image", "text"), np.array([0, 1, 2]))
    assert chosen.monitor == monitor
    better, worse = ({monitor: 0.4}, {monitor: 0.5}) if monitor == "mae" else ({monitor: 0.5}, {monitor: 0.4})
    assert chosen.better(better, worse)
    assert not chosen.better(worse, better)
    assert not chosen.better(better, better)


def test_three_class_predictions_name_the_polarity() -> None:
    table = SentimentClasses().predictions({"logits": np.array([[0, 1, 5.0]], np.float32)})
    assert table["predicted_class"] == ["positive"]
