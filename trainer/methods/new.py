"""A package with one method, from the files in template/: what `pgm new method NAME` writes."""

from __future__ import annotations

import keyword
import re
from importlib.resources import files
from pathlib import Path
from string import Template

from ...cache.errors import UserError
from .registry import METHODS, known_methods

# In the package -> in template/.
FILES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "pgm_{name}.py": "method.py",
    "test_{name}.py": "test_method.py",
}


def write_method(name: str, folder: Path) -> list[Path]:
    """Write the folder `name` into `folder`; the files that were written.

    Raises UserError for a name that is no word or is taken, and for a folder that is there.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise UserError(f"{name!r} cannot be a method's name: use a word of small letters, digits and _, like gated.")
    if name in known_methods(()) or name in METHODS.installed():
        raise UserError(f"There is a method {name!r} already (pgm methods lists them). Choose another name.")
    home = folder / name
    if home.exists():
        raise UserError(f"{home} is there already, and nothing in it was changed. Choose another name, or --in FOLDER.")
    home.mkdir(parents=True)
    words = {"name": name, "kind": "".join(part.capitalize() for part in name.split("_"))}
    written = {home / file.format(name=name): source for file, source in FILES.items()}
    for path, source in written.items():
        text = (files(__package__) / "template" / f"{source}.template").read_text(encoding="utf-8")
        path.write_text(Template(text).substitute(words), encoding="utf-8")
    return list(written)
