"""Where raw data lie when no `--root` is given: `PGM_DATA` (default `data/`), each dataset in a folder of its name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ...cache.errors import NotFound

if TYPE_CHECKING:
    from . import Adapter

VARIABLE = "PGM_DATA"


def data_home() -> Path:
    """The folder that holds datasets, absolute: workers of a scheduler elsewhere have another working directory."""
    return Path(os.environ.get(VARIABLE) or "data").expanduser().absolute()


def candidates(adapter: Adapter) -> list[Path]:
    """Where a dataset may lie: its own folder, or the home itself where several datasets share what it holds."""
    return [data_home() / (adapter.folder or adapter.name), data_home()]


def find_root(adapter: Adapter, root: Path | None) -> Path:
    """The folder a dataset is read from: the one given, else the first that holds what it needs.

    Raises NotFound, saying where it looked and how to name another place, where none does.
    """
    if root is not None:
        return root.expanduser().absolute()
    looked = candidates(adapter)
    if adapter.made_here:
        return looked[0]
    for folder in looked:
        if folder.is_dir() and all(finding.count for finding in adapter.look(folder) if finding.needed):
            return folder
    name, place = adapter.name, looked[0]
    begun = "\n".join(map(str, adapter.look(place))) if place.is_dir() else "  there is no such folder"
    raise NotFound(
        f"The raw data of {name!r} were looked for in {place} (and beside it, in {looked[1]}):\n{begun}\n"
        f"Put them there, or name another place: pgm extract {name} --root DIR, make extract DATASET={name} ROOT=DIR, "
        f"or set {VARIABLE} to the folder that holds {place.name}/.\n"
        f"What it must hold: pgm datasets show {name}. Get it: {adapter.page.source}"
    )
