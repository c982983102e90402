"""Where every token goes, fixed before the first is computed.

All samples' tokens are packed one after another and cut into shards of equal row counts (the last may be shorter).
Knowing this up front is what lets workers fill shards in any order without ever sharing a file.
"""

from dataclasses import dataclass
from functools import cached_property
from math import gcd
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import xxhash

from .errors import UserError

Format = Literal["zarr", "hdf5"]
Codec = Literal["none", "zstd", "lz4"]
Stored = Literal["float16", "float32", "int8"]

Int64s = npt.NDArray[np.int64]

# Shards of whole pages of any common size map cleanly; 64 KiB is the largest page in use.
PAGE = 65536
# A plain Zarr user who reads one sample pays for one such chunk.
CHUNK_TOKENS = 512


@dataclass(frozen=True, eq=False)
class Layout:
    """The token grid of one store.

    lengths: (N,) tokens a sample, 0 where the modality is missing.
    dim: D, features a token.
    shard_tokens: rows a shard; the last shard may be shorter.
    """

    lengths: Int64s
    dim: int
    shard_tokens: int
    format: Format = "zarr"
    codec: Codec = "none"
    stored: Stored = "float16"

    def __post_init__(self) -> None:
        lengths = np.ascontiguousarray(self.lengths, dtype=np.int64)
        if lengths.ndim != 1 or (lengths.size and lengths.min() < 0):
            raise UserError("a layout takes one token count of 0 or more for each sample")
        if self.dim < 1 or self.shard_tokens < 1:
            raise UserError(f"a layout needs dim and shard_tokens of 1 or more, not {self.dim} and {self.shard_tokens}")
        for name, value, known in (
            ("format", self.format, get_args(Format)),
            ("codec", self.codec, get_args(Codec)),
            ("stored", self.stored, get_args(Stored)),
        ):
            if value not in known:
                raise UserError(f"{name} {value!r} is not one of {', '.join(known)}")
        if self.format == "hdf5" and self.codec != "none":
            raise UserError(
                f"--codec {self.codec} needs --format zarr: plain HDF5 readers have no zstd or lz4 without a plugin"
            )
        lengths.setflags(write=False)
        object.__setattr__(self, "lengths", lengths)

    @cached_property
    def offsets(self) -> Int64s:
        """(N+1,) token rows: sample i is rows offsets[i]:offsets[i+1]."""
        offsets = np.zeros(len(self.lengths) + 1, np.int64)
        np.cumsum(self.lengths, out=offsets[1:])
        offsets.setflags(write=False)
        return offsets

    @cached_property
    def lengths_digest(self) -> str:
        """xxh3_128 of the lengths, which decide every offset."""
        return xxhash.xxh3_128_hexdigest(self.lengths.data)

    @property
    def samples(self) -> int:
        """N."""
        return len(self.lengths)

    @property
    def total(self) -> int:
        """T, all tokens."""
        return int(self.offsets[-1])

    @property
    def shards(self) -> int:
        """How many shards hold T tokens; 0 for none."""
        return -(-self.total // self.shard_tokens)

    @property
    def dtype(self) -> np.dtype[Any]:
        """What the token array holds on disk."""
        return np.dtype(self.stored)

    @property
    def chunk_tokens(self) -> int:
        """Rows of a Zarr inner chunk: the largest divisor of a shard that is at most CHUNK_TOKENS."""
        return next(
            rows for rows in range(min(CHUNK_TOKENS, self.shard_tokens), 0, -1) if self.shard_tokens % rows == 0
        )

    def bounds(self, shard: int) -> tuple[int, int]:
        """The token rows start:stop of one shard."""
        if not 0 <= shard < self.shards:
            raise UserError(f"shard {shard} was asked for; this layout has {self.shards} (0 to {self.shards - 1})")
        start = shard * self.shard_tokens
        return start, min(start + self.shard_tokens, self.total)

    def samples_of(self, shard: int) -> range:
        """The sample rows with at least one token in the shard, and any empty ones between them."""
        start, stop = self.bounds(shard)
        first = int(np.searchsorted(self.offsets, start, side="right")) - 1
        last = int(np.searchsorted(self.offsets, stop, side="left"))
        return range(first, last)

    def shards_of(self, sample: int) -> range:
        """The shards that hold a token of the sample; empty for a sample without tokens."""
        start, stop = int(self.offsets[sample]), int(self.offsets[sample + 1])
        return range(
            start // self.shard_tokens, -(-stop // self.shard_tokens) if stop > start else start // self.shard_tokens
        )

    def summary(self) -> dict[str, Any]:
        """The layout as it stands in store.json; the lengths appear as their digest."""
        return {
            "samples": self.samples,
            "tokens": self.total,
            "dim": self.dim,
            "shard_tokens": self.shard_tokens,
            "format": self.format,
            "codec": self.codec,
            "stored": self.stored,
            "lengths": self.lengths_digest,
        }


def shard_tokens_for(dim: int, stored: Stored = "float16", shard_bytes: int = 64 << 20) -> int:
    """Rows a shard of about `shard_bytes`, a whole number of pages and of Zarr chunks."""
    row_bytes = dim * np.dtype(stored).itemsize
    step = max(PAGE // gcd(PAGE, row_bytes), CHUNK_TOKENS)
    return max(1, round(shard_bytes / row_bytes / step)) * step
