"""Other people's methods: named package.module:Class, or by an entry point in the group `pgm.methods`.

Either is the same method, called by its import path in the names of runs, so that a run is found and restored whichever
way it was asked for. A module that lies in the working folder is found as `python -m` would find it.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from ...cache.errors import UserError
from ..head.switches import nearest
from .base import RESERVED, Method, MethodConfig, import_path, is_ours

GROUP = "pgm.methods"
WANTED = "a frozen dataclass that extends pgm.trainer.methods.MethodConfig"


def installed() -> dict[str, EntryPoint]:
    """The methods of installed packages, by name; none is imported."""
    return {point.name: point for point in entry_points(group=GROUP)}


def plugin(name: str) -> type[MethodConfig] | None:
    """Another's method by an installed name or by its import path; None for a name that is neither.

    Raises UserError for what cannot be imported, and for what is no method.
    """
    point = installed().get(name)
    path = name if point is None else point.value
    module, separator, qualname = path.partition(":")
    if not separator or not all(part.isidentifier() for part in f"{module}.{qualname}".split(".")):
        return None
    return admitted(class_in(imported(module, path), qualname, path))


def imported(module: str, path: str) -> ModuleType:
    """The module. Raises UserError where there is none, or importing it fails; path: what was asked for."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise UserError(f"Method {path!r}: importing {module} failed: {error} {place_of(error)}") from error
        if add_working_folder(module):
            return imported(module, path)
        raise UserError(
            f"Method {path!r}: there is no module {error.name!r} in this Python ({sys.executable}) or in {Path.cwd()}. "
            "Install its package there; the workers of another machine need it too."
        ) from None
    except Exception as error:
        what = f"{type(error).__name__}: {error} {place_of(error)}"
        raise UserError(f"Method {path!r}: importing {module} failed: {what}") from error


def add_working_folder(module: str) -> bool:
    """Whether the working folder holds the module and was not searched; then it is, last, here and in new processes."""
    folder, top = Path.cwd(), module.split(".")[0]
    there = (folder / f"{top}.py").is_file() or (folder / top).is_dir()
    if not there or str(folder) in sys.path:
        return False
    sys.path.append(str(folder))
    return True


def place_of(error: BaseException) -> str:
    """The file and line an error comes from."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"({last.filename}, line {last.lineno})"


def class_in(module: ModuleType, qualname: str, path: str) -> Any:
    """What the module calls so. Raises UserError, naming the methods it has, where it has no such thing."""
    found: Any = module
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if found is None:
        there = [name for name, value in vars(module).items() if is_config(value) and not is_ours(value)]
        having = f"It has {', '.join(there)}." if there else f"It has none that is {WANTED}."
        raise UserError(f"Method {path!r}: {module.__name__} has no {qualname!r}. {having}{nearest(qualname, there)}")
    return found


def is_config(value: Any) -> bool:
    """Whether it is the configuration of a method."""
    return isinstance(value, type) and issubclass(value, MethodConfig) and value is not MethodConfig


def admitted(config: Any) -> type[MethodConfig]:
    """A method's configuration class. Raises UserError for anything else, saying what is wrong with it."""
    if not is_config(config):
        raise UserError(f"{told(config)} is no method: {hint_for(config)}")
    wrong = next((reason for reason, holds in FAULTS.items() if holds(config)), None)
    if wrong is not None and not is_ours(config):
        raise UserError(f"{import_path(config)} is no method yet: {wrong}.")
    return config  # type: ignore[no-any-return]


def told(value: Any) -> str:
    """What was given instead of a configuration."""
    return import_path(value) if isinstance(value, type) else f"{value!r}, a {type(value).__name__},"


def hint_for(value: Any) -> str:
    """What is wanted instead."""
    if isinstance(value, type) and issubclass(value, Method):
        return f"it is the module; name its configuration, {WANTED}, whose build(shape) makes it."
    return f"a method is {WANTED}."


def unversioned(config: type[MethodConfig]) -> bool:
    version = vars(config).get("version")
    return not isinstance(version, int) or isinstance(version, bool)


def fields_of(config: type[MethodConfig]) -> dict[str, dataclasses.Field[Any]]:
    return {field.name: field for field in dataclasses.fields(config)}


def without_default(config: type[MethodConfig]) -> bool:
    """Whether `made` as MethodConfig has it could not make one."""
    own = config.made.__func__ is not MethodConfig.made.__func__  # type: ignore[attr-defined]
    missing = dataclasses.MISSING
    return not own and any(f.default is missing and f.default_factory is missing for f in fields_of(config).values())


def hidden(config: type[MethodConfig]) -> bool:
    """Whether another process could not find it under its import path."""
    return config.__module__ == "__main__" or "<locals>" in config.__qualname__


FAULTS: dict[str, Callable[[type[MethodConfig]], bool]] = {
    "@dataclass(frozen=True) is missing above the class": lambda config: "__dataclass_params__" not in vars(config),
    f"a field is called {' or '.join(RESERVED)}, which a run's name says of every method; the version is a class "
    "variable, `version: ClassVar[int] = 1`": lambda config: not fields_of(config).keys().isdisjoint(RESERVED),
    "it says no version of its own; write `version: ClassVar[int] = 1`, and raise it whenever the same fields come to "
    "other numbers": unversioned,
    "every field needs a default, so that --method can make it": without_default,
    "it has no build(shape)": inspect.isabstract,
    "it is defined in a script, a notebook or a function, where no other process finds it; put it into a module of its "
    "own": hidden,
}
