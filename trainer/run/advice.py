"""What `pgm train` says after its numbers: whether a floor is above them, and which command to run next.

It is told and never stored: a result holds numbers, and what they call for may change.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ...cache import open_dataset
from ..protocol import Protocol
from ..tasks import Task, task_for
from .request import Request
from .runs import Run

SEEDS = 5


def advice(request: Request, run: Run, result: Mapping[str, Any]) -> Iterator[str]:
    """Lines for people. run: any of the runs behind `result`, which is what `summary` made of them."""
    yield from below(judge(request, run), result)
    several = isinstance(result["run"], list)
    if not several:
        yield f"One seed says little: the same with --seeds {SEEDS} gives mean and deviation."
    places = [("--features", request.features, "features"), ("--runs", request.runs, "runs")]
    where = [word for name, at, usual in places if str(at) != usual for word in (name, str(at))]
    other = "pgm" if result["method"] == "concat" else "concat"
    words = [
        "pgm",
        "table",
        "fusion",
        "--dataset",
        result["dataset"],
        "--methods",
        f"{other},{result['method']}",
        *where,
    ]
    yield f"Beside another method, with tests: {shlex.join(words)}"


def judge(request: Request, run: Run) -> Task:
    """The run's task: its metrics and which of two values is better."""
    card = open_dataset(request.features, run.result["dataset"], request.version).card
    return task_for(card, Protocol(**run.config["protocol"]), tuple(run.config["widths"]), np.zeros(0, np.int64))


def below(task: Task, result: Mapping[str, Any]) -> Iterator[str]:
    """A line for each floor that is better on the test split, by the metric that rows are compared on."""
    mine = {task.primary: plain(result["test"][task.primary])} if task.primary in result["test"] else {}
    for floor, scores in result["floors"].items():
        if mine and task.better(scores, mine, task.primary):
            numbers = f"{mine[task.primary]:.3f} against {scores[task.primary]:.3f} {task.primary}"
            yield (
                f"{result['method']} is below the {floor.replace('_', ' ')} ({numbers}): it has learned nothing yet "
                "that is worth its parameters. More epochs (--epochs) or fewer parameters (--set dim=32) may help."
            )


def plain(score: Any) -> float:
    """A metric, or the mean of several seeds'."""
    return float(score["mean"] if isinstance(score, Mapping) else score)
