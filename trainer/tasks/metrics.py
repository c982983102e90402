"""Metrics in the conventions of the field (spec metrics-and-layouts, section 6), on numpy arrays, as fractions.

Accuracies and F1 are fractions of 1; tables multiply by 100. Nothing is rounded here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.integer] | NDArray[np.bool_]
Floats = NDArray[np.floating]


def accuracy(truth: Ints, guess: Ints) -> float:
    """Share of equal entries; nan for no samples."""
    return float(np.mean(truth == guess)) if len(truth) else float("nan")


def weighted_f1(truth: Ints, guess: Ints) -> float:
    """F1 per class, averaged with the truth's class counts as weights (sklearn's `average="weighted"`, truth first).

    A class never guessed and never true does not count; one with no hit has F1 0.
    """
    if not len(truth):
        return float("nan")
    classes, support = np.unique(truth, return_counts=True)
    hits = np.array([np.sum((truth == c) & (guess == c)) for c in classes])
    guessed = np.array([np.sum(guess == c) for c in classes])
    return float(np.sum(support * 2 * hits / (support + guessed)) / len(truth))


def sentiment_scores(truth: Floats, guess: Floats) -> dict[str, float]:
    """MOSI's regression metrics, as MMSA and MMIM compute them (spec 6.1); truth and guess (N,) in about [-3, 3].

    `has0`: negative against non-negative over all samples. `non0`: negative against positive without the neutral ones.
    """
    nonzero = truth != 0
    return {
        "acc2_has0": accuracy(truth >= 0, guess >= 0),
        "f1_has0": weighted_f1(truth >= 0, guess >= 0),
        "acc2_non0": accuracy(truth[nonzero] > 0, guess[nonzero] > 0),
        "f1_non0": weighted_f1(truth[nonzero] > 0, guess[nonzero] > 0),
        "acc5": accuracy(steps(truth, 2), steps(guess, 2)),
        "acc7": accuracy(steps(truth, 3), steps(guess, 3)),
        "mae": float(np.mean(np.abs(truth - guess))),
        "corr": pearson(truth, guess),
    }


def steps(values: Floats, limit: int) -> Ints:
    """Clipped to +-limit, then rounded half to even: .5 is 0, -1.5 is -2."""
    return np.round(np.clip(values, -limit, limit)).astype(np.int64)


def pearson(truth: Floats, guess: Floats) -> float:
    """Pearson correlation; 0 where one side is constant, which says as much as a correlation can."""
    if np.ptp(truth) == 0 or np.ptp(guess) == 0:
        return 0.0
    return float(np.corrcoef(truth, guess)[0, 1])


def sentiment_classes(truth: Ints, logits: Floats) -> dict[str, float]:
    """MMSA's three-class metrics; truth (N,) in 0 negative, 1 neutral, 2 positive; logits (N, 3) in that order.

    Mind: here `has0` lets the NEUTRAL ones join the negative, unlike the regression metrics (spec 6.1).
    """
    guess = logits.argmax(axis=1)
    polar = logits[:, [0, 2]].argmax(axis=1)
    nonzero = truth != 1
    return {
        "acc2_has0": accuracy(truth == 2, polar == 1),
        "f1_has0": weighted_f1(truth == 2, polar == 1),
        "acc2_non0": accuracy(truth[nonzero] == 2, polar[nonzero] == 1),
        "f1_non0": weighted_f1(truth[nonzero] == 2, polar[nonzero] == 1),
        "acc3": accuracy(truth, guess),
        "f1_3": weighted_f1(truth, guess),
    }


def average_precision(relevant: NDArray[np.bool_], top: int | None = None) -> NDArray[np.float64]:
    """AP of each ranked list; relevant (Q, G) bool, best first (spec 6.3).

    The mean of precision@rank over the ranks within `top` that hold a relevant item; 0 where there are none.
    """
    relevant = relevant[:, :top]
    precision = np.cumsum(relevant, axis=1) / np.arange(1, relevant.shape[1] + 1)
    found: NDArray[np.float64] = (precision * relevant).sum(axis=1) / np.maximum(relevant.sum(axis=1), 1)
    return found


def ranked(queries: Floats, gallery: Floats) -> NDArray[np.int64]:
    """(Q, G) places in the gallery, nearest by cosine first; queries (Q, d), gallery (G, d). Ties keep its order."""
    return np.argsort(-(unit(queries) @ unit(gallery).T), axis=1, kind="stable")


def retrieval_scores(relevant: NDArray[np.bool_]) -> dict[str, float]:
    """MAP over the whole gallery, Precision@10 (hits / 10), and Recall@1, 5, 10; relevant (Q, G), best first.

    Recall at k as cross-modal retrieval reports it (R@k): the share of queries with a relevant item among the first k.
    """
    return {
        "map": float(average_precision(relevant).mean()),
        "p10": float(relevant[:, :10].sum(axis=1).mean() / 10),
        **{f"r{k}": float(relevant[:, :k].any(axis=1).mean()) for k in (1, 5, 10)},
    }


def unit(vectors: Floats) -> NDArray[np.float64]:
    """Rows of length 1, in float64 so that ties do not depend on the platform's float32 products; a zero row stays."""
    vectors = vectors.astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: NDArray[np.float64] = vectors / np.maximum(lengths, 1e-12)
    return scaled
