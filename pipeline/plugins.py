"""What other packages add by entry point: datasets and encoders."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TypeVar

from ..cache.errors import UserError

Kind = TypeVar("Kind")


def installed(group: str, kind: type[Kind]) -> list[Kind]:
    """Every `kind` that an entry point of `group` names, itself or as a class without arguments.

    Raises UserError for an entry point that cannot be imported, or is something else.
    """
    found = []
    for point in entry_points(group=group):
        told = f"The entry point {point.name!r} of {group} ({point.value})"
        try:
            named = point.load()
            made = named() if isinstance(named, type) and issubclass(named, kind) else named
        except (ImportError, AttributeError, TypeError) as error:
            raise UserError(f"{told} cannot be imported: {error}. Mend its package, or uninstall it.") from error
        if not isinstance(made, kind):
            article = "an" if kind.__name__[0] in "AEIOU" else "a"
            raise UserError(f"{told} is a {type(made).__name__}, and not {article} {kind.__name__}.")
        found.append(made)
    return found
