"""A segment as one HDF5 file: contiguous datasets `tokens`, `lengths`, `checksums`, `items` and, for int8, `scales`.

The file is put together from the bytes h5py would write around the rows and the rows themselves, so that no row is
copied and the same features are the same bytes. Readers here map the rows at the offset HDF5 reports.
"""

import os
import re
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..errors import CorruptStore
from ..storage.base import Parts, as_bytes
from .contents import Contents
from .encoding import Array
from .rows import Span
from .zarr import items_array

ALIGNED = 4096  # rows begin on a page, as they do in a Zarr segment
# In memory where it can be: a disk that is busy with the segment before holds up even an empty file.
SCRATCH = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def hdf5_objects(contents: Contents) -> dict[str, Parts]:
    """The file's bytes in pieces, under the empty key."""
    arrays = {
        "tokens": contents.tokens,
        "lengths": contents.lengths,
        "checksums": contents.checksums,
        "items": items_array(contents),
    }
    if contents.scales is not None:
        arrays["scales"] = contents.scales
    template, places = file_template({name: (array.shape, array.dtype) for name, array in arrays.items()})
    parts: list[bytes | memoryview] = []
    position = 0
    for (offset, size), name in sorted((places[name], name) for name in places):
        parts += [template[: offset - position], as_bytes(arrays[name])]
        template, position = template[offset - position :], offset + size
    return {"": [*parts, template]}


def read_hdf5(path: Path) -> dict[str, Array]:
    """The file's arrays but for the tokens. Raises CorruptStore."""
    try:
        with open_h5(path) as file:
            return {name: np.asarray(file[name][:]) for name in ("lengths", "checksums", "items")}
    except (KeyError, OSError, RuntimeError) as error:
        raise CorruptStore(f"{path} is not a readable segment ({error}); see `pgm cache verify`") from error


def hdf5_rows(path: Path, name: str, row_bytes: int) -> Span:
    """Where the rows of `tokens` or `scales` lie. Raises FileNotFoundError, CorruptStore."""
    try:
        with open_h5(path) as file:
            dataset = file[name]
            offset, rows = dataset.id.get_offset(), len(dataset)
            fits = dataset.nbytes == rows * row_bytes
    except (KeyError, RuntimeError) as error:
        raise CorruptStore(f"{path} is not a readable segment ({error}); see `pgm cache verify`") from error
    size = path.stat().st_size
    if rows and (offset is None or not fits or size < offset + rows * row_bytes):
        raise CorruptStore(f"{path} is cut short or not as it was written: {size} bytes; see `pgm cache verify`")
    return Span(path, offset or 0, rows)


def open_h5(path: Path) -> h5py.File:
    """An HDF5 file for reading, without HDF5's lock file calls (a segment never changes). Raises CorruptStore."""
    try:
        return h5py.File(path, "r", locking=False)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CorruptStore(f"{path} is not readable HDF5 ({error}); see `pgm cache verify`") from error


def file_template(
    datasets: dict[str, tuple[tuple[int, ...], np.dtype[Any]]],
) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """HDF5's bytes without the rows, and each dataset's (offset, bytes); the scratch file is sparse."""
    places = {}
    with tempfile.TemporaryDirectory(prefix="pgm-", dir=SCRATCH) as folder:
        path = Path(folder) / "template.h5"
        try:
            with h5py.File(path, "w", alignment_threshold=ALIGNED, alignment_interval=ALIGNED) as file:
                for name, (shape, dtype) in datasets.items():
                    plan = untimed_plan()
                    space = h5py.h5s.create_simple(shape)
                    dataset = h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(dtype), space, plan)
                    if np.prod(shape):
                        places[name] = (dataset.get_offset(), int(np.prod(shape)) * dtype.itemsize)
        except RuntimeError as error:
            # HDF5 reports what it meets while closing a file as a RuntimeError, with the system's number in the text.
            if number := re.search(r"errno = (\d+)", str(error)):
                raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
            raise
        with path.open("rb") as image:
            pieces, position = [], 0
            for offset, size in sorted(places.values()):
                pieces.append(image.read(offset - position))
                position = image.seek(offset + size)
            return b"".join([*pieces, image.read()]), places


def untimed_plan() -> Any:
    """Creation properties of a contiguous dataset without timestamps, whose rows are written later."""
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_obj_track_times(False)
    plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    return plan
