"""Zarr v3 on disk: an ordinary sharded array whose shards are, uncompressed, plain rows.

zarr-python writes the metadata. An uncompressed shard is written here: its inner chunks one after another in order (so
their payload is one run of rows), then Zarr's index of them and the index's crc32c. A reader that parses the index may
map the rows; any layout it did not expect it leaves to zarr. Compressed shards are encoded by zarr-python itself.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from zarr.codecs import BloscCodec
from zarr.storage import LocalStore, MemoryStore

from .encoding import Array, Encoded
from .errors import CorruptStore
from .layout import Layout
from .mapping import map_file, require_files

GROUP = "features.zarr"
ABSENT = 2**64 - 1


class ZarrFormat:
    """Names, writes and maps the files of one Zarr store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def create(self, layout: Layout) -> None:
        """Write metadata and offsets; no token chunk."""
        root = zarr.open_group(LocalStore(self.folder / GROUP), mode="w", zarr_format=3)
        add_tokens(root, layout, layout.total)
        if layout.stored == "int8":
            root.create_array(
                "scales",
                shape=(layout.total, 1),
                chunks=(layout.shard_tokens, 1),
                dtype="float32",
                compressors=None,
                filters=None,
                fill_value=np.nan,
            )
        offsets = root.create_array(
            "offsets",
            shape=layout.offsets.shape,
            chunks=layout.offsets.shape,
            dtype="int64",
            compressors=None,
            filters=None,
            fill_value=-1,
            config={"write_empty_chunks": True},
        )
        offsets[:] = layout.offsets

    def index_files(self, layout: Layout) -> list[str]:
        """Files besides the shards that a reader depends on."""
        arrays = ["tokens", "offsets"] + ["scales"] * (layout.stored == "int8")
        return [f"{GROUP}/zarr.json", *(f"{GROUP}/{name}/zarr.json" for name in arrays), self.offsets_file]

    offsets_file = f"{GROUP}/offsets/c/0"

    def shard_files(self, layout: Layout, shard: int) -> list[str]:
        """The shard's own files: its tokens and, for int8, its scales."""
        names = [f"{GROUP}/tokens/c/{shard}/0"]
        return [*names, f"{GROUP}/scales/c/{shard}/0"] if layout.stored == "int8" else names

    def shard_parts(self, layout: Layout, encoded: Encoded, scratch: Path) -> list[list[bytes | memoryview]]:
        """The bytes of each of `shard_files`."""
        if layout.codec == "none":
            parts = [list(raw_shard(layout, encoded.tokens))]
        else:
            parts = [[compressed_shard(layout, encoded.tokens)]]
        if encoded.scales is not None:
            rest = np.full((layout.shard_tokens - len(encoded.scales), 1), np.nan, np.float32)
            parts.append([as_bytes(encoded.scales), as_bytes(rest)])
        return parts

    def read_offsets(self) -> Array:
        """(N+1,) int64, read raw."""
        return np.fromfile(self.folder / self.offsets_file, "<i8")

    def map_shard(self, layout: Layout, shard: int, array: str) -> Array | None:
        """The shard's rows of `tokens` or `scales` as a read-only view of its file; None when they are not one run."""
        start, stop = layout.bounds(shard)
        path = self.folder / self.shard_files(layout, shard)[array == "scales"]
        mapped = map_file(path)
        if array == "scales":
            return np.frombuffer(mapped, np.float32, count=stop - start).reshape(-1, 1)
        if layout.codec != "none" or not rows_are_contiguous(layout, mapped, stop - start, path, shard):
            return None
        count = (stop - start) * layout.dim
        return np.frombuffer(mapped, layout.dtype, count=count).reshape(-1, layout.dim)

    def require_shard(self, layout: Layout, shard: int) -> None:
        """CorruptStore when a file of the shard is missing."""
        require_files(self.folder, self.shard_files(layout, shard))

    def open_array(self, array: str) -> Any:
        """The array through zarr-python: slices decode whole chunks."""
        return zarr.open_group(LocalStore(self.folder / GROUP, read_only=True), mode="r")[array]


def add_tokens(root: zarr.Group, layout: Layout, rows: int) -> zarr.Array[Any]:
    """The token array of `rows` rows, with this layout's chunks, shards and codecs."""
    compressor = None
    if layout.codec != "none":
        # Bit shuffling groups exponents with exponents, the only part of float features that compresses.
        compressor = BloscCodec(
            typesize=layout.dtype.itemsize, cname=layout.codec, clevel=5, shuffle="bitshuffle", blocksize=0
        )
    return root.create_array(
        "tokens",
        shape=(rows, layout.dim),
        chunks=(layout.chunk_tokens, layout.dim),
        shards=(layout.shard_tokens, layout.dim),
        dtype=layout.dtype,
        compressors=compressor,
        filters=None,
        fill_value=0 if layout.stored == "int8" else np.nan,
        dimension_names=("token", "feature"),
        config={"write_empty_chunks": True},
    )


def as_bytes(array: Array) -> memoryview:
    """The bytes of a contiguous array, not copied."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def raw_shard(layout: Layout, tokens: Array) -> Iterator[bytes | memoryview]:
    """Payload, index, crc32c: inner chunks in order, absent ones (past the end) marked so."""
    chunk_rows = layout.chunk_tokens
    chunk_bytes = chunk_rows * layout.dim * layout.dtype.itemsize
    chunks = -(-len(tokens) // chunk_rows)
    yield as_bytes(tokens)
    yield as_bytes(np.zeros((chunks * chunk_rows - len(tokens), layout.dim), layout.dtype))
    index = shard_index(layout.shard_tokens // chunk_rows, chunks, chunk_bytes)
    yield index
    yield google_crc32c.value(index).to_bytes(4, "little")


def shard_index(chunks: int, present: int, chunk_bytes: int) -> bytes:
    """Zarr's index of a shard: (offset, bytes) little-endian for each chunk, all ones for an absent chunk."""
    index = np.full((chunks, 2), ABSENT, "<u8")
    index[:present, 0] = np.arange(present, dtype=np.uint64) * np.uint64(chunk_bytes)
    index[:present, 1] = chunk_bytes
    return index.tobytes()


def compressed_shard(layout: Layout, tokens: Array) -> bytes:
    """A shard encoded by zarr-python in memory, so that this package decides when a file appears."""
    chunks: dict[str, Any] = {}
    root = zarr.open_group(MemoryStore(chunks), mode="w", zarr_format=3)
    add_tokens(root, layout, len(tokens))[:] = tokens
    return bytes(chunks["tokens/c/0/0"].to_bytes())


def rows_are_contiguous(layout: Layout, mapped: Array, rows: int, path: Path, shard: int) -> bool:
    """Parse the shard's index: True when its chunks lie one after another from byte 0, as they are written here."""
    chunks = layout.shard_tokens // layout.chunk_tokens
    size = 16 * chunks
    if len(mapped) < size + 4:
        raise CorruptStore(f"shard {shard} ({path}) is cut short: {len(mapped)} bytes; see `pgm cache verify`")
    index = mapped[len(mapped) - size - 4 : len(mapped) - 4].tobytes()
    if google_crc32c.value(index).to_bytes(4, "little") != mapped[len(mapped) - 4 :].tobytes():
        raise CorruptStore(f"the index of shard {shard} ({path}) fails its crc32c; see `pgm cache verify`")
    present = -(-rows // layout.chunk_tokens)
    chunk_bytes = layout.chunk_tokens * layout.dim * layout.dtype.itemsize
    return index == shard_index(chunks, present, chunk_bytes) and len(mapped) == present * chunk_bytes + size + 4
