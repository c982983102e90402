"""HDF5 on disk: one part file a shard, each with a contiguous dataset, and features.h5 that shows them as one.

A part is written whole and renamed, so no process ever shares an open HDF5 file with a writer, and a kill can only cost
the part being written. features.h5 holds the offsets and virtual datasets over the parts, named by relative paths, so
that the folder can move. Readers here map the parts at the offset HDF5 reports.
"""

import os
import re
import threading
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .encoding import Array, Encoded
from .errors import CorruptStore
from .layout import Layout
from .mapping import MISSING, map_file, require_files
from .zarr_format import as_bytes

MAIN = "features.h5"
PARTS = "features.parts"
ALIGNED = 4096  # rows begin on a page, as they do in a Zarr shard


class Hdf5Format:
    """Names, writes and maps the files of one HDF5 store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def create(self, layout: Layout) -> None:
        """Write offsets and the virtual datasets; no part."""
        (self.folder / PARTS).mkdir(exist_ok=True)
        temporary = self.folder / f".{MAIN}.tmp"
        with h5py.File(temporary, "w", libver="v110") as file:
            file.create_dataset("offsets", data=layout.offsets, track_times=False)
            fill = 0 if layout.stored == "int8" else np.nan
            add_virtual(file, "tokens", layout, layout.dim, layout.dtype, fill)
            if layout.stored == "int8":
                add_virtual(file, "scales", layout, 1, np.dtype(np.float32), np.nan)
        temporary.replace(self.folder / MAIN)

    def index_files(self, layout: Layout) -> list[str]:
        """Files besides the shards that a reader depends on."""
        return [MAIN]

    offsets_file = MAIN

    def shard_files(self, layout: Layout, shard: int) -> list[str]:
        """The shard's part file."""
        return [part_name(shard)]

    def shard_parts(self, layout: Layout, encoded: Encoded, scratch: Path) -> list[list[bytes | memoryview]]:
        """The bytes of the part file."""
        shapes = {"tokens": encoded.tokens}
        if encoded.scales is not None:
            shapes["scales"] = encoded.scales
        return [part_parts(shapes, scratch)]

    def read_offsets(self) -> Array:
        """(N+1,) int64."""
        try:
            with open_h5(self.folder / MAIN) as file:
                return np.asarray(file["offsets"][:], np.int64)
        except (KeyError, RuntimeError, OSError) as error:
            raise CorruptStore(f"{self.folder / MAIN} holds no readable offsets ({error})") from error

    def map_shard(self, layout: Layout, shard: int, array: str) -> Array | None:
        """The shard's rows of `tokens` or `scales` as a read-only view of its part; None when they are not one run."""
        start, stop = layout.bounds(shard)
        path = self.folder / part_name(shard)
        mapped = map_file(path)
        with open_h5(path) as file:
            dataset = file[array]
            offset, dtype, shape = dataset.id.get_offset(), dataset.dtype, dataset.shape
        width = 1 if array == "scales" else layout.dim
        if offset is None or shape != (stop - start, width) or not dtype.isnative:
            return None
        if len(mapped) < offset + shape[0] * shape[1] * dtype.itemsize:
            raise CorruptStore(f"shard {shard} ({path}) is cut short: {len(mapped)} bytes; see `pgm cache verify`")
        return np.frombuffer(mapped, dtype, count=shape[0] * shape[1], offset=offset).reshape(shape)

    def require_shard(self, layout: Layout, shard: int) -> None:
        """CorruptStore when a file of the shard is missing."""
        require_files(self.folder, self.shard_files(layout, shard))

    def open_array(self, array: str) -> Any:
        """The virtual dataset through h5py."""
        return open_h5(self.folder / MAIN)[array]


def part_name(shard: int) -> str:
    """The part file of a shard, relative to the store."""
    return f"{PARTS}/{shard:05d}.h5"


def open_h5(path: Path) -> h5py.File:
    """An HDF5 file for reading, without HDF5's lock file calls (a finished store never changes)."""
    try:
        return h5py.File(path, "r", locking=False)
    except FileNotFoundError as error:
        raise CorruptStore(MISSING.format(path)) from error
    except OSError as error:
        raise CorruptStore(f"{path} is not readable HDF5 ({error}); see `pgm cache verify`") from error


def add_virtual(file: h5py.File, name: str, layout: Layout, width: int, dtype: np.dtype[Any], fill: float) -> None:
    """One logical (T, width) dataset over the parts; rows of a missing part read as `fill`."""
    if not layout.shards:
        file.create_dataset(name, shape=(0, width), dtype=dtype, track_times=False)
        return
    plan = untimed_plan()
    plan.set_fill_value(np.array(fill, dtype))
    whole = h5py.h5s.create_simple((layout.total, width))
    for shard in range(layout.shards):
        start, stop = layout.bounds(shard)
        whole.select_hyperslab((start, 0), (stop - start, width))
        part = h5py.h5s.create_simple((stop - start, width))
        plan.set_virtual(whole, part_name(shard).encode(), name.encode(), part)
    whole.select_all()
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(dtype), whole, plan)


def untimed_plan() -> Any:
    """Creation properties without timestamps: the same features are the same bytes."""
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_obj_track_times(False)
    return plan


def part_parts(arrays: dict[str, Array], scratch: Path) -> list[bytes | memoryview]:
    """An HDF5 file in pieces: the bytes h5py would write around the rows, and the rows where it would put them."""
    template, places = part_template(tuple((name, a.shape, a.dtype.str) for name, a in arrays.items()), scratch)
    parts: list[bytes | memoryview] = []
    position = 0
    for (offset, size), name in sorted(zip(places, arrays, strict=True)):
        parts += [template[: offset - position], as_bytes(arrays[name])]
        template, position = template[offset - position :], offset + size
    return [*parts, template]


def part_template(
    datasets: tuple[tuple[str, tuple[int, ...], str], ...], scratch: Path
) -> tuple[bytes, list[tuple[int, int]]]:
    """HDF5's bytes without the rows, and each dataset's (offset, bytes); the scratch file is sparse."""
    path = scratch / f"template-{os.getpid()}-{threading.get_ident()}.h5"
    places = []
    try:
        with h5py.File(path, "w", alignment_threshold=ALIGNED, alignment_interval=ALIGNED) as file:
            for name, shape, dtype in datasets:
                plan = untimed_plan()
                plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
                plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
                space = h5py.h5s.create_simple(shape)
                dataset = h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(np.dtype(dtype)), space, plan)
                places.append((dataset.get_offset(), int(np.prod(shape)) * np.dtype(dtype).itemsize))
        with path.open("rb") as image:
            pieces, position = [], 0
            for offset, size in sorted(places):
                pieces.append(image.read(offset - position))
                position = image.seek(offset + size)
            return b"".join([*pieces, image.read()]), places
    except RuntimeError as error:
        # HDF5 reports what it meets while closing a file as a RuntimeError, with the system's number in the text.
        if number := re.search(r"errno = (\d+)", str(error)):
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
        raise
    finally:
        path.unlink(missing_ok=True)
