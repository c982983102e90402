"""Which task a dataset's card asks for, and its targets from the label column."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...cache import DatasetCard
from ...cache.errors import UserError
from ..protocol import Protocol
from .base import Task
from .classification import Classification, Emotion
from .retrieval import Retrieval
from .sentiment import SentimentClasses, SentimentRegression, polarity


def task_for(card: DatasetCard, protocol: Protocol, modalities: tuple[str, ...], labels: NDArray[Any]) -> Task:
    """The task of a dataset; categories without names are numbered. Raises UserError for a task that is not here."""
    classes = card.classes or tuple(map(str, range(int(labels.max(initial=0)) + 1)))
    if card.task == "classification":
        return Classification(classes)
    if card.task == "emotion":
        return Emotion(classes)
    if card.task == "retrieval":
        return Retrieval(classes, modalities)
    if card.task == "sentiment":
        return SentimentClasses() if protocol.sentiment == "classes" else SentimentRegression()
    raise UserError(
        f"Dataset {card.name!r} asks for the task {card.task!r}; "
        "the trainer has classification, emotion, sentiment and retrieval."
    )


def targets_for(task: Task, labels: NDArray[Any]) -> NDArray[Any]:
    """Labels as the task's loss and metrics take them: int64 classes or float32 scores."""
    if isinstance(task, SentimentRegression):
        return labels.astype(np.float32)
    if isinstance(task, SentimentClasses) and labels.dtype.kind == "f":
        return polarity(labels)
    return labels.astype(np.int64)
