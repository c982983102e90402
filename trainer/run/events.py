"""What a training run reports while it runs: plain values that any number of listeners take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class RunStarted:
    """Everything is loaded; the first step comes next."""

    run: str
    dataset: str
    method: str
    seed: int
    parameters: int
    samples: Mapping[str, int]  # split -> samples
    feed: str  # how samples reach the model, and why
    device: str
    precision: str
    finished_epochs: int  # more than 0 when an interrupted run continues
    epochs: int


@dataclass(frozen=True)
class Note:
    """Something a reader of the numbers has to know: a carved split, a pooled cache, random encoders."""

    text: str


@dataclass(frozen=True)
class BatchFinished:
    """One step; frequent, for live displays only."""

    stage: str
    done: int  # samples of this epoch
    total: int


@dataclass(frozen=True)
class EpochFinished:
    """One epoch of one stage; what a line of metrics.jsonl holds too."""

    stage: str
    epoch: int  # of the stage, from 1
    epochs: int
    losses: Mapping[str, float]  # means over the epoch
    val: Mapping[str, float]  # empty in a stage that does not select
    best: bool  # these weights are the best so far on validation
    samples_per_second: float
    waiting: float  # share of the step time spent waiting for data, 0..1
    seconds: float
    eta: float  # seconds to the end of the run at this pace


@dataclass(frozen=True)
class RunFinished:
    """`reused`: the run was there already, nothing was trained."""

    run: str
    dataset: str
    method: str
    val: Mapping[str, float]
    test: Mapping[str, float]
    floors: Mapping[str, Mapping[str, float]]
    seconds: float
    reused: bool


Event = RunStarted | Note | BatchFinished | EpochFinished | RunFinished
Listener = Callable[[Event], None]


def silent(event: Event) -> None:
    """The null listener."""
