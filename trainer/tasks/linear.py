"""Linear models behind the floors every method must beat: scikit-learn's, on vectors, one strength at a time."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STEPS = 60  # of the solver
Floats = NDArray[np.float32]
Vectors = Mapping[str, Floats]  # modality -> (N, D)


@dataclass(frozen=True)
class Fit:
    """How a model is fitted. strength: the inverse of its regularisation (C). steps: of the solver, at most. balanced:
    whether classes count by the inverse of their share."""

    strength: float
    steps: int = STEPS
    balanced: bool = False


def class_probabilities(
    vectors: Vectors, targets: NDArray[np.int64], classes: int, how: Fit
) -> Callable[[Vectors], Floats]:
    """Logistic regression fitted on training vectors, as a function from vectors to (N, classes)."""
    # scikit-learn takes a second to import, and a run that is answered from its folder never needs it.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    known = np.unique(targets)
    if len(known) == 1:
        return lambda asked: filled(np.ones((len(side_by_side(asked)), 1)), known, classes)
    # Products this narrow gain nothing from a second thread, and on a busy machine lose a factor of eight.
    with threadpool_limits(1), warnings.catch_warnings():
        # So many steps are close enough for a floor.
        warnings.simplefilter("ignore", ConvergenceWarning)
        weights = "balanced" if how.balanced else None
        model = LogisticRegression(C=how.strength, max_iter=how.steps, class_weight=weights)
        model.fit(side_by_side(vectors), targets)
    return lambda asked: filled(model.predict_proba(side_by_side(asked)), known, classes)


def scores(vectors: Vectors, targets: NDArray[np.floating], how: Fit) -> Callable[[Vectors], Floats]:
    """Ridge regression fitted on training vectors, as a function from vectors to (N, 1)."""
    from sklearn.linear_model import Ridge

    ridge = Ridge(alpha=1 / how.strength).fit(side_by_side(vectors), targets)
    return lambda asked: ridge.predict(side_by_side(asked)).astype(np.float32).reshape(-1, 1)


def side_by_side(vectors: Vectors) -> Floats:
    """modality -> (N, D) as (N, all D)."""
    return np.concatenate(list(vectors.values()), axis=1)


def filled(found: NDArray[np.floating], known: NDArray[np.int64], classes: int) -> Floats:
    """Probabilities of the classes that training has, as columns among all classes."""
    probabilities = np.zeros((len(found), classes), np.float32)
    probabilities[:, known] = found
    return probabilities
