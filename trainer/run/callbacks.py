"""Callbacks: code of other people's that may end a stage of training and add metrics, and so is part of a run's name.

A listener listens and changes nothing; a callback decides. It decides by the epochs' records alone, so that a run that
was interrupted comes to the same. Its import path, the versions of its code and its fields are in the run's name; what
it added and where it stopped stand in the result under its import path, apart from the task's metrics. A run with
callbacks takes over no stage of another's, and leaves none.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ...cache.errors import RunFailed, UserError
from ...plugins import Plugins, described, hidden, import_path, incomplete, undecorated, unversioned, without_default
from ..head.switches import Switches
from ..methods.registry import check_json

Record = Mapping[str, Any]  # an epoch's line in metrics.jsonl


@dataclass(frozen=True)
class Callback(Switches):
    """What may stop a stage and add metrics: a frozen dataclass that extends this one, with defaults for its fields.

    `history` holds the records of all epochs so far, other stages' included; the last is the epoch just finished:
    {"stage": "task", "epoch": 3, "losses": {...}, "val": {...}}. version: raised when it decides otherwise.
    """

    version: ClassVar[int]

    def stop(self, history: Sequence[Record]) -> bool:
        """Whether the stage at hand ends with the epoch just finished."""
        return False

    def metrics(self, history: Sequence[Record]) -> Mapping[str, float]:
        """Numbers to keep with the epoch just finished: in its record, under "callbacks"."""
        return {}

    def result(self, history: Sequence[Record]) -> Mapping[str, float]:
        """Numbers to keep with the result of the run; by default those of its last epoch."""
        last: Mapping[str, float] = history[-1]["callbacks"][self.name]
        return last

    @property
    def name(self) -> str:
        """What it is called in names and results: its import path."""
        return import_path(type(self))

    def describe(self) -> dict[str, Any]:
        """JSON-able: what a run's name says of it."""
        return described(self, self.name)


Asked = str | Callback | type[Callback]  # an installed name or import path, a callback, or its class
CALLBACKS: Plugins[Callback] = Plugins(
    kind="callback",
    wanted="a frozen dataclass that extends pgm.trainer.run.callbacks.Callback",
    group="pgm.callbacks",
    base=Callback,
    checks=(undecorated, unversioned, without_default, incomplete, hidden),
)


def chosen(asked: Sequence[Asked]) -> tuple[Callback, ...]:
    """The callbacks asked for. Raises UserError for what is none, and for one that comes twice."""
    found = tuple(one if isinstance(one, Callback) else kind_of(one)() for one in asked)
    for one in found:
        CALLBACKS.admitted(type(one))
        check_json(one)
    names = [one.name for one in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"The callback {twice[0]} comes twice; what it adds stands under its name.")
    return found


def kind_of(asked: str | type[Callback]) -> type[Callback]:
    """The class asked for. Raises UserError for what is none, with the nearest name."""
    if isinstance(asked, type):
        return CALLBACKS.admitted(asked)
    return CALLBACKS.named(asked, {}, f"No callback {asked!r}")


def consult(callbacks: Sequence[Callback], history: Sequence[Record], entry: dict[str, Any]) -> bool:
    """Add what the callbacks say of an epoch to its record; whether one of them ends the stage."""
    if not callbacks:
        return False
    # Copies: nothing that a callback does to the records is to reach the run.
    entry["callbacks"] = {one.name: numbers(one, "metrics", [*history, entry]) for one in callbacks}
    stopping = [one.name for one in callbacks if called(one, "stop", [*history, entry])]
    if stopping:
        entry["stopped_by"] = stopping
    return bool(stopping)


def outcome(callbacks: Sequence[Callback], history: Sequence[Record]) -> dict[str, Any]:
    """What the result holds of the callbacks: name -> the metrics each adds, and the epochs in which it stopped."""
    return {
        one.name: {
            "metrics": numbers(one, "result", history),
            "stopped": [{k: e[k] for k in ("stage", "epoch")} for e in history if one.name in e.get("stopped_by", ())],
        }
        for one in callbacks
    }


def notes_of(callbacks: Sequence[Callback], history: Sequence[Record]) -> list[str]:
    """What a reader of the numbers must know: which stages were ended before their time."""
    return [
        f"Stage {stop['stage']} was stopped after epoch {stop['epoch']} by {name}."
        for name, found in outcome(callbacks, history).items()
        for stop in found["stopped"]
    ]


def numbers(callback: Callback, what: str, history: Sequence[Record]) -> dict[str, float]:
    """The metrics a callback gives. Raises RunFailed for what is no mapping of names to numbers."""
    given = called(callback, what, history)
    try:
        return {str(name): float(value) for name, value in given.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise RunFailed(f"{what}() of the callback {callback.name} gave {given!r}, not names with numbers.") from error


def called(callback: Callback, what: str, history: Sequence[Record]) -> Any:
    """One of its methods, called. Raises RunFailed, naming the callback, where it fails."""
    try:
        return getattr(callback, what)(copy.deepcopy(history))
    except Exception as error:
        raise RunFailed(f"{what}() of the callback {callback.name} failed: {type(error).__name__}: {error}") from error
