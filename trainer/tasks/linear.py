"""Linear models behind the floor every method must beat: scikit-learn's, on vectors, one strength at a time."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

STEPS = 60
Floats = NDArray[np.float32]
Sides = Mapping[str, Floats]  # split -> (N, D)


def class_probabilities(side: Sides, train: NDArray[Any], classes: int, strength: float) -> tuple[Floats, Floats]:
    """(N, classes) for validation and test, by logistic regression fitted on the training vectors."""
    # scikit-learn takes a second to import, and a run that is answered from its folder never needs it.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    known = np.unique(train)
    if len(known) == 1:
        val, test = (filled(np.ones((len(side[split]), 1)), known, classes) for split in ("val", "test"))
        return val, test
    # Products this narrow gain nothing from a second thread, and on a busy machine lose a factor of eight.
    with threadpool_limits(1), warnings.catch_warnings():
        # So many steps are close enough for a floor.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = LogisticRegression(C=strength, max_iter=STEPS).fit(side["train"], train)
    val, test = (filled(fitted.predict_proba(side[split]), known, classes) for split in ("val", "test"))
    return val, test


def scores(side: Sides, train: NDArray[Any], strength: float) -> tuple[Floats, Floats]:
    """(N, 1) for validation and test, by ridge regression."""
    from sklearn.linear_model import Ridge

    ridge = Ridge(alpha=1 / strength).fit(side["train"], train)
    val, test = (ridge.predict(side[split]).astype(np.float32).reshape(-1, 1) for split in ("val", "test"))
    return val, test


def side_by_side(vectors: Mapping[str, Mapping[str, Floats]]) -> Sides:
    """split -> modality -> (N, D) as split -> (N, all D)."""
    return {split: np.concatenate(list(of.values()), axis=1) for split, of in vectors.items()}


def filled(found: NDArray[np.floating], known: NDArray[np.int64], classes: int) -> Floats:
    """Probabilities of the classes that training has, as columns among all classes."""
    probabilities = np.zeros((len(found), classes), np.float32)
    probabilities[:, known] = found
    return probabilities
