"""Methods by name: `--method pgm`, `single:audio` (or just `audio`), `package.module:Class`, or one that is installed.

A method of ours is found because its file lies in this folder and its configuration has `names`; METHODS finds those
of other people. Nothing here knows any of them.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any

from ...cache.errors import UserError
from ...cache.store.identity import canonical_json
from ...plugins import (
    Plugins,
    classes_in,
    hidden,
    import_path,
    incomplete,
    is_ours,
    undecorated,
    unversioned,
    without_default,
)
from ..head.switches import rebuilt
from .base import RESERVED, Method, MethodConfig, Settings, Shape

Asked = str | MethodConfig | type[MethodConfig]  # a name, a configuration, or its class
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


@cache
def our_methods() -> tuple[type[MethodConfig], ...]:
    """The configurations in this folder that have a name."""
    every = classes_in(__package__, MethodConfig)  # type: ignore[type-abstract]
    return tuple(config for config in every if vars(config).get("names"))


def known_methods(modalities: Sequence[str]) -> dict[str, type[MethodConfig]]:
    """Every name of our own methods on a dataset of these modalities."""
    return {name: config for config in our_methods() for name in config.offered(modalities)}


def found(asked: Asked, modalities: Sequence[str]) -> tuple[str, type[MethodConfig]]:
    """What was asked for by its full name, and its configuration. Raises UserError for what is no method.

    modalities: those of the dataset.
    """
    if not isinstance(asked, str):
        config = METHODS.admitted(asked if isinstance(asked, type) else type(asked))
        if not is_ours(config):
            return import_path(config), config
        asked = config.names[0] if isinstance(asked, type) else asked.name
    known = known_methods(modalities)
    name = f"single:{asked}" if asked in modalities and asked not in known else asked
    return name, METHODS.named(name, known, f"No method {name!r} for this dataset")


def listed() -> dict[str, str]:
    """Every name of a method with the first line of its file, or with where an installed one comes from."""
    ours = {name: inspect.getdoc(import_module(config.__module__)) for name, config in known_methods(("NAME",)).items()}
    first = {name: (text or "").splitlines()[0] for name, text in sorted(ours.items())}
    return {**first, **{name: f"installed: {point.value}" for name, point in METHODS.installed().items()}}


def modalities_of(asked: Asked, modalities: tuple[str, ...]) -> tuple[str, ...]:
    """The modalities a method reads. Raises UserError for a name that is no method, suggesting the nearest."""
    name, config = found(asked, modalities)
    return config.offered(modalities).get(name, modalities)


def choose(asked: Asked, preset: str, shape: Shape, settings: Settings) -> tuple[MethodConfig, dict[str, Any]]:
    """The configuration asked for, and the settings that are none of its fields.

    `shape` holds the modalities the method reads (`modalities_of`). A configuration that is given takes no settings.
    """
    name, kind = found(asked, shape.modalities)
    if kind.several and len(shape.modalities) < 2:
        raise UserError(
            f"This method trains several modalities against each other, and {shape.modalities[0]} is the only one "
            "here. Choose more with --modalities, or a method of one modality (--method single:"
            f"{shape.modalities[0]})."
        )
    config, rest = (
        (asked, dict(settings)) if isinstance(asked, MethodConfig) else kind.made(name, preset, shape, settings)
    )
    config.check(shape)
    if not is_ours(kind):
        check_json(config)
    return config, rest


def restored(described: Mapping[str, Any], modalities: Sequence[str]) -> MethodConfig:
    """The configuration that `describe` wrote into a run's config.json; modalities: those of the run.

    Raises UserError where another's method is not installed here, or no longer has these fields.
    """
    _, kind = found(str(described["name"]), modalities)
    return rebuilt(kind, {name: value for name, value in described.items() if name not in RESERVED})


def check_json(config: Any) -> None:
    """Raise UserError for a field that does not come back the same from JSON: runs are named and restored by it."""
    fields = {name: value for name, value in config.describe().items() if name not in RESERVED}
    lost = [name for name, value in fields.items() if not is_json(value)]
    if not lost:
        again = rebuilt(type(config), json.loads(canonical_json(fields)))
        lost = [name for name in fields if getattr(again, name) != getattr(config, name)]
    if lost:
        raise UserError(
            f"{lost[0]}={getattr(config, lost[0])!r} of {import_path(type(config))} does not come back the same from "
            "JSON, by which a run is named and restored. Use numbers, words, true or false, tuples of these, or "
            "dataclasses of them."
        )


def is_json(value: Any) -> bool:
    """Whether JSON can hold a value at all."""
    try:
        canonical_json(value)
    except (TypeError, ValueError):
        return False
    return True
