"""Arrays in files, by name. Nothing pickled is loaded, except by the restricted reader in pickles.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...cache.errors import NotFound, UserError
from ...cache.nearest import did_you_mean
from ..media import FileMedia
from .containers import DAMAGED, array_of, described, opened


@contextmanager
def read_arrays(path: Path) -> Iterator[Mapping[str, Any]]:
    """The arrays of a file by name. Raises NotFound, or UserError for a kind of file that is not read."""
    with opened(path) as file:
        yield file.names


def value_of(arrays: Mapping[str, Any], key: str, path: Path) -> Any:
    """What a file calls `key`, as the file has it. Raises NotFound with the nearest name and all others."""
    if key not in arrays:
        raise NotFound(f"{path.name} has no array {key!r}; it has {described(arrays)}.{did_you_mean(key, arrays)}")
    try:
        return arrays[key]
    except DAMAGED as error:
        if "Object arrays" in str(error):
            raise UserError(f"Array {key!r} of {path.name} holds pickled objects, which are never loaded.") from error
        raise UserError(f"Array {key!r} of {path.name} is not readable: {error}.") from error


def column(arrays: Mapping[str, Any], keys: str, path: Path) -> NDArray[Any]:
    """The array named `keys`; names separated by commas are put one below the other (train, then test)."""
    parts = [array_of(value_of(arrays, key, path), key, path) for key in keys.split(",")]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def source_of(path: Path, keys: str) -> dict[str, Any]:
    """Where an array came from, by content."""
    return {"file": path.name, "digest": FileMedia(str(path)).digest(), "key": keys}
