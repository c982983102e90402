"""Other people's methods: what a class must have to be one."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..plugins import Plugins, hidden, incomplete, undecorated, unversioned, without_default
from .base import RESERVED, Method, MethodConfig

WANTED = "a frozen dataclass that extends pgm.trainer.methods.MethodConfig"


def reserved(config: type[Any]) -> str:
    if {field.name for field in dataclasses.fields(config)}.isdisjoint(RESERVED):
        return ""
    return (
        f"a field is called {' or '.join(RESERVED)}, which a run's name says of every method; the version is a class "
        "variable, `version: ClassVar[int] = 1`"
    )


def unmade(config: type[Any]) -> str:
    """A method that makes itself from the data's shape needs no defaults."""
    own = config.made.__func__ is not MethodConfig.made.__func__  # type: ignore[attr-defined]
    return "" if own else without_default(config)


METHODS: Plugins[MethodConfig] = Plugins(
    kind="method",
    wanted=WANTED,
    group="pgm.methods",
    base=MethodConfig,  # type: ignore[type-abstract]
    checks=(undecorated, reserved, unversioned, unmade, incomplete, hidden),
    instead={Method: f"it is the module; name its configuration, {WANTED}, whose build(shape) makes it"},
)
