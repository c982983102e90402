"""Other people's methods: what a class must have to be one."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..plugins import Plugins, hidden, incomplete, unversioned
from .base import RESERVED, Method, MethodConfig

WANTED = "a frozen dataclass that extends pgm.trainer.methods.MethodConfig"


def undecorated(config: type[Any]) -> str:
    return "" if "__dataclass_params__" in vars(config) else "@dataclass(frozen=True) is missing above the class"


def reserved(config: type[Any]) -> str:
    if {field.name for field in dataclasses.fields(config)}.isdisjoint(RESERVED):
        return ""
    return (
        f"a field is called {' or '.join(RESERVED)}, which a run's name says of every method; the version is a class "
        "variable, `version: ClassVar[int] = 1`"
    )


def without_default(config: type[Any]) -> str:
    """Whether `made` as MethodConfig has it could not make one."""
    own = config.made.__func__ is not MethodConfig.made.__func__  # type: ignore[attr-defined]
    missing = dataclasses.MISSING
    bare = any(f.default is missing and f.default_factory is missing for f in dataclasses.fields(config))
    return "every field needs a default, so that --method can make it" if bare and not own else ""


METHODS: Plugins[MethodConfig] = Plugins(
    kind="method",
    wanted=WANTED,
    group="pgm.methods",
    base=MethodConfig,  # type: ignore[type-abstract]
    checks=(undecorated, reserved, unversioned, without_default, incomplete, hidden),
    instead={Method: f"it is the module; name its configuration, {WANTED}, whose build(shape) makes it"},
)
