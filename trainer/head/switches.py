"""Switches: the fields of a frozen configuration, checked by type, range and choices in one place.

A field says in its annotation what it takes: bool, str, a Literal, a number as Annotated[int, Range(...)], or a tuple
of one of these. Whoever builds the configuration, from Python, `--set`, `--vary` or a run's config.json,
passes through `Switches.__post_init__`; a configuration that exists is one that can be trained. A number is kept in its
field's type (1 in a float field is 1.0), so that equal configurations have equal names. What the data decide, such as
the number of classes, is marked OF_THE_DATA: it is checked, and no setting reaches it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from ...cache.errors import UserError
from ...cache.nearest import did_you_mean

Config = TypeVar("Config")
TRUTH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
OF_THE_DATA = "of the data"


@dataclass(frozen=True)
class Range:
    """The finite numbers from `least` to `most`, both included, or strictly `above` and `below`."""

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None

    def holds(self, value: float) -> bool:
        """Whether the value lies in it; not a number and infinity never do."""
        return (
            math.isfinite(value)
            and (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        words = {"at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        bounds = " and ".join(f"{word} {bound:g}" for word, bound in words.items() if bound is not None)
        return f", {bounds}" if bounds else ""


Positive = Annotated[int, Range(least=1)]
Count = Annotated[int, Range(least=0)]
Weight = Annotated[float, Range(least=0)]
Share = Annotated[float, Range(least=0, below=1)]
AboveZero = Annotated[float, Range(above=0)]


class Switches:
    """The base of every configuration: a frozen dataclass whose fields are checked when it is built."""

    def __post_init__(self) -> None:
        """Raises UserError naming the first field that is wrong, what it takes and what was given."""
        for name, hint in hints_of(type(self)).items():
            object.__setattr__(self, name, checked(name, getattr(self, name), hint))


def hints_of(config: type[Any]) -> dict[str, Any]:
    """Field -> annotation, ranges included."""
    hints = get_type_hints(config, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(config)}


def switches_of(config: Any) -> list[str]:
    """The names a setting can have: a configuration's fields and those of the configurations in it."""
    names: list[str] = []
    for name, hint in hints_of(type(config)).items():
        value = getattr(config, name)
        names += switches_of(value) if dataclasses.is_dataclass(value) else [name] * is_switch(hint)
    return names


def is_switch(hint: Any) -> bool:
    """Whether a field of this annotation can be set."""
    kind, marks = taken_apart(hint)
    return OF_THE_DATA not in marks and (kind in (bool, int, float, str) or get_origin(kind) in (Literal, tuple))


def changed(config: Config, settings: Mapping[str, Any]) -> tuple[Config, dict[str, Any]]:
    """`config` with those settings that are switches of it, and the settings that are not.

    Values may be text, as they come from `--set name=value`; they are read by the field's type.
    """
    hints = {name: hint for name, hint in hints_of(type(config)).items() if is_switch(hint)}
    values = {name: read(settings[name], hint) for name, hint in hints.items() if name in settings}
    rest = {name: value for name, value in settings.items() if name not in hints}
    return dataclasses.replace(config, **values), rest  # type: ignore[type-var]


def rebuilt(config: type[Config], values: Mapping[str, Any]) -> Config:
    """A configuration from what `dataclasses.asdict` and JSON have made of it. Raises UserError for fields it lacks."""
    hints = hints_of(config)
    for name in values:
        if name not in hints:
            raise UserError(f"{config.__name__} has no field {name!r} any more: its code is not what wrote this.")
    return config(**{name: nested(hints[name], value) for name, value in values.items()})


def nested(hint: Any, value: Any) -> Any:
    """A field's value, in the configuration its annotation holds where it is one in JSON."""
    kind, _ = taken_apart(hint)
    inside = [part for part in (kind, *get_args(kind)) if isinstance(part, type) and dataclasses.is_dataclass(part)]
    return rebuilt(inside[0], value) if inside and isinstance(value, Mapping) else value


def taken_apart(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """An annotation's type, and what is annotated."""
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint, getattr(hint, "__metadata__", ())


def read(value: Any, hint: Any) -> Any:
    """Text as the type its field has; text that is none stays what it is, and `checked` refuses it."""
    kind, _ = taken_apart(hint)
    if not isinstance(value, str):
        return value
    if kind is bool:
        return TRUTH.get(value.lower(), value)
    if kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            return value
    if get_origin(kind) is tuple:
        return () if value == "none" else tuple(read(part, get_args(kind)[0]) for part in value.split("+"))
    return value


def checked(name: str, value: Any, hint: Any) -> Any:
    """The value in its field's type. Raises UserError saying what the field takes where it is none of that."""
    kind, marks = taken_apart(hint)
    if kind in (int, float):
        return number(name, value, kind, next((mark for mark in marks if isinstance(mark, Range)), Range()))
    if get_origin(kind) is Literal:
        return choice(name, value, get_args(kind))
    if get_origin(kind) is tuple:
        parts = read(value, kind) if isinstance(value, str) else value
        element = get_args(kind)[0]
        return tuple(checked(name, part, element) for part in (parts if isinstance(parts, list | tuple) else [parts]))
    if kind in (bool, str) and not isinstance(value, kind):
        raise UserError(f"{name} is {'true or false' if kind is bool else 'a word'}, not {value!r}.")
    return value


def number(name: str, value: Any, kind: type[int] | type[float], limits: Range) -> float:
    """A finite number within its limits, as an int or a float; a bool is none."""
    wanted = Integral if kind is int else Real
    if isinstance(value, bool) or not isinstance(value, wanted) or not limits.holds(float(value)):
        raise UserError(f"{name} is a {'whole ' * (kind is int)}number{limits}, not {value!r}.")
    return kind(value)  # type: ignore[call-overload]


def choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """One of the choices."""
    if value in choices:
        return str(value)
    raise UserError(f"{name} is one of {', '.join(choices)}, not {value!r}.{did_you_mean(str(value), list(choices))}")
