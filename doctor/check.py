"""One line of the doctor's: what was looked at, what was found, and what to do where it is not well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """state: `warn` costs time or a feature, `fail` stands in the way of a command. advice: empty where all is well."""

    name: str
    state: State
    found: str
    advice: str = ""


def ok(name: str, found: str) -> Check:
    """All is well."""
    return Check(name, "ok", found)


def warn(name: str, found: str, advice: str) -> Check:
    """Something is slow, or a feature is not there."""
    return Check(name, "warn", found, advice)


def fail(name: str, found: str, advice: str) -> Check:
    """A command that needs this cannot run."""
    return Check(name, "fail", found, advice)
