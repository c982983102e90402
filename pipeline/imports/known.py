"""What a dataset's name already says, for features that somebody else extracted: its task, which decides its metrics,
and its class names.

Class names are the adapters', in the order of the published label numbers. Where releases disagree about that order
(IEMOCAP), none are given and the file's own labels name the classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..datasets import av_mnist, crema_d, digits, meld, mvsa, wikipedia


@dataclass(frozen=True)
class Known:
    """A dataset's task, and its classes where their order is settled."""

    task: str
    classes: tuple[str, ...] | None = None


KNOWN: dict[str, Known] = {
    "mosi": Known("sentiment"),
    "mosei": Known("sentiment"),
    "sims": Known("sentiment"),
    "meld": Known("emotion", meld.CLASSES),
    "iemocap": Known("emotion"),
    "crema_d": Known("classification", crema_d.CLASSES),
    "wikipedia": Known("retrieval", wikipedia.CLASSES),
    "food101": Known("classification"),
    "mvsa_single": Known("classification", mvsa.CLASSES),
    "mvsa_multiple": Known("classification", mvsa.CLASSES),
    "av_mnist": Known("classification", av_mnist.CLASSES),
    "digits": Known("classification", digits.CLASSES),
}


def classes_for(name: str, task: str, labels: NDArray[np.generic]) -> Sequence[str] | None:
    """The class names that dataset `name` brings, where its task was not changed and the labels can be theirs."""
    known = KNOWN.get(name)
    if known is None or known.task != task or known.classes is None:
        return None
    if labels.dtype.kind == "U":
        return known.classes if set(labels.tolist()) <= set(known.classes) else None
    return known.classes if labels.min(initial=0) >= 0 and labels.max(initial=0) < len(known.classes) else None
