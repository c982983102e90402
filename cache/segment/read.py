"""Token rows out of segments: views and copies of mapped ones, decoded runs of compressed ones.

A segment is mapped when first touched; the least recently used mappings beyond MAPPED are let go, because the kernel
allows a process some 65,000. A mapping that is still viewed stays until its last view is gone.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CorruptStore
from ..storage import Storage
from ..storage.base import as_bytes, joined
from .contents import SEGMENTS, Int64s, Items, SegmentName
from .encoding import Array, Stored, decode, read_dtype
from .hdf5 import decode_hdf5, map_hdf5, read_hdf5
from .write import Segment
from .zarr import decode_zarr, map_zarr, read_zarr

MAPPED = 8192  # segments: two mappings each where there are scales, far from the kernel's 65,530
READ = {"zarr": read_zarr, "hdf5": read_hdf5}
MAP = {"zarr": map_zarr, "hdf5": map_hdf5}
DECODE = {"zarr": decode_zarr, "hdf5": decode_hdf5}


def segment_path(store: Storage, name: str) -> tuple[Path, SegmentName]:
    """Where a segment lies on this machine. Raises CorruptStore where it is missing or no segment's name."""
    parsed = SegmentName.parse(name)
    if parsed is None:
        raise CorruptStore(f"{store.url} lists a segment {name!r}, which is no segment's name")
    try:
        return store.local(joined(SEGMENTS, name), parsed.content), parsed
    except FileNotFoundError as error:
        raise CorruptStore(
            f"{store.url}/{SEGMENTS}/{name} is missing; `pgm cache verify` lists the samples it held"
        ) from error


def read_segment(store: Storage, name: str) -> Segment:
    """What a segment says of its samples. Raises CorruptStore."""
    path, parsed = segment_path(store, name)
    arrays = READ[parsed.format](path)
    items = Items.from_bytes(arrays["items"].tobytes())
    size = sum(entry.bytes for entry in store.entries(joined(SEGMENTS, name)))
    return Segment(name, items, arrays["lengths"].astype(np.int64), arrays["checksums"].astype(np.uint64), size, False)


@dataclass(frozen=True, eq=False)
class Opened:
    """A segment's tokens (T, D) and, for int8, scales (T, 1): mapped, or arrays that decode what is sliced of them."""

    tokens: Any
    scales: Array | None
    bytes: memoryview | None  # of the tokens, where they are mapped and stored as they are read


def open_segment(store: Storage, name: str, stored: Stored, dim: int) -> Opened:
    """Map a segment, or open it for decoding. Raises CorruptStore."""
    path, parsed = segment_path(store, name)
    try:
        tokens = MAP[parsed.format](path, "tokens", np.dtype(stored), dim)
        scales = MAP[parsed.format](path, "scales", np.dtype(np.float32), 1) if stored == "int8" else None
    except FileNotFoundError as error:
        raise CorruptStore(f"{error.filename} is missing; `pgm cache verify` lists the samples it held") from error
    if tokens is None:
        return Opened(DECODE[parsed.format](path), scales, None)
    return Opened(tokens, scales, None if stored == "int8" else as_bytes(tokens))


class SegmentReader:
    """Rows of the segments of one store, as its reader sees them (int8 comes back as float16). Safe between threads."""

    def __init__(self, store: Storage, names: Sequence[str], stored: Stored, dim: int) -> None:
        self.store, self.names, self.stored, self.dim = store, names, stored, dim
        self.dtype = read_dtype(stored)
        self._row_bytes = dim * self.dtype.itemsize
        self._opened: OrderedDict[int, Opened] = OrderedDict()

    def rows(self, segment: int, start: int, stop: int) -> Array:
        """Rows start:stop of a segment as (stop - start, D); a view where they are mapped as they are read."""
        if stop == start:
            return np.empty((0, self.dim), self.dtype)
        opened = self._open(segment)
        if stop > opened.tokens.shape[0]:
            raise self._short(segment, stop, opened.tokens.shape[0])
        try:
            tokens = np.asarray(opened.tokens[start:stop])
        except (OSError, RuntimeError, ValueError) as error:
            raise CorruptStore(
                f"{self.store.url}/{SEGMENTS}/{self.names[segment]} cannot be decoded ({error}); see `pgm cache verify`"
            ) from error
        return tokens if opened.scales is None else decode(tokens, opened.scales[start:stop])

    def copy(self, segments: Int64s, starts: Int64s, lengths: Int64s, positions: Int64s, out: Array) -> None:
        """Copy rows starts[j] : starts[j] + lengths[j] of segments[j] to out[positions[j]:], for every j."""
        size, target = self._row_bytes, as_bytes(out)
        stops, begins = starts + lengths, positions * size
        where = (segments, starts, stops, starts * size, stops * size, begins, begins + lengths * size)
        for segment, start, stop, first, last, begin, end in zip(*(values.tolist() for values in where), strict=True):
            if begin == end:
                continue
            opened = self._opened.get(segment) or self._open(segment)
            view = opened.bytes
            if view is not None and last <= len(view):
                target[begin:end] = view[first:last]
            else:
                target[begin:end] = as_bytes(self.rows(segment, start, stop))

    def _open(self, segment: int) -> Opened:
        found = self._opened.get(segment)
        if found is None:
            found = open_segment(self.store, self.names[segment], self.stored, self.dim)
            self._opened[segment] = found
            while len(self._opened) > MAPPED:
                self._opened.popitem(last=False)
        return found

    def _short(self, segment: int, asked: int, there: int) -> CorruptStore:
        return CorruptStore(
            f"{self.store.url}/{SEGMENTS}/{self.names[segment]} has {there} token rows where the version lists "
            f"{asked}; see `pgm cache verify`"
        )
