"""`--tune N`: learning rate and length of training chosen on validation, from the same N choices for every row.

A trial is the run with other learning rates (all of a method's times one factor) and another number of epochs on the
task; data, seed and all else stay. Its score is that of its best epoch on validation; the test split is never opened,
and its weights are thrown away. Then the run is trained as the best trial was, the first of equal ones. A trial's score
is kept under runs/trials/ by the name of what decides it, so that a killed run goes on and other runs find it. Costs N
trainings beside the run's own. None is the default: equal and untuned is a protocol too, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..protocol import Protocol
from ..tasks import Task

# Rates times, epochs on the task times. The first is the preset's own; then the nearest.
TRIALS = ((1, 1), (3, 1), (1 / 3, 1), (1, 2), (3, 2), (1 / 3, 2), (10, 1), (10, 2), (0.1, 1), (0.1, 2))
RATES = ("lr", "lr_learners", "lr_decoder")


@dataclass(frozen=True)
class Tuned:
    """What was chosen. number: of the trial; scores: each trial's validation metrics."""

    number: int
    protocol: Protocol
    scores: tuple[Mapping[str, float], ...]

    def as_dict(self, monitor: str) -> dict[str, Any]:
        """What a run's result says of it."""
        chosen = {"lr": self.protocol.lr, "epochs": self.protocol.epochs}
        return {"trials": len(self.scores), **chosen, "val": [score[monitor] for score in self.scores]}


def trials(protocol: Protocol) -> list[Protocol]:
    """What is tried, in order; `protocol.tune` of them."""
    found = []
    for rate, length in TRIALS[: protocol.tune]:
        rates: dict[str, Any] = {name: getattr(protocol, name) * rate for name in RATES}
        found.append(replace(replace(protocol, **rates), epochs=protocol.epochs * length, tune=0))
    return found


def tuned(protocol: Protocol, task: Task, score: Callable[[Protocol], Mapping[str, float]]) -> Tuned:
    """The best of the trials by the metric the run selects on. score: trains one and says its validation metrics."""
    tried = trials(protocol)
    scores = [score(one) for one in tried]
    best = 0
    for number in range(1, len(tried)):
        if task.better(scores[number], scores[best]):
            best = number
    return Tuned(best, tried[best], tuple(scores))


def trainings(protocol: Protocol) -> float:
    """How often a run's own epochs are trained in all, at most."""
    return 1.0 if not protocol.tune else sum(length for _, length in TRIALS[: protocol.tune]) + 2
