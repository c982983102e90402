"""Writes docs/api.md from the public names' signatures and docstrings: python docs/make_api.py."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pgm

PAGE = Path(__file__).with_name("api.md")
HEAD = """# Python API

Every public name of `import pgm`, from its docstring; written by `python docs/make_api.py`, and a test keeps it so.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(entry(name, getattr(pgm, name)) for name in sorted(pgm.__all__, key=str.lower))])


def entry(name: str, of: Any) -> str:
    """One name: signature, docstring, and what of a class is public."""
    kind = "class " if inspect.isclass(of) else ""
    parts = [f"## {name}\n\n```python\n{kind}pgm.{name}{signature(of)}\n```\n\n{text(of)}\n"]
    if inspect.isclass(of):
        parts += [member(key, value) for key, value in vars(of).items() if told(key, value)]
    return "\n".join(parts)


def told(key: str, value: Any) -> bool:
    """Whether a member is for users: public, and said to be something."""
    return (
        not key.startswith("_")
        and isinstance(value, property | staticmethod | classmethod | type(told))
        and bool(inspect.getdoc(value))
    )


def member(key: str, value: Any) -> str:
    """A method or property of a class."""
    inner = getattr(value, "__func__", value)
    shown = "" if isinstance(value, property) else signature(inner)
    return f"- `.{key}{shown}`: {' '.join(text(value).split())}\n"


def signature(of: Any) -> str:
    """As Python prints it, without addresses and the package's inner paths."""
    try:
        shown = str(inspect.signature(of))
    except (TypeError, ValueError):
        return ""
    return re.sub(r"<function (\w+) at 0x[0-9a-f]+>", r"\1", shown).replace("'", "")


def text(of: Any) -> str:
    """The docstring."""
    return inspect.getdoc(of) or ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
