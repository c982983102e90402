"""Floors: what any method must beat to have learned something. A majority guess, and a linear probe on pooled features.

The probe is scikit-learn's logistic (ridge) regression on each sample's mean token of every modality, standardised
and put side by side; its regularisation is chosen on validation, from at most 10,000 training samples. For retrieval
each modality has its own probe, and the class probabilities are compared across modalities (semantic matching,
Rasiwasia et al. 2010).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.dataset import TrainingData
from ..data.feed import present_lengths
from ..data.order import Rows
from ..data.pooling import pooled
from ..tasks import Retrieval, SentimentRegression, Task, Views

TRAIN_LIMIT = 10_000
STRENGTHS = (0.01, 0.1, 1.0)
STEPS = 60
Vectors = Mapping[str, Mapping[str, NDArray[np.float32]]]  # split -> modality -> (N, D)


@dataclass(frozen=True)
class Targets:
    """The targets of each split."""

    train: NDArray[Any]
    val: NDArray[Any]
    test: NDArray[Any]


def floors(data: TrainingData) -> dict[str, dict[str, float]]:
    """Test metrics of the majority guess and of the linear probe."""
    splits = dict(data.splits)
    splits["train"] = evenly(splits["train"], TRAIN_LIMIT)
    targets = Targets(*(data.targets[splits[name]] for name in ("train", "val", "test")))
    vectors = {split: {m: mean_tokens(data, m, rows) for m in data.features} for split, rows in splits.items()}
    scaled = standardized(vectors)
    return {
        "majority": data.task.metrics(majority(data.task, data.targets[data.splits["train"]], scaled), targets.test),
        "linear_probe": linear_probe(data.task, scaled, targets),
    }


def evenly(rows: Rows, limit: int) -> Rows:
    """At most `limit` of the rows, evenly spaced."""
    return rows if len(rows) <= limit else rows[np.linspace(0, len(rows) - 1, limit).astype(np.int64)]


def mean_tokens(data: TrainingData, modality: str, rows: Rows) -> NDArray[np.float32]:
    """(N, D): each sample's mean token; zeros where the modality is missing."""
    store = data.features[modality]
    lengths = present_lengths(store)[rows]
    means = np.zeros((len(rows), store.dim), np.float32)
    for start in range(0, len(rows), 2048):
        block = slice(start, start + 2048)
        packed, _ = store.gather(rows[block], unavailable="empty")
        means[block][lengths[block] > 0] = pooled(packed, lengths[block], 1)
    return means


def standardized(vectors: Vectors) -> Vectors:
    """Every feature at zero mean and unit variance on the training samples; a constant one is left at zero."""
    scaled: dict[str, dict[str, NDArray[np.float32]]] = {split: {} for split in vectors}
    for modality, train in vectors["train"].items():
        mean, deviation = train.mean(axis=0), train.std(axis=0)
        deviation = np.where(deviation > 1e-6 * (np.abs(mean) + 1e-6), deviation, np.inf)
        for split in vectors:
            scaled[split][modality] = ((vectors[split][modality] - mean) / deviation).clip(-10, 10)
    return scaled


def majority(task: Task, train: NDArray[Any], vectors: Vectors) -> Views:
    """The same guess for every test sample: the most frequent class, or the median score."""
    count = len(next(iter(vectors["test"].values())))
    if isinstance(task, SentimentRegression):
        return {"logits": np.full((count, 1), np.median(train), np.float32)}
    guess = np.bincount(train, minlength=task.outputs).astype(np.float32)
    if isinstance(task, Retrieval):
        return {m: np.tile(guess, (count, 1)) for m in task.modalities}
    return {"logits": np.tile(guess, (count, 1))}


def linear_probe(task: Task, vectors: Vectors, targets: Targets) -> dict[str, float]:
    """Test metrics of the probe whose strength was the best on validation."""
    best: tuple[dict[str, float], dict[str, float]] | None = None
    for strength in STRENGTHS:
        val, test = probe_views(task, vectors, targets.train, strength)
        scored = task.metrics(val, targets.val)
        if best is None or task.better(scored, best[0]):
            best = scored, task.metrics(test, targets.test)
    assert best is not None
    return best[1]


def probe_views(task: Task, vectors: Vectors, train: NDArray[Any], strength: float) -> tuple[Views, Views]:
    """What the task evaluates of validation and test, from linear models fitted on the training vectors."""
    if isinstance(task, Retrieval):
        sides = {m: {split: vectors[split][m] for split in vectors} for m in task.modalities}
    else:
        sides = {"logits": {split: np.concatenate(list(vectors[split].values()), axis=1) for split in vectors}}
    found = {name: probe(side, train, task, strength) for name, side in sides.items()}
    return {name: pair[0] for name, pair in found.items()}, {name: pair[1] for name, pair in found.items()}


def probe(
    side: Mapping[str, NDArray[np.float32]], train: NDArray[Any], task: Task, strength: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Outputs (N, outputs) for validation and test: scores, or log-probabilities (retrieval: probabilities)."""
    # scikit-learn takes a second to import, and a run that is answered from its folder never needs it.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression, Ridge
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    if isinstance(task, SentimentRegression):
        ridge = Ridge(alpha=1 / strength).fit(side["train"], train)
        val, test = (ridge.predict(side[split]).astype(np.float32).reshape(-1, 1) for split in ("val", "test"))
        return val, test
    classes = np.unique(train)
    if len(classes) == 1:
        val, test = (spread(np.ones((len(side[split]), 1)), classes, task) for split in ("val", "test"))
        return val, test
    # Products this narrow gain nothing from a second thread, and on a busy machine lose a factor of eight.
    with threadpool_limits(1), warnings.catch_warnings():
        # So many steps are close enough for a floor.
        warnings.simplefilter("ignore", ConvergenceWarning)
        # In retrieval of single items every item is a class.
        warnings.filterwarnings("ignore", "The number of unique classes is greater")
        fitted = LogisticRegression(C=strength, max_iter=STEPS).fit(side["train"], train)
    val, test = (spread(fitted.predict_proba(side[split]), classes, task) for split in ("val", "test"))
    return val, test


def spread(known: NDArray[np.floating], classes: NDArray[np.int64], task: Task) -> NDArray[np.float32]:
    """Probabilities of the classes that training has, as outputs for all classes."""
    probabilities = np.zeros((len(known), task.outputs), np.float32)
    probabilities[:, classes] = known
    return probabilities if isinstance(task, Retrieval) else np.log(probabilities + 1e-12)
