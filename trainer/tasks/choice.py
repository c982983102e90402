"""Which task a dataset's card asks for."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from ...cache import DatasetCard
from ...cache.errors import UserError
from ..protocol import Protocol
from .base import Task
from .classification import Classification, Emotion
from .retrieval import Retrieval
from .sentiment import SentimentRegression

KINDS: dict[str, type[Task]] = {
    "classification": Classification,
    "emotion": Emotion,
    "sentiment": SentimentRegression,
    "retrieval": Retrieval,
}


def kind_of(card: DatasetCard) -> type[Task]:
    """What kind of task a card asks for. Raises UserError for one that is not here."""
    if card.task not in KINDS:
        raise UserError(f"Dataset {card.name!r} asks for the task {card.task!r}; the trainer has {', '.join(KINDS)}.")
    return KINDS[card.task]


def task_for(card: DatasetCard, protocol: Protocol, modalities: tuple[str, ...], labels: NDArray[Any]) -> Task:
    """The task of a dataset; categories without names are numbered. Raises UserError for a task that is not here."""
    classes = card.classes or tuple(map(str, range(int(labels.max(initial=0)) + 1)))
    return kind_of(card).of(classes, modalities, protocol)
