"""What other packages bring, in the one place where entry points are read.

Classes (methods, tasks, metrics, callbacks: `Plugins`) are named package.module:Class, or by an entry point of a group
such as `pgm.methods`. Either is the same class, called by its import path in the names of runs, so that a run is found
and restored whichever way it was asked for. A module that lies in the working folder is found as `python -m` would find
it. Objects (datasets, encoders, studies: `installed_objects`) come by entry point alone.
"""

from __future__ import annotations

import pkgutil
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from .cache.errors import UserError
from .cache.nearest import did_you_mean

Base = TypeVar("Base")
Object = TypeVar("Object")
Check = Callable[[type[Any]], str]  # what is wrong with a class, or nothing


def installed(group: str) -> dict[str, EntryPoint]:
    """What installed packages have in a group, by name; nothing is imported."""
    return {point.name: point for point in entry_points(group=group)}


def installed_objects(group: str, kind: type[Object]) -> list[Object]:
    """Every `kind` that an entry point of `group` names, itself or as a class without arguments.

    Raises UserError for an entry point that cannot be loaded, or is something else.
    """
    found = []
    for point in installed(group).values():
        where = f"The entry point {point.name!r} of {group} ({point.value})"
        try:
            named = point.load()
            made = named() if isinstance(named, type) else named
        except (ImportError, AttributeError, TypeError) as error:
            raise UserError(f"{where} cannot be loaded: {error}. Mend its package, or uninstall it.") from error
        if not isinstance(made, kind):
            article = "an" if kind.__name__[0] in "AEIOU" else "a"
            raise UserError(f"{where} is a {type(made).__name__}, and not {article} {kind.__name__}.")
        found.append(made)
    return found


def is_ours(kind: type[Any]) -> bool:
    """Whether a class is one of PgM's own."""
    return kind.__module__.startswith(__name__.removesuffix("plugins"))


def import_path(kind: type[Any]) -> str:
    """package.module:Class."""
    return f"{kind.__module__}:{kind.__qualname__}"


def classes_in(package: str, base: type[Base]) -> tuple[type[Base], ...]:
    """The classes of a kind that the modules of a package define, in the order of the files."""
    modules = [import_module(one.name) for one in pkgutil.walk_packages(import_module(package).__path__, f"{package}.")]
    return tuple(
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module.__name__ and issubclass(value, base)
    )


def versions(kind: type[Any]) -> dict[str, int]:
    """The versions of the code that a class runs: its own, and those of what it extends."""
    return {base.__name__: vars(base)["version"] for base in kind.__mro__ if "version" in vars(base)}


def unversioned(kind: type[Any]) -> str:
    version = vars(kind).get("version")
    if isinstance(version, int) and not isinstance(version, bool):
        return ""
    return (
        "it says no version of its own; write `version: ClassVar[int] = 1`, and raise it whenever it comes to other "
        "numbers"
    )


def incomplete(kind: type[Any]) -> str:
    missing = sorted(getattr(kind, "__abstractmethods__", ()))
    return f"it has no {' and no '.join(missing)}" if missing else ""


def hidden(kind: type[Any]) -> str:
    """Whether another process could not find it under its import path."""
    if kind.__module__ != "__main__" and "<locals>" not in kind.__qualname__:
        return ""
    return (
        "it is defined in a script, a notebook or a function, where no other process finds it; put it into a module of "
        "its own"
    )


def undecorated(kind: type[Any]) -> str:
    return "" if "__dataclass_params__" in vars(kind) else "@dataclass(frozen=True) is missing above the class"


def without_default(kind: type[Any]) -> str:
    bare = [one.name for one in fields(kind) if one.default is MISSING and one.default_factory is MISSING]
    return f"every field needs a default, so that a name alone can make it; {bare[0]} has none" if bare else ""


def described(one: Any, name: str) -> dict[str, Any]:
    """JSON-able: a configuration's name, the versions of its code, with those of what another's extends, and fields."""
    bases = [] if is_ours(type(one)) else [base for base in type(one).__mro__[1:] if "version" in vars(base)]
    extends = {"extends": {base.__name__: vars(base)["version"] for base in bases}} if bases else {}
    return {"name": name, "version": one.version, **extends, **asdict(one)}


@dataclass(frozen=True)
class Plugins(Generic[Base]):
    """What other packages may bring of one kind.

    kind: the word for one, as messages have it. wanted: what it is. group: of entry points. base: what each extends.
    checks: what makes one unfit. instead: what to name in place of a class that is taken for one.
    """

    kind: str
    wanted: str
    group: str
    base: type[Base]
    checks: tuple[Check, ...] = (unversioned, incomplete, hidden)
    instead: Mapping[type[Any], str] = field(default_factory=dict)

    def installed(self) -> dict[str, EntryPoint]:
        """Those of installed packages, by name; none is imported."""
        return installed(self.group)

    def named(self, name: str, ours: Mapping[str, type[Base]], asked: str) -> type[Base]:
        """One of ours by name, or another's as `find` finds it.

        Raises UserError, beginning with `asked` and naming what there is and the nearest, for a name that is neither.
        """
        # `single:NAME` is ours, whatever stands for NAME; anything else with a colon is a class somewhere.
        prefixes = {own.partition(":")[0] for own in ours if ":" in own}
        found = ours.get(name) or (None if name.partition(":")[0] in prefixes else self.find(name))
        if found is None:
            every = [*ours, *self.installed()]
            there = f"There are: {', '.join(every)}; or" if every else "None is installed; use"
            raise UserError(f"{asked}. {there} package.module:Class.{did_you_mean(name, every)}")
        return found

    def find(self, name: str) -> type[Base] | None:
        """One by an installed name or by its import path; None for a name that is neither.

        Raises UserError for what cannot be imported, and for what is something else.
        """
        point = self.installed().get(name)
        path = name if point is None else point.value
        module, separator, qualname = path.partition(":")
        if not separator or not all(part.isidentifier() for part in f"{module}.{qualname}".split(".")):
            return None
        return self.admitted(self.class_in(imported(module, f"{self.kind.capitalize()} {path!r}"), qualname, path))

    def class_in(self, module: ModuleType, qualname: str, path: str) -> Any:
        """What the module calls so. Raises UserError, naming those it has, where it has no such thing."""
        found: Any = module
        for part in qualname.split("."):
            found = getattr(found, part, None)
        if found is None:
            there = [name for name, value in vars(module).items() if self.is_one(value) and not is_ours(value)]
            having = f"It has {', '.join(there)}." if there else f"It has none that is {self.wanted}."
            raise UserError(
                f"{self.kind.capitalize()} {path!r}: {module.__name__} has no {qualname!r}. {having}"
                f"{did_you_mean(qualname, there)}"
            )
        return found

    def is_one(self, value: Any) -> bool:
        """Whether it is a class of this kind."""
        return isinstance(value, type) and issubclass(value, self.base) and value is not self.base

    def admitted(self, kind: Any) -> type[Base]:
        """A class of this kind. Raises UserError for anything else, saying what is wrong with it."""
        if not self.is_one(kind):
            given = import_path(kind) if isinstance(kind, type) else f"{kind!r}, a {type(kind).__name__},"
            others = (say for base, say in self.instead.items() if isinstance(kind, type) and issubclass(kind, base))
            raise UserError(f"{given} is no {self.kind}: {next(others, f'a {self.kind} is {self.wanted}')}.")
        wrong = next(filter(None, (check(kind) for check in self.checks)), "")
        if wrong and not is_ours(kind):
            raise UserError(f"{import_path(kind)} is no {self.kind} yet: {wrong}.")
        return kind  # type: ignore[no-any-return]


def imported(module: str, asked: str) -> ModuleType:
    """The module. Raises UserError where there is none, or importing it fails; asked: for what, as the message says."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise UserError(f"{asked}: importing {module} failed: {error} {place_of(error)}") from error
        if add_working_folder(module):
            return imported(module, asked)
        raise UserError(
            f"{asked}: there is no module {error.name!r} in this Python ({sys.executable}) or in {Path.cwd()}. "
            "Install its package there; the workers of another machine need it too."
        ) from None
    except Exception as error:
        what = f"{type(error).__name__}: {error} {place_of(error)}"
        raise UserError(f"{asked}: importing {module} failed: {what}") from error


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
