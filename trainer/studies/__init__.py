"""Tables and figures over runs: a study is one file here, or one entry point `pgm.studies` of another package.

A file's first line is what the help says of it.
"""

from __future__ import annotations

import ast
import pkgutil
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from ...cache.errors import UserError
from ...cache.nearest import did_you_mean
from ...plugins import installed, installed_objects

if TYPE_CHECKING:
    from .engine.study import Study

GROUP = "pgm.studies"
COMMANDS = "commands"


def files() -> list[str]:
    """The modules of this folder that hold a study."""
    return [found.name for found in pkgutil.iter_modules(__path__) if not found.ispkg and found.name != COMMANDS]


def described() -> str:
    """Every study with the first sentence of its file, without importing any: for `--help`."""
    lines = []
    for name in files():
        text = ast.get_docstring(ast.parse((Path(__file__).with_name(f"{name}.py")).read_text(encoding="utf-8"))) or ""
        lines.append(f"{name}: {text.splitlines()[0]}")
    return "\n\n".join([*lines, *(f"{point.name}: of {point.value}" for point in installed(GROUP).values())])


@cache
def studies() -> dict[str, Study]:
    """Every study by name, our own first. Raises UserError for an entry point that is none."""
    from .engine.study import Study

    ours = [import_module(f".{name}", __name__).STUDY for name in files()]
    return {study.name: study for study in [*ours, *installed_objects(GROUP, Study)]}  # type: ignore[type-abstract]


def study_named(name: str, what: str) -> Study:
    """The study called so, or by the paper's number. what: "table" or "figure". Raises UserError for another."""
    there = {study.name: study for study in studies().values() if getattr(study, f"has_{what}")}
    by_alias = {alias: study for study in there.values() for alias in study.aliases}
    if name in there or name in by_alias:
        return there.get(name) or by_alias[name]
    known = [study.name + (f" ({', '.join(study.aliases)})" if study.aliases else "") for study in there.values()]
    raise UserError(
        f"There is no {what} {name!r}. There are: {', '.join(known)}.{did_you_mean(name, [*there, *by_alias])}"
    )
