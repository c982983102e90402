"""Floors: what any method must beat to have learned something. A majority guess, and a linear probe of the features.

The probe is scikit-learn's logistic (ridge) regression on each sample's tokens laid end to end (data/flat.py), all
modalities side by side, from at most 10,000 training samples. Its regularisation is chosen on validation, from a range
that grows by tens as long as its end is the best. For retrieval each modality has its own probe, and the class
probabilities are compared across modalities (semantic matching, Rasiwasia et al. 2010).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.dataset import TrainingData
from ..data.flat import Vectors, flat_vectors
from ..data.order import Rows
from ..tasks import Task
from ..tasks.base import Predictor
from ..tasks.linear import STEPS, Fit

VERSION = 2  # 1: on mean tokens, three strengths
TRAIN_LIMIT = 10_000
STRENGTHS = (0.01, 0.1, 1.0)
WEAKEST, STRONGEST = 1e-6, 1e6  # no further does the range grow


@dataclass(frozen=True)
class Probe:
    """A linear model whose strength was the best on validation. at_end: it is the last that was to be tried."""

    strength: float
    at_end: bool
    predict: Predictor


def floors(data: TrainingData) -> dict[str, dict[str, float]]:
    """Test metrics of the majority guess and of the linear probe."""
    splits = {**data.splits, "train": evenly(data.splits["train"], TRAIN_LIMIT)}
    targets = {name: data.targets[rows] for name, rows in splits.items()}
    vectors = flat_vectors(data.features, splits)
    constant = data.task.constant(data.targets[data.splits["train"]], len(targets["test"]))
    probe = best_probe(data.task, vectors, targets)
    return {
        "majority": data.task.metrics(constant, targets["test"]),
        "linear_probe": data.task.metrics(probe.predict(vectors["test"]), targets["test"]),
    }


def evenly(rows: Rows, limit: int) -> Rows:
    """At most `limit` of the rows, evenly spaced."""
    return rows if len(rows) <= limit else rows[np.linspace(0, len(rows) - 1, limit).astype(np.int64)]


def best_probe(task: Task, vectors: Vectors, targets: Mapping[str, NDArray[Any]], steps: int = STEPS) -> Probe:
    """The probe that is the best on validation by what the task is judged on; of equal ones the first tried.

    vectors, targets: of "train" and "val". The range grows at the end that is the best, while that makes it better.
    """
    tried: dict[float, tuple[dict[str, float], Predictor]] = {}

    def fitted(strength: float) -> dict[str, float]:
        predict = task.probed(vectors["train"], targets["train"], Fit(strength, steps, task.balanced))
        tried[strength] = task.metrics(predict(vectors["val"]), targets["val"]), predict
        return tried[strength][0]

    best = STRENGTHS[0]
    for strength in STRENGTHS:
        if task.better(fitted(strength), tried[best][0] if strength != best else None, task.judge):
            best = strength
    while (further := beyond(best, tried)) is not None:
        if not task.better(fitted(further), tried[best][0], task.judge):
            break
        best = further
    return Probe(best, not WEAKEST < best < STRONGEST, tried[best][1])


def beyond(best: float, tried: Mapping[float, Any]) -> float | None:
    """The strength to be tried next, None where the best lies within the range or the range may not grow."""
    if best == min(tried):
        further = float(f"{best / 10:.0e}")
    elif best == max(tried):
        further = float(f"{best * 10:.0e}")
    else:
        return None
    return further if WEAKEST <= further <= STRONGEST else None
