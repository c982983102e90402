"""Arrays in files, by name: .npz and MATLAB .mat. Nothing pickled is ever loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...cache.durable import checksum
from ...cache.errors import NotFound, UserError


@contextmanager
def read_arrays(path: Path) -> Iterator[Mapping[str, Any]]:
    """The arrays of an .npz or a MATLAB .mat file by name. Raises NotFound, or UserError for another kind of file."""
    if not path.is_file():
        raise NotFound(f"No file {path} to import.")
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            yield arrays
    elif path.suffix == ".mat":
        from scipy.io import loadmat

        yield {key: value for key, value in loadmat(path).items() if not key.startswith("__")}
    else:
        raise UserError(f"{path.name}: only .npz and .mat files are read; load others in Python, call import_arrays.")


def column(arrays: Mapping[str, Any], keys: str, path: Path) -> NDArray[Any]:
    """The array named `keys`; names separated by commas are put one below the other (train, then test)."""
    parts = []
    for key in keys.split(","):
        if key not in arrays:
            raise NotFound(f"{path.name} has no array {key!r}; it has {', '.join(arrays)}.")
        try:
            part = np.asarray(arrays[key])
        except ValueError as error:
            raise UserError(f"Array {key!r} of {path.name} holds pickled objects, which are never loaded.") from error
        parts.append(part)
    return np.concatenate(parts)


def source_of(path: Path, keys: str) -> dict[str, Any]:
    """Where an array came from, by content."""
    return {"file": path.name, "digest": checksum(path), "key": keys}
