"""PgMClassifier and PgMRegressor: scikit-learn's own checks that apply, several modalities, the same seed the same
model."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pgm import PgMClassifier, PgMRegressor
from sklearn.model_selection import cross_val_score
from sklearn.utils import estimator_checks as checks
from sklearn.utils.estimator_checks import parametrize_with_checks

QUICK = {"epochs": 1, "pretrain_epochs": 1, "settings": {"dim": 8, "heads": 2, "feedforward": 8}, "random_state": 0}
# What the checks ask of a model that has converged, and a run of one epoch on 20 samples has not.
UNTRAINED = {
    "check_classifiers_train": "asks for an accuracy",
}


@parametrize_with_checks([PgMClassifier(method="linear", **QUICK)], expected_failed_checks=lambda estimator: UNTRAINED)
def test_scikit_learns_own_checks(estimator: Any, check: Callable[[Any], None]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)


@pytest.mark.parametrize(
    "check",
    [
        checks.check_regressors_int,
        checks.check_regressor_data_not_an_array,
        checks.check_regressors_no_decision_function,
        checks.check_estimators_unfitted,
        checks.check_n_features_in,
    ],
)
def test_scikit_learns_checks_of_regressors(check: Callable[[str, Any], None]) -> None:
    """The classifier shows the rest of both: they share all but their targets."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check("PgMRegressor", PgMRegressor(method="linear", **QUICK))


def two_bits(count: int, seed: int) -> tuple[dict[str, Any], np.ndarray]:
    """A class of two bits, one in each modality: vectors of one, ragged tokens of the other."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2, (count, 2))
    text = (2.0 * bits[:, :1] - 1) * np.ones(6) + 0.3 * rng.normal(size=(count, 6))
    vision = [(2.0 * bit - 1) * np.ones((n, 5)) + 0.3 * rng.normal(size=(n, 5)) for bit, n in zip(
        bits[:, 1], rng.integers(1, 4, count), strict=True)]  # fmt: skip
    return {"text": text, "vision": vision}, np.array(["a", "b", "c", "d"])[bits @ [1, 2]]


def test_modalities_of_vectors_and_of_ragged_tokens() -> None:
    samples, labels = two_bits(80, 0)
    held_out, truth = two_bits(40, 1)
    switches = {**QUICK, "epochs": 8, "settings": {**QUICK["settings"], "batch": 16}}
    model = PgMClassifier(**switches).fit(samples, labels)
    assert model.score(held_out, truth) > 0.6
    assert list(model.classes_) == ["a", "b", "c", "d"]
    np.testing.assert_allclose(model.predict_proba(held_out).sum(1), 1, atol=1e-5)
    with pytest.raises(ValueError, match="It was fitted on text, vision; these samples have text"):
        model.predict({"text": held_out["text"]})
    with pytest.raises(ValueError, match="fitted on widths"):
        model.predict({"text": held_out["text"][:, :3], "vision": held_out["vision"]})


def test_scores_come_back_on_their_own_scale() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(160, 4))
    scores = 1000 + 50 * values[:, 0]
    model = PgMRegressor(method="concat", **{**QUICK, "epochs": 20, "settings": {**QUICK["settings"], "batch": 16}})
    assert model.fit(values[:120], scores[:120]).score(values[120:], scores[120:]) > 0.5
    assert cross_val_score(PgMRegressor(method="linear", random_state=0, epochs=1), values, scores, cv=2).shape == (2,)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ({}, "There is no modality"),
        ({"text": np.zeros((4, 3)), "vision": np.zeros((3, 2))}, "'vision' has 3 samples and there are 4 labels"),
        ({"text": np.zeros((4, 2, 2, 2))}, "an array is"),
        ({"text": [np.zeros((1, 2)), np.zeros((1, 3))] * 2}, "samples of different widths"),
        ({"text": [np.full((1, 2), np.nan)] * 4}, "NaN or infinity"),
    ],
)
def test_what_cannot_be_fitted_is_a_value_error(samples: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PgMClassifier(**QUICK).fit(samples, [0, 1, 0, 1])
