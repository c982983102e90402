"""The rows of a compressed Zarr shard. Chunks are decoded whole, each once a call, straight from the mapped file."""

from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numcodecs import blosc

from ..errors import CorruptStore
from ..storage.mapping import map_file
from .contents import Int64s
from .copying import in_two
from .encoding import Array


class PackedRows:
    """`count` rows (T, width) of a shard, in chunks of `chunk` rows."""

    def __init__(self, path: Path, dtype: np.dtype[Any], count: int, width: int, chunk: int) -> None:
        self.path, self.dtype, self.shape, self.chunk = path, dtype, (count, width), chunk
        self._mapped = map_file(path) if count else np.empty(0, np.uint8)
        self._offsets = self._read_index(-(-count // chunk))
        self._last: tuple[int, Array] | None = None

    def _read_index(self, chunks: int) -> Int64s:
        """(chunks, 2) offset and bytes of every chunk."""
        if not chunks:
            return np.empty((0, 2), np.int64)
        content = self._mapped[len(self._mapped) - 16 * chunks - 4 :].tobytes()
        if google_crc32c.value(content[:-4]).to_bytes(4, "little") != content[-4:]:
            raise self._damaged("its index fails its checksum")
        return np.frombuffer(content[:-4], "<i8").reshape(-1, 2)

    def __getitem__(self, rows: slice) -> Array:
        """Rows start:stop; the last chunk is kept, as the next sample often lies in it."""
        start, stop, _ = rows.indices(self.shape[0])
        if stop <= start:
            return np.empty((0, *self.shape[1:]), self.dtype)
        chunks = np.arange(start // self.chunk, -(-stop // self.chunk))
        last = self._last
        if last is None or not (len(chunks) == 1 and last[0] == chunks[0]):
            decoded = self.decoded(chunks)
            last = self._last = int(chunks[-1]), decoded[-self.chunk :]
        else:
            decoded = last[1]
        begin = start - int(chunks[0]) * self.chunk
        return decoded[begin : begin + stop - start]

    def runs(self, starts: Int64s, lengths: Int64s) -> tuple[Array, Int64s]:
        """Every chunk that the runs of rows starts : starts + lengths touch, and where each run begins among them."""
        first, last = starts // self.chunk, (starts + lengths - 1) // self.chunk
        spans = last - first + 1
        every = np.repeat(first - (np.cumsum(spans) - spans), spans) + np.arange(spans.sum())
        chunks = np.unique(every)
        return self.decoded(chunks), np.searchsorted(chunks, first) * self.chunk + starts % self.chunk

    def decoded(self, chunks: Int64s) -> Array:
        """(len(chunks) * rows a chunk, D): whole chunks, one after another. Raises CorruptStore."""
        out = np.empty((len(chunks) * self.chunk, *self.shape[1:]), self.dtype)

        def part(start: int, stop: int) -> None:
            for place in range(start, stop):
                self._decode(int(chunks[place]), out[place * self.chunk : (place + 1) * self.chunk])

        in_two(part, len(chunks), out.nbytes)
        return out

    def _decode(self, chunk: int, out: Array) -> None:
        offset, size = self._offsets[chunk].tolist()
        packed = self._mapped[offset : offset + size]
        try:
            # Blosc's header: bytes of the chunk, of a block, and packed. A damaged one would leave `out` unfilled.
            if len(packed) < 16 or packed[4:16].view("<u4")[::2].tolist() != [out.nbytes, size]:
                raise ValueError(f"chunk {chunk} has not the size it should have")
            blosc.decompress(packed, out)
        except (RuntimeError, ValueError) as error:
            raise self._damaged(str(error)) from error

    def _damaged(self, why: Any) -> CorruptStore:
        return CorruptStore(f"{self.path} cannot be decoded ({why}); see `pgm cache verify`")
