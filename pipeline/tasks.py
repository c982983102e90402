"""Tasks as far as stage 1 has to know them: a word for the card, and whether labels are classes or scores.

What a task is, is said by the trainer, or by another package (entry points `pgm.tasks`), which stage 1 never imports.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cache.errors import UserError
from ..cache.nearest import did_you_mean
from ..plugins import installed

METRICS: dict[str, tuple[str, ...]] = {
    "classification": ("accuracy", "weighted_f1"),
    "emotion": ("accuracy", "weighted_f1"),
    "sentiment": ("acc2_has0", "f1_has0", "acc2_non0", "f1_non0", "acc5", "acc7", "mae", "corr"),
    "retrieval": ("map", "p10", "r1", "r5", "r10"),
}

OTHERS: dict[str, tuple[str, ...]] = {  # that a dataset can be compared on instead
    "classification": ("balanced_accuracy", "auroc", "average_precision"),
    "emotion": ("balanced_accuracy", "auroc", "average_precision"),
}


def metrics_of(task: str, first: str | None) -> tuple[str, ...]:
    """A task's metrics as a card lists them, the one that rows are compared on first.

    Raises UserError for one that is not the task's; what another package's task can be compared on is its to say.
    """
    usual = METRICS.get(task, ())
    if first is None:
        return usual
    known = (*usual, *OTHERS.get(task, ()))
    if known and first not in known:
        raise UserError(f"--metric of {task} is one of {', '.join(known)}, not {first!r}.{did_you_mean(first, known)}")
    return tuple(dict.fromkeys((first, *usual)))


def checked_task(asked: str) -> str:
    """The task as it was asked for. Raises UserError for a word that is none, suggesting the nearest."""
    known = [*METRICS, *installed("pgm.tasks")]
    if asked not in known and ":" not in asked:
        near = did_you_mean(asked, known)
        raise UserError(f"--task is one of {', '.join(known)}, or package.module:Class, not {asked!r}.{near}")
    return asked


def labels_are_scores(task: str, labels: NDArray[Any]) -> bool:
    """Whether labels (N,) are kept as float scores and not as classes.

    Sentiment's are; of a task that is not ours, numbers of which some are negative or no whole ones.
    """
    if task in METRICS:
        return task == "sentiment"
    return labels.dtype.kind in "if" and not bool(((labels == np.round(labels)) & (labels >= 0)).all())
