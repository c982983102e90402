"""Floors: what any method must beat to have learned something. A majority guess, and a linear probe on pooled features.

The probe is scikit-learn's logistic (ridge) regression on each sample's mean token of every modality, standardised
and put side by side; its regularisation is chosen on validation, from at most 10,000 training samples. For retrieval
each modality has its own probe, and the class probabilities are compared across modalities (semantic matching,
Rasiwasia et al. 2010).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.dataset import TrainingData
from ..data.feed import present_lengths
from ..data.order import Rows
from ..data.pooling import pooled
from ..tasks import Task

TRAIN_LIMIT = 10_000
STRENGTHS = (0.01, 0.1, 1.0)
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
    constant = data.task.constant(data.targets[data.splits["train"]], len(targets.test))
    return {
        "majority": data.task.metrics(constant, targets.test),
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


def linear_probe(task: Task, vectors: Vectors, targets: Targets) -> dict[str, float]:
    """Test metrics of the probe whose strength was the best on validation."""
    best: tuple[dict[str, float], dict[str, float]] | None = None
    for strength in STRENGTHS:
        val, test = task.probed(vectors, targets.train, strength)
        scored = task.metrics(val, targets.val)
        if best is None or task.better(scored, best[0], task.judge):
            best = scored, task.metrics(test, targets.test)
    assert best is not None
    return best[1]
