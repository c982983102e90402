"""Token rows out of segments: views and copies of mapped ones, decoded chunks of compressed ones.

The mapped segments of a store lie in one range of addresses, so that a batch is one `np.take` wherever its samples lie.
A segment is mapped when first touched; beyond MAPPED the least recently used are let go, because the kernel allows a
process some 65,000 mappings. A mapping that is still viewed stays until its last view is gone.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CorruptStore
from ..storage import LocalStorage, Storage
from ..storage.base import joined
from ..storage.mapping import RowSpace, address_space
from .contents import SEGMENTS, Int64s, Items, SegmentName
from .copying import in_two, row_numbers, take_rows
from .encoding import Array, Stored, decode, read_dtype
from .hdf5 import hdf5_rows, read_hdf5
from .packed import PackedRows
from .rows import Span
from .write import Segment
from .zarr import read_zarr, zarr_rows

MAPPED = 8192  # segments: two mappings each where there are scales, and as many gaps between them
FETCHED_AHEAD = 6  # remote segments on their way at a time
READ = {"zarr": read_zarr, "hdf5": read_hdf5}
ROWS = {"zarr": zarr_rows, "hdf5": hdf5_rows}
SCALE = np.dtype(np.float32)
PIECE = 512  # int8 rows gathered before they are decoded


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
    """A segment's tokens (T, D) and, for int8, scales (T, 1): arrays, or what decodes the slices asked of it.

    first, first_scale: the numbers of their first rows in the reader's spaces; -1 where they have none there.
    """

    tokens: Any
    scales: Array | None = None
    first: int = -1
    first_scale: int = -1

    def copy(self, starts: Int64s, lengths: Int64s, positions: Int64s, out: Array) -> None:
        """Copy runs of rows, each chunk decoded once."""
        tokens, begins = self.tokens, starts
        if isinstance(tokens, PackedRows):
            tokens, begins = tokens.runs(starts, lengths)
        each = zip(begins.tolist(), starts.tolist(), lengths.tolist(), positions.tolist(), strict=True)
        for begin, start, length, position in each:
            target = out[position : position + length]
            if self.scales is None:
                target[:] = tokens[begin : begin + length]
            else:
                decode(tokens[begin : begin + length], self.scales[start : start + length], target)


def segment_rows(store: Storage, name: str, stored: Stored, dim: int) -> tuple[Span | PackedRows, Span | None]:
    """Where a segment's tokens and scales lie. Raises CorruptStore."""
    # Once more where it went meanwhile: another process may have made room in the mirror of remote features.
    for _ in range(3):
        path, parsed = segment_path(store, name)
        find = ROWS[parsed.format]
        try:
            tokens = find(path, "tokens", np.dtype(stored).itemsize * dim)
            scales = find(path, "scales", SCALE.itemsize) if stored == "int8" else None
            return tokens, scales if isinstance(scales, Span) else None
        except FileNotFoundError as error:
            gone = error
    raise CorruptStore(f"{gone.filename} is missing; `pgm cache verify` lists the samples it held") from gone


def open_segment(store: Storage, name: str, stored: Stored, dim: int) -> Opened:
    """Map one segment, or open it for decoding. Raises CorruptStore."""
    tokens, scales = segment_rows(store, name, stored, dim)
    mapped = tokens.map(np.dtype(stored), dim) if isinstance(tokens, Span) else tokens
    return Opened(mapped, scales.map(SCALE, 1) if scales else None)


class SegmentReader:
    """Rows of the segments of one store, as its reader sees them (int8 comes back as float16). Safe between threads.

    tokens: how many rows they have together, as far as is known: what addresses are reserved for.
    """

    def __init__(self, store: Storage, names: Sequence[str], stored: Stored, dim: int, tokens: int = 0) -> None:
        self.store, self.names, self.stored, self.dim = store, names, stored, dim
        self.dtype = read_dtype(stored)
        self._expected = tokens
        self._spaces: tuple[RowSpace, RowSpace | None] | None = None
        self._opened: dict[int, Opened] = {}
        self._used = np.zeros(len(names), np.int64)  # when, by a clock of calls
        self._clock = 0
        self._lock = threading.Lock()
        self._fetching = Fetching(store, names)

    def rows(self, segment: int, start: int, stop: int) -> Array:
        """Rows start:stop of a segment as (stop - start, D); a view where they are mapped as they are read."""
        if stop == start:
            return np.empty((0, self.dim), self.dtype)
        [opened], _ = self._open([segment])
        self._check(segment, opened, stop)
        tokens = np.asarray(opened.tokens[start:stop])
        return tokens if opened.scales is None else decode(tokens, opened.scales[start:stop])

    def copy(self, segments: Int64s, starts: Int64s, lengths: Int64s, positions: Int64s, out: Array) -> None:
        """Copy rows starts[j] : starts[j] + lengths[j] of segments[j] to out[positions[j]:], for every j.

        Rows of `out` to which nothing goes become zeros.
        """
        if not (some := lengths > 0).all():
            segments, starts, lengths, positions = (each[some] for each in (segments, starts, lengths, positions))
        touched, which = np.unique(segments, return_inverse=True)
        # Held until the copy is done: another thread's batch may let go of a segment meanwhile.
        held, spaces = self._open(touched.tolist())
        stops = np.zeros(len(touched), np.int64)
        np.maximum.at(stops, which, starts + lengths)
        for segment, opened, stop in zip(touched.tolist(), held, stops.tolist(), strict=True):
            self._check(segment, opened, stop)
        first = np.array([opened.first for opened in held], np.int64)[which]
        there = first >= 0
        taken = slice(None) if there.all() else there
        if there.any():
            scale = np.array([opened.first_scale for opened in held], np.int64)[which]
            numbers = row_numbers((first + starts)[taken], lengths[taken], positions[taken], len(out))
            scale_numbers = numbers
            if spaces[1] is not None:
                scale_numbers = row_numbers((scale + starts)[taken], lengths[taken], positions[taken], len(out))
            take_decoded(spaces, numbers, scale_numbers, out)
        elif lengths.sum() < len(out):
            out[:] = 0
        if not there.all():
            for place, opened in enumerate(held):
                if opened.first < 0:
                    here = np.flatnonzero(which == place)
                    opened.copy(starts[here], lengths[here], positions[here], out)

    def expect(self, segments: Sequence[int]) -> None:
        """Segments that will be asked for soon, the next first: remote ones are fetched meanwhile, some at a time."""
        self._fetching.start([segment for segment in segments if segment not in self._opened])

    def _open(self, segments: list[int]) -> tuple[list[Opened], Any]:
        """The segments, and the spaces in which they have numbers."""
        self._fetching.finish([segment for segment in segments if segment not in self._opened])
        with self._lock:
            while missing := [segment for segment in segments if segment not in self._opened]:
                for segment in missing:
                    self._opened[segment] = self._map(segment)
            self._clock += 1
            self._used[segments] = self._clock
            held = [self._opened[segment] for segment in segments]
            if len(self._opened) > MAPPED:
                by_use = sorted(self._opened, key=self._used.__getitem__)
                for segment in by_use[: len(by_use) - MAPPED + MAPPED // 8]:
                    del self._opened[segment]
            return held, self._spaces

    def _map(self, segment: int) -> Opened:
        tokens, scales = segment_rows(self.store, self.names[segment], self.stored, self.dim)
        if isinstance(tokens, PackedRows):
            return Opened(tokens, scales.map(SCALE, 1) if scales else None)
        spaces = self._spaces or self._reserve()
        if not tokens.count or not all(
            space.numbers(span.offset) for space, span in zip(spaces, (tokens, scales), strict=True) if space and span
        ):
            return Opened(tokens.map(np.dtype(self.stored), self.dim), scales.map(SCALE, 1) if scales else None)
        placed = spaces[0].map(tokens.path, tokens.offset, tokens.count)
        placed_scales = spaces[1].map(scales.path, scales.offset, scales.count) if spaces[1] and scales else None
        if placed is None or (scales and placed_scales is None):
            # No addresses are left: they are not used twice. Begin a larger range, and map again what is asked for.
            self._opened.clear()
            self._reserve()
            return self._map(segment)
        rows, first = placed
        return Opened(rows, *((placed_scales[0], first, placed_scales[1]) if placed_scales else (None, first)))

    def _reserve(self) -> tuple[RowSpace, RowSpace | None]:
        count = min(len(self.names), MAPPED)
        dtype = np.dtype(self.stored)
        tokens = RowSpace(address_space(self._expected, count, dtype.itemsize * self.dim), dtype, self.dim)
        scales = RowSpace(address_space(self._expected, count, 4), SCALE, 1) if self.stored == "int8" else None
        self._expected = max(2 * self._expected, 1 << 16)
        self._spaces = tokens, scales
        return self._spaces

    def _check(self, segment: int, opened: Opened, stop: int) -> None:
        """Raises CorruptStore where a version lists rows that a segment does not have."""
        if stop > opened.tokens.shape[0]:
            raise CorruptStore(
                f"{self.store.url}/{SEGMENTS}/{self.names[segment]} has {opened.tokens.shape[0]} token rows where the "
                f"version lists {stop}; see `pgm cache verify`"
            )


def take_decoded(spaces: tuple[RowSpace, RowSpace | None], numbers: Int64s, scale_numbers: Int64s, out: Array) -> None:
    """Rows of the spaces by their numbers, int8 ones times their scales."""
    tokens, scales = spaces
    if scales is None:
        take_rows(tokens.rows, numbers, out)
        return

    def part(start: int, stop: int) -> None:
        for begin in range(start, stop, PIECE):
            rows = slice(begin, min(begin + PIECE, stop))
            quantised = np.take(tokens.rows, numbers[rows], axis=0, mode="clip")
            decode(quantised, np.take(scales.rows, scale_numbers[rows], axis=0, mode="clip"), out[rows])

    in_two(part, len(numbers), out.nbytes)


class Fetching:
    """Remote segments on their way to this machine, several at a time. Nothing to do for a folder."""

    def __init__(self, store: Storage, names: Sequence[str]) -> None:
        self._store, self._names = store, names
        self._local = isinstance(store, LocalStorage)
        self._coming: dict[int, Future[object]] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    def start(self, segments: Sequence[int], limit: int = FETCHED_AHEAD) -> list[Future[object]]:
        """Fetch the first of these, `limit` at a time in all; returns those of them that are on their way."""
        if self._local or not segments:
            return []
        with self._lock:
            self._pool = self._pool or ThreadPoolExecutor(FETCHED_AHEAD, "pgm-fetch")
            self._coming = {segment: future for segment, future in self._coming.items() if not future.done()}
            for segment in segments:
                if len(self._coming) < limit and segment not in self._coming:
                    self._coming[segment] = self._pool.submit(segment_path, self._store, self._names[segment])
            return [self._coming[segment] for segment in segments if segment in self._coming]

    def finish(self, segments: Sequence[int]) -> None:
        """Fetch all of these."""
        for future in self.start(segments, len(self._names)):
            future.result()
