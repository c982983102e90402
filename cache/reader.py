"""Token rows out of shards: views and copies of mapped shards, decoded runs of compressed ones.

Mapped: a shard is mapped and its index parsed when first touched; a batch is a loop of memoryview copies, one a sample.
A memoryview slice costs a third of a numpy one, so that one thread reaches what two threads of numpy copies did (0.85
of numpy's fancy indexing in RAM, against 0.74), and nothing has to survive a fork or share cores with a trainer.
Compressed, or laid out in a way not expected here: zarr or h5py decode whole chunks, so a batch is read in the order of
the disk, neighbours together.
"""

from typing import Any

import numpy as np

from .encoding import Array, decode
from .errors import CorruptStore
from .hdf5_format import Hdf5Format
from .layout import Int64s, Layout
from .zarr_format import ZarrFormat, as_bytes

# One decoded run of neighbouring samples: large enough to amortise zarr's cost a call, small beside a batch's memory.
RUN_BYTES = 16 << 20


class TokenReader:
    """Rows of the packed (T, D) token array of one store, as its reader sees them (int8 comes back as float16)."""

    def __init__(self, layout: Layout, files: ZarrFormat | Hdf5Format) -> None:
        self._layout = layout
        if layout.stored == "int8":
            self._tokens = ArrayReader(layout, files, "tokens", layout.dim, np.dtype(np.int8))
            self._scales = ArrayReader(layout, files, "scales", 1, np.dtype(np.float32))
        else:
            self._tokens = ArrayReader(layout, files, "tokens", layout.dim, layout.dtype)

    def rows(self, start: int, stop: int) -> Array:
        """Token rows start:stop as (stop - start, D); a view where one mapped shard holds them all."""
        tokens = self._tokens.rows(start, stop)
        return tokens if self._layout.stored != "int8" else decode(tokens, self._scales.rows(start, stop))

    def copy(self, starts: Int64s, lengths: Int64s, positions: Int64s, out: Array) -> None:
        """Copy rows starts[j] : starts[j] + lengths[j] to out[positions[j]:], for every j; `out` is contiguous."""
        if self._layout.stored != "int8":
            self._tokens.copy(starts, lengths, positions, out)
            return
        packed = np.cumsum(lengths) - lengths
        tokens = np.empty((int(lengths.sum()), self._layout.dim), np.int8)
        scales = np.empty((len(tokens), 1), np.float32)
        self._tokens.copy(starts, lengths, packed, tokens)
        self._scales.copy(starts, lengths, packed, scales)
        for start, size, position in zip(packed.tolist(), lengths.tolist(), positions.tolist(), strict=True):
            decode(tokens[start : start + size], scales[start : start + size], out[position : position + size])


class ArrayReader:
    """Rows of one array on disk, `tokens` or `scales`."""

    def __init__(
        self, layout: Layout, files: ZarrFormat | Hdf5Format, name: str, width: int, dtype: np.dtype[Any]
    ) -> None:
        self._layout, self._files, self._name = layout, files, name
        self._mappable = layout.codec == "none" or name == "scales"
        self._maps: list[Array | None] = [None] * layout.shards
        self._bytes: list[memoryview | None] = [None] * layout.shards
        self._seen = [False] * layout.shards
        self._empty = np.empty((0, width), dtype)
        self._row_bytes = width * dtype.itemsize
        self._array: Any = None

    def rows(self, start: int, stop: int) -> Array:
        """Rows start:stop, as a view when one mapped shard holds them all."""
        if stop == start:
            return self._empty
        size, pieces = self._layout.shard_tokens, []
        for shard in range(start // size, (stop - 1) // size + 1):
            piece = self._map(shard)
            if piece is None:
                return self._decoded(start, stop)
            pieces.append(piece[max(start - shard * size, 0) : stop - shard * size])
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def copy(self, starts: Int64s, lengths: Int64s, positions: Int64s, out: Array) -> None:
        """Copy rows starts[j] : starts[j] + lengths[j] to out[positions[j]:], for every j."""
        (self._copy_mapped if self._mappable else self._copy_runs)(starts, lengths, positions, out)

    def _copy_mapped(self, starts: Int64s, lengths: Int64s, positions: Int64s, out: Array) -> None:
        shards = starts // self._layout.shard_tokens
        firsts = (starts - shards * self._layout.shard_tokens) * self._row_bytes
        sizes, targets = lengths * self._row_bytes, positions * self._row_bytes
        target, views = as_bytes(out), self._bytes
        for j, (shard, first, last, begin, end) in enumerate(
            zip(
                shards.tolist(),
                firsts.tolist(),
                (firsts + sizes).tolist(),
                targets.tolist(),
                (targets + sizes).tolist(),
                strict=True,
            )
        ):
            if begin == end:
                continue
            view = views[shard]
            if view is not None and last <= len(view):
                target[begin:end] = view[first:last]
            else:
                target[begin:end] = as_bytes(self.rows(int(starts[j]), int(starts[j] + lengths[j])))

    def _copy_runs(self, starts: Int64s, lengths: Int64s, positions: Int64s, out: Array) -> None:
        """Samples in the order of the disk; those whose chunks touch are decoded in one call."""
        order = np.argsort(starts, kind="stable")
        order = order[lengths[order] > 0]
        begins, ends = starts[order], starts[order] + lengths[order]
        chunk = self._layout.chunk_tokens
        for first, last in _runs(begins, ends, chunk, max(chunk, RUN_BYTES // self._row_bytes)):
            base, stop = int(begins[first]), int(ends[first:last].max())
            block = self.rows(base, stop)
            part = order[first:last]
            for begin, size, position in zip(
                (begins[first:last] - base).tolist(), lengths[part].tolist(), positions[part].tolist(), strict=True
            ):
                out[position : position + size] = block[begin : begin + size]

    def _map(self, shard: int) -> Array | None:
        piece = self._maps[shard]
        if piece is None and self._mappable:
            piece = self._files.map_shard(self._layout, shard, self._name)
            self._maps[shard] = piece
            self._bytes[shard] = None if piece is None else as_bytes(piece)
        return piece

    def _decoded(self, start: int, stop: int) -> Array:
        if self._array is None:
            self._array = self._files.open_array(self._name)
        size = self._layout.shard_tokens
        shards = range(start // size, (stop - 1) // size + 1)
        for shard in shards:
            # zarr and h5py would read a missing file as fill values.
            if not self._seen[shard]:
                self._files.require_shard(self._layout, shard)
                self._seen[shard] = True
        try:
            return np.asarray(self._array[start:stop])
        except (OSError, RuntimeError, ValueError) as error:
            path = self._files.folder
            raise CorruptStore(
                f"shards {shards.start} to {shards.stop - 1} of {path} cannot be decoded ({error}); "
                "`pgm cache verify` names the damaged one"
            ) from error


def _runs(begins: Int64s, ends: Int64s, chunk: int, largest: int) -> list[tuple[int, int]]:
    """Split sorted intervals where the next one starts in a later chunk, or where a run has grown to `largest` rows."""
    runs, first = [], 0
    for j in range(1, len(begins)):
        apart = begins[j] // chunk > (ends[j - 1] - 1) // chunk + 1
        if apart or ends[j] - begins[first] > largest:
            runs.append((first, j))
            first = j
    return [*runs, (first, len(begins))] if len(begins) else []
