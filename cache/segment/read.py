"""Token rows out of segments: views and copies of mapped ones, decoded chunks of compressed ones.

The mapped segments of a store lie in one range of addresses, so that a batch is one `np.take` wherever its samples lie.
A segment is mapped when first touched; before there are more than MAPPED the least recently used are let go, because
the kernel allows a process some 65,000 mappings. A mapping that is still viewed stays until its last view is gone.
"""

import os
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
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

MAPPED = 4096  # segments of a reader: two mappings each where there are scales, and as many gaps between them
FETCHED_AHEAD = 6  # remote segments on their way at a time
READ = {"zarr": read_zarr, "hdf5": read_hdf5}
ROWS = {"zarr": zarr_rows, "hdf5": hdf5_rows}
SCALE = np.dtype(np.float32)
CLOSED, ELSEWHERE = -1, -2
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
    if not len(items) == len(arrays["lengths"]) == len(arrays["checksums"]):
        raise CorruptStore(f"{path} does not say the same of all its samples; see `pgm cache verify`")
    size = sum(entry.bytes for entry in store.entries(joined(SEGMENTS, name)))
    return Segment(name, items, arrays["lengths"].astype(np.int64), arrays["checksums"].astype(np.uint64), size, False)


@dataclass(frozen=True, eq=False)
class Opened:
    """A segment's tokens (T, D) and, for int8, scales (T, 1): arrays, or what decodes the slices asked of it."""

    tokens: Any
    scales: Array | None = None

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
    return opened_alone(*segment_rows(store, name, stored, dim), np.dtype(stored), dim)


def opened_alone(tokens: Span | PackedRows, scales: Span | None, dtype: np.dtype[Any], dim: int) -> Opened:
    """A segment's rows, mapped by themselves."""
    return Opened(
        tokens.map(dtype, dim) if isinstance(tokens, Span) else tokens, scales.map(SCALE, 1) if scales else None
    )


@dataclass(eq=False)
class Mapped:
    """The segments a reader has open. It only grows: who holds it may read what it says is there.

    first, first_scale: (segments,) the number of a segment's first row in the spaces; ELSEWHERE where it has none
    there, CLOSED where it is not open. count: (segments,) rows of each.
    """

    tokens: RowSpace
    scales: RowSpace | None
    first: Int64s
    first_scale: Int64s
    count: Int64s
    opened: dict[int, Opened]

    @staticmethod
    def nothing(segments: int, rows: int, stored: Stored, dim: int) -> "Mapped":
        """Room for `rows` rows in so many segments."""
        count, dtype = min(segments, MAPPED), np.dtype(stored)
        tokens = RowSpace(address_space(rows, count, dtype.itemsize * dim), dtype, dim)
        scales = RowSpace(address_space(rows, count, SCALE.itemsize), SCALE, 1) if stored == "int8" else None
        first = np.full(segments, CLOSED)
        return Mapped(tokens, scales, first, first.copy(), np.zeros(segments, np.int64), {})

    def without(self, segments: Sequence[int]) -> "Mapped":
        """What is left when some are closed."""
        first = self.first.copy()
        first[segments] = CLOSED
        opened = {segment: opened for segment, opened in self.opened.items() if first[segment] != CLOSED}
        return replace(self, first=first, first_scale=self.first_scale.copy(), count=self.count.copy(), opened=opened)

    def add(self, segment: int, tokens: Span | PackedRows, scales: Span | None) -> bool:
        """Open a segment; False where no addresses are left."""
        space, first, first_scale = self.tokens, ELSEWHERE, ELSEWHERE
        if isinstance(tokens, Span) and tokens.count and self._numbers(tokens, scales):
            placed = space.map(tokens.path, tokens.offset, tokens.count)
            beside = self.scales.map(scales.path, scales.offset, scales.count) if self.scales and scales else None
            if placed is None or (scales and beside is None):
                return False
            rows, first = placed
            scale_rows, first_scale = beside or (None, ELSEWHERE)
            opened = Opened(rows, scale_rows)
        else:
            opened = opened_alone(tokens, scales, space.rows.dtype, space.rows.shape[1])
        self.opened[segment] = opened
        self.count[segment] = opened.tokens.shape[0]
        self.first_scale[segment] = first_scale
        # Last: another thread takes it for open from here on.
        self.first[segment] = first
        return True

    def _numbers(self, tokens: Span, scales: Span | None) -> bool:
        """Whether the spaces can number these rows."""
        beside = scales is None or self.scales is None or self.scales.numbers(scales.offset)
        return beside and self.tokens.numbers(tokens.offset)

    def take(self, segments: Int64s, starts: Int64s, lengths: Int64s, positions: Int64s, out: Array) -> None:
        """Copy rows that have numbers; the rest of `out` becomes zeros."""
        numbers = row_numbers(self.first[segments] + starts, lengths, positions, len(out))
        if self.scales is None:
            take_rows(self.tokens.rows, numbers, out)
            return
        tokens, scales = self.tokens.rows, self.scales.rows
        scale_numbers = row_numbers(self.first_scale[segments] + starts, lengths, positions, len(out))

        def part(start: int, stop: int) -> None:
            for begin in range(start, stop, PIECE):
                rows = slice(begin, min(begin + PIECE, stop))
                quantised = np.take(tokens, numbers[rows], axis=0, mode="clip")
                decode(quantised, np.take(scales, scale_numbers[rows], axis=0, mode="clip"), out[rows])

        in_two(part, len(numbers), out.nbytes)


class SegmentReader:
    """Rows of the segments of one store, as its reader sees them (int8 comes back as float16). Safe between threads.

    tokens: how many rows they have together, as far as is known: what addresses are reserved for.
    """

    def __init__(self, store: Storage, names: Sequence[str], stored: Stored, dim: int, tokens: int = 0) -> None:
        self.store, self.names, self.stored, self.dim = store, names, stored, dim
        self.dtype = read_dtype(stored)
        self._expected = tokens
        self._used = np.zeros(len(names), np.int64)  # when, by a clock of calls
        self._clock = 0
        self._mapped: Mapped | None = None
        self._start()
        _readers.add(self)

    def _start(self) -> None:
        """A lock nobody holds and nothing on its way: in a forked process, whose parent's threads are not there."""
        self._lock = threading.Lock()
        self._fetching = Fetching(self.store, self.names)

    def rows(self, segment: int, start: int, stop: int) -> Array:
        """Rows start:stop of a segment as (stop - start, D); a view where they are mapped as they are read."""
        if stop == start:
            return np.empty((0, self.dim), self.dtype)
        mapped = self._mapped
        if mapped is None or segment not in mapped.opened:
            mapped = self._open(np.array([segment]))
        self._used[segment] = self._clock
        if stop > mapped.count[segment]:
            raise self._short(mapped, segment, stop)
        opened = mapped.opened[segment]
        tokens = np.asarray(opened.tokens[start:stop])
        return tokens if opened.scales is None else decode(tokens, opened.scales[start:stop])

    def lies(self, segment: int) -> bool:
        """Whether a segment's rows are read as they lie in its file, without decoding."""
        opened = self._open(np.array([segment])).opened[segment]
        return opened.scales is None and not isinstance(opened.tokens, PackedRows)

    def copy(self, segments: Int64s, starts: Int64s, lengths: Int64s, positions: Int64s, out: Array) -> None:
        """Copy rows starts[j] : starts[j] + lengths[j] of segments[j] to out[positions[j]:], for every j, in order.

        Rows of `out` to which nothing goes become zeros.
        """
        if not lengths.all():
            some = np.flatnonzero(lengths)
            segments, starts, lengths, positions = (each[some] for each in (segments, starts, lengths, positions))
        # So many at a time that their segments can be open together.
        step = MAPPED // 2
        cuts = [0, *positions[step::step].tolist(), len(out)]
        for at, (begin, end) in enumerate(pairwise(cuts)):
            part = slice(at * step, (at + 1) * step)
            self._copy(segments[part], starts[part], lengths[part], positions[part] - begin, out[begin:end])

    def _copy(self, segments: Int64s, starts: Int64s, lengths: Int64s, positions: Int64s, out: Array) -> None:
        mapped = self._open(segments)
        stops = starts + lengths
        if (short := stops > mapped.count[segments]).any():
            raise self._short(mapped, int(segments[short][0]), int(stops[short][0]))
        elsewhere = mapped.first[segments] == ELSEWHERE
        if not elsewhere.any():
            mapped.take(segments, starts, lengths, positions, out)
            return
        here = np.flatnonzero(~elsewhere)
        mapped.take(segments[here], starts[here], lengths[here], positions[here], out)
        for segment in np.unique(segments[elsewhere]).tolist():
            here = np.flatnonzero(segments == segment)
            mapped.opened[segment].copy(starts[here], lengths[here], positions[here], out)

    def expect(self, segments: Sequence[int]) -> None:
        """Segments that will be asked for soon, the next first: remote ones are fetched meanwhile, some at a time."""
        opened = self._mapped.opened if self._mapped else {}
        self._fetching.start([segment for segment in segments if segment not in opened])

    def ahead(self, segments: Int64s, starts: Int64s, lengths: Int64s) -> bool:
        """Have the disk read these runs, given in its order and soon asked for in another.

        False where some must be decoded: then nothing is asked of the disk.
        """
        mapped = self._open(segments)
        first = mapped.first[segments]
        if (first < 0).any():
            return False
        begins, ends = first + starts, first + starts + lengths
        cuts = np.flatnonzero(begins[1:] != ends[:-1]) + 1
        for begin, end in zip(begins[[0, *cuts]].tolist(), ends[[*(cuts - 1), -1]].tolist(), strict=True):
            mapped.tokens.ahead(begin, end)
        return True

    def _open(self, segments: Int64s) -> Mapped:
        """The state in which all of these are open; whoever holds it may read them."""
        self._clock += 1
        self._used[segments] = self._clock
        mapped = self._mapped
        if mapped is not None and not (mapped.first[segments] == CLOSED).any():
            return mapped
        wanted = np.unique(segments).tolist()
        self._fetching.finish([segment for segment in wanted if mapped is None or segment not in mapped.opened])
        with self._lock:
            mapped = self._mapped = self._with_room(self._mapped or self._reserve(), wanted)
            while missing := [segment for segment in wanted if segment not in mapped.opened]:
                for segment in missing:
                    found = segment_rows(self.store, self.names[segment], self.stored, self.dim)
                    if not mapped.add(segment, *found):
                        # No addresses are left: none is used twice. In a larger range all that is asked for is mapped.
                        mapped = self._reserve()
                        break
            self._mapped = mapped
            return mapped

    def _with_room(self, mapped: Mapped, wanted: Sequence[int]) -> Mapped:
        """The same without the least recently used, where with `wanted` it would be more than MAPPED."""
        missing = sum(segment not in mapped.opened for segment in wanted)
        excess = len(mapped.opened) + missing - MAPPED
        if excess <= 0:
            return mapped
        by_use = sorted(mapped.opened, key=self._used.__getitem__)
        return mapped.without(by_use[: excess + MAPPED // 8])

    def _reserve(self) -> Mapped:
        mapped = Mapped.nothing(len(self.names), self._expected, self.stored, self.dim)
        self._expected = max(2 * self._expected, 1 << 16)
        return mapped

    def _short(self, mapped: Mapped, segment: int, stop: int) -> CorruptStore:
        """A version lists rows that a segment does not have: between segments there is no memory to read."""
        return CorruptStore(
            f"{self.store.url}/{SEGMENTS}/{self.names[segment]} has {mapped.count[segment]} token rows where the "
            f"version lists {stop}; see `pgm cache verify`"
        )


_readers: "weakref.WeakSet[SegmentReader]" = weakref.WeakSet()


def _start_again() -> None:
    for reader in _readers:
        reader._start()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_again)


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
