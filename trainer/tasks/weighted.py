"""Metrics of classes in which every sample has a weight: the printed number (all 1) and every bootstrap draw of it.

Area under the ROC curve, average precision and weighted F1 are no means of per-sample scores, so that a draw of
samples has to be judged anew; one formula here does both. scikit-learn's definitions, which tests hold them to, for B
weightings at once instead of one a call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Weights = NDArray[np.float64]  # (B, N): a weighting a row
Ints = NDArray[np.integer]
Curve = Callable[[Weights, Weights], Weights]  # (B, T) positives and negatives at or above each threshold -> (B,)
SMALLEST = 1e-38  # of a float32 probability


def auroc(truth: Ints, probabilities: Floats, weights: Weights) -> Weights:
    """(B,) area under the ROC curve; nan where only one class has weight.

    truth: (N,) classes; probabilities: (N, C). Of two classes that of the second; of more, the mean over the classes
    present of each against the rest.
    """
    return over_classes([area], truth, probabilities, weights)[0]


def average_precision(truth: Ints, probabilities: Floats, weights: Weights) -> Weights:
    """(B,) average precision: the precision at each threshold by the recall it adds. Arguments as of `auroc`."""
    return over_classes([precision], truth, probabilities, weights)[0]


def both_curves(truth: Ints, probabilities: Floats) -> tuple[float, float]:
    """AUROC and average precision of samples that all count the same, from one ranking a class."""
    found = over_classes([area, precision], truth, probabilities, np.ones((1, len(truth))))
    return float(found[0][0]), float(found[1][0])


def weighted_f1(truth: Ints, guess: Ints, weights: Weights) -> Weights:
    """(B,) the classes' F1 by their weight in the truth; truth and guess (N,)."""
    of_class, guessed = (values[:, None] == np.unique(truth) for values in (truth, guess))
    hits, support, said = (weights @ kind.astype(float) for kind in (of_class & guessed, of_class, guessed))
    f1 = 2 * hits / np.maximum(support + said, np.finfo(float).tiny)
    return ratio((support * f1).sum(axis=1), support.sum(axis=1))


def over_classes(curves: Sequence[Curve], truth: Ints, probabilities: Floats, weights: Weights) -> list[Weights]:
    """Of each curve (B,): the second class of two, or the mean over the classes present of each against the rest."""
    classes = [1] if probabilities.shape[1] == 2 and len(truth) else list(np.unique(truth))
    odds = np.ascontiguousarray(log_odds(probabilities).T)
    each: list[list[Weights]] = [[] for _ in curves]
    for c in classes:
        ranked = thresholds(truth == c, odds[c], weights)
        for found, curve in zip(each, curves, strict=True):
            found.append(curve(*ranked))
    return [mean_known(found, len(weights)) for found in each]


def mean_known(values: Sequence[Weights], count: int) -> Weights:
    """(B,) mean of those that are numbers; nan where none is."""
    found = np.stack(values) if values else np.full((1, count), np.nan)
    known = ~np.isnan(found)
    return ratio(np.where(known, found, 0.0).sum(axis=0), known.sum(axis=0))


def log_odds(probabilities: Floats) -> NDArray[np.float64]:
    """(N, C) of each class against the rest. Near 1 a float32 probability ties where the sum of the rest does not."""
    known = probabilities.astype(np.float64)
    rest = known.sum(axis=1, keepdims=True) - known
    # The difference is rounding where one class has nearly all: there the others are summed.
    rows, first = np.arange(len(known)), known.argmax(axis=1)
    others = known.copy()
    others[rows, first] = 0.0
    rest[rows, first] = others.sum(axis=1)
    found: NDArray[np.float64] = np.log(np.maximum(known, SMALLEST)) - np.log(np.maximum(rest, SMALLEST))
    return found


def thresholds(positive: NDArray[np.bool_], scores: Floats, weights: Weights) -> tuple[Weights, Weights]:
    """(B, T) weight of the positive and of the negative samples at or above each of T scores, from the top."""
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))[: len(order)]
    ranked = weights[:, order]
    right, wrong = (np.cumsum(ranked * kind, axis=1)[:, last] for kind in (positive[order], ~positive[order]))
    return right, wrong


def area(right: Weights, wrong: Weights) -> Weights:
    """(B,) under the ROC curve, by trapezoids."""
    before, more = np.roll(right, 1, axis=1), np.diff(wrong, axis=1, prepend=0)
    before[:, :1] = 0
    return ratio((more * (before + right) / 2).sum(axis=1), right[:, -1] * wrong[:, -1])


def precision(right: Weights, wrong: Weights) -> Weights:
    """(B,) average precision; nan where either class has no weight."""
    found = (np.diff(right, axis=1, prepend=0) * ratio(right, right + wrong, 0.0)).sum(axis=1)
    return np.where(wrong[:, -1] > 0, ratio(found, right[:, -1]), np.nan)


def ratio(above: Weights, below: Weights | Ints, otherwise: float = float("nan")) -> Weights:
    """above / below; `otherwise` where below is 0."""
    return np.divide(above, below, out=np.full_like(above, otherwise), where=below > 0)
