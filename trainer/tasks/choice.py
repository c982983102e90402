"""Which task a dataset's card asks for: a file here, an entry point `pgm.tasks`, or package.module:Class."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from numpy.typing import NDArray

from ...cache import DatasetCard
from ...cache.errors import UserError
from ...cache.nearest import did_you_mean
from ...plugins import Plugins, classes_in, import_path, is_ours
from ..protocol import Protocol
from .base import Task
from .metric import METRICS, Metric

FEW = 8  # samples
TASKS: Plugins[Task] = Plugins(
    kind="task",
    wanted="a class that extends pgm.trainer.tasks.Task",
    group="pgm.tasks",
    base=Task,  # type: ignore[type-abstract]
)


@cache
def our_tasks() -> dict[str, type[Task]]:
    """The tasks in this folder that have a name."""
    every = classes_in(__package__, Task)  # type: ignore[type-abstract]
    return {task.name: task for task in every if vars(task).get("name")}


def kind_of(card: DatasetCard) -> type[Task]:
    """What kind of task a card asks for. Raises UserError for one that is not here."""
    return TASKS.named(card.task, our_tasks(), f"Dataset {card.name!r} asks for the task {card.task!r}")


def name_of(kind: type[Task]) -> str:
    """What a task is called in the names of runs: one of ours by its name, another's by its import path."""
    return kind.name if is_ours(kind) else import_path(kind)


def task_for(card: DatasetCard, protocol: Protocol, modalities: tuple[str, ...], labels: NDArray[Any]) -> Task:
    """The task of a dataset; categories without names are numbered. Raises UserError for a task that is not here."""
    classes = card.classes or tuple(map(str, range(int(labels.max(initial=0)) + 1)))
    kind = kind_of(card)
    task = kind.of(classes, modalities, protocol)
    if is_ours(type(task)) and not is_ours(kind):
        raise UserError(f"{import_path(kind)}.of gives {import_path(type(task))}, which it must extend instead.")
    judge_by(task, protocol.metric, card.metrics if isinstance(task, kind) else ())
    if protocol.select_on and len(labels):
        select_on(task, protocol.select_on, task.targets(labels[:FEW]))
    return task


def judge_by(task: Task, asked: str, card: Sequence[str]) -> None:
    """Have rows compared, and epochs selected, on the metric asked for, else on the card's first that the task can.

    Where that is the task's own, its own selection stays. Raises UserError for a metric rows cannot be compared on.
    """
    can = task.primaries or (task.primary,)
    if asked and asked not in can:
        near = did_you_mean(asked, can)
        raise UserError(f"Rows cannot be compared on {asked!r}. There are: {', '.join(can)}.{near}")
    chosen = asked or next((name for name in card if name in can), task.primary)
    if chosen != task.primary:
        task.primary = task.monitor = chosen


def select_on(task: Task, name: str, targets: NDArray[Any]) -> None:
    """Have a task select on one of its metrics, or on another's. Raises UserError for a name that is neither.

    targets: (N,) a few, from which the task says which metrics it has.
    """
    known = task.metrics(task.constant(targets, len(targets)), targets)
    ours: dict[str, type[Metric]] = dict.fromkeys(known, Metric)  # type: ignore[type-abstract]
    found = None if name in known else METRICS.named(name, ours, f"No metric {name!r} to select on")
    task.own_metric = None if found is None else found()
    task.monitor = name if found is None else import_path(found)
