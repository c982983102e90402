"""What a dataset's name already says: its task and its class names, for features that somebody else extracted.

Class names stand in the order of the published label numbers. Where releases disagree about that order, none are given
and the file's own labels name the classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .arrays import METRICS
from .imported import Task

POLARITY = ("negative", "neutral", "positive")
MELD = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
WIKIPEDIA = (
    *("art", "biology", "geography", "history", "literature"),
    *("media", "music", "royalty", "sport", "warfare"),
)
CREMA_D = ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")
DIGITS = tuple(map(str, range(10)))


@dataclass(frozen=True)
class Known:
    """A dataset's task, and its classes where their order is settled."""

    task: Task
    classes: tuple[str, ...] | None = None

    @property
    def metrics(self) -> tuple[str, ...]:
        """What its results are told in, which its task decides."""
        return METRICS[self.task]


KNOWN: dict[str, Known] = {
    "mosi": Known("sentiment"),
    "mosei": Known("sentiment"),
    "sims": Known("sentiment"),
    "meld": Known("emotion", MELD),
    "iemocap": Known("emotion"),
    "crema_d": Known("emotion", CREMA_D),
    "wikipedia": Known("retrieval", WIKIPEDIA),
    "food101": Known("classification"),
    "mvsa_single": Known("classification", POLARITY),
    "mvsa_multiple": Known("classification", POLARITY),
    "av_mnist": Known("classification", DIGITS),
    "digits": Known("classification", DIGITS),
}


def classes_for(name: str, task: Task, labels: NDArray[np.generic]) -> Sequence[str] | None:
    """The class names that dataset `name` brings, where its task was not changed and the labels can be theirs."""
    known = KNOWN.get(name)
    if known is None or known.task != task or known.classes is None:
        return None
    if labels.dtype.kind == "U":
        return known.classes if set(labels.tolist()) <= set(known.classes) else None
    return known.classes if labels.min(initial=0) >= 0 and labels.max(initial=0) < len(known.classes) else None
