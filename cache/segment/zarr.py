"""A segment as a Zarr v3 group: `tokens` one sharded array, `lengths`, `checksums`, `items` and, for int8, `scales`.

zarr-python writes the metadata and the small arrays. An uncompressed shard of tokens is laid out here: its inner chunks
one after another in order (so their payload is one run of rows), then Zarr's index of them and the index's crc32c. A
reader that parses the index may map the rows; any layout it did not expect it leaves to zarr-python, which also encodes
and decodes compressed ones.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from zarr.codecs import BloscCodec
from zarr.storage import LocalStore, MemoryStore

from ..errors import CorruptStore
from ..storage.base import Parts, as_bytes
from ..storage.mapping import map_file
from .contents import Codec, Contents
from .encoding import Array

CHUNK_TOKENS = 512  # what a plain reader loads for one sample
ABSENT = 2**64 - 1
TOKENS = "tokens/c/0/0"
MARKER = "zarr.json"  # written last: without it the group is not there


def zarr_objects(contents: Contents) -> dict[str, Parts]:
    """The group's objects by key, the root's metadata last."""
    memory: dict[str, Any] = {}
    root = zarr.open_group(MemoryStore(memory), mode="w", zarr_format=3, attributes={"pgm_segment": 1})
    tokens = add_tokens(root, contents)
    raw = contents.codec == "none"
    if len(contents.tokens) and not raw:
        tokens[:] = contents.tokens
    small = {"lengths": contents.lengths, "checksums": contents.checksums, "items": items_array(contents)}
    if contents.scales is not None:
        small["scales"] = contents.scales
    for name, values in small.items():
        root.create_array(
            name,
            data=values,
            chunks=tuple(max(1, size) for size in values.shape),
            compressors=None,
            filters=None,
            config={"write_empty_chunks": True},
        )
    objects: dict[str, Parts] = {key: [value.to_bytes()] for key, value in memory.items() if key != MARKER}
    if len(contents.tokens) and raw:
        objects[TOKENS] = list(raw_shard(contents.tokens))
    return {**dict(sorted(objects.items())), MARKER: [memory[MARKER].to_bytes()]}


def items_array(contents: Contents) -> Array:
    """(m,) uint8: the items' Parquet file."""
    return np.frombuffer(contents.items.to_bytes(), np.uint8)


def read_zarr(folder: Path) -> dict[str, Array]:
    """The group's arrays but for the tokens. Raises CorruptStore."""
    try:
        root = zarr.open_group(LocalStore(folder, read_only=True), mode="r")
        return {name: np.asarray(root[name][:]) for name in ("lengths", "checksums", "items")}  # type: ignore[index]
    except (KeyError, ValueError, OSError) as error:
        raise CorruptStore(f"{folder} is not a readable segment ({error}); see `pgm cache verify`") from error


def map_zarr(folder: Path, name: str, dtype: np.dtype[Any], width: int) -> Array | None:
    """The rows of `tokens` or `scales` as a read-only view (T, width) of the file; None where they are not one run."""
    if name == "scales":
        return map_file(folder / "scales/c/0/0").view(dtype).reshape(-1, width)
    path = folder / TOKENS
    mapped = map_file(path)
    rows = contiguous_rows(mapped, dtype.itemsize * width, path)
    return None if rows is None else np.frombuffer(mapped, dtype, count=rows * width).reshape(rows, width)


def decode_zarr(folder: Path) -> Any:
    """The token array through zarr-python: slices decode whole chunks."""
    return zarr.open_group(LocalStore(folder, read_only=True), mode="r")["tokens"]


def chunk_rows(rows: int) -> int:
    """Rows of an inner chunk."""
    return max(1, min(CHUNK_TOKENS, rows))


def add_tokens(root: zarr.Group, contents: Contents) -> zarr.Array[Any]:
    """The token array, with this segment's chunks, shard and codec."""
    tokens = contents.tokens
    chunk = chunk_rows(len(tokens))
    return root.create_array(
        "tokens",
        shape=tokens.shape,
        chunks=(chunk, tokens.shape[1]),
        shards=(max(1, -(-len(tokens) // chunk)) * chunk, tokens.shape[1]),
        dtype=tokens.dtype,
        compressors=compressor(contents.codec, tokens.dtype.itemsize),
        filters=None,
        fill_value=0 if tokens.dtype.kind == "i" else np.nan,
        dimension_names=("token", "feature"),
        config={"write_empty_chunks": True},
    )


def compressor(codec: Codec, itemsize: int) -> BloscCodec | None:
    """Blosc for values of `itemsize` bytes, None where nothing is compressed."""
    if codec == "none":
        return None
    # Bit shuffling groups exponents with exponents, the only part of float features that compresses.
    return BloscCodec(typesize=itemsize, cname=codec, clevel=5, shuffle="bitshuffle", blocksize=0)


def raw_shard(tokens: Array) -> Iterator[bytes | memoryview]:
    """Payload, index, crc32c: inner chunks in order, the last one filled up with zeros."""
    chunk = chunk_rows(len(tokens))
    chunks = -(-len(tokens) // chunk)
    yield as_bytes(tokens)
    yield as_bytes(np.zeros((chunks * chunk - len(tokens), tokens.shape[1]), tokens.dtype))
    index = shard_index(chunks, chunk * tokens.shape[1] * tokens.dtype.itemsize)
    yield index
    yield google_crc32c.value(index).to_bytes(4, "little")


def shard_index(chunks: int, chunk_bytes: int) -> bytes:
    """Zarr's index of a shard: (offset, bytes) little-endian for each chunk."""
    index = np.empty((chunks, 2), "<u8")
    index[:, 0] = np.arange(chunks, dtype=np.uint64) * np.uint64(chunk_bytes)
    index[:, 1] = chunk_bytes
    return index.tobytes()


def contiguous_rows(mapped: Array, row_bytes: int, path: Path) -> int | None:
    """Rows in a shard whose chunks lie one after another from byte 0, as written here; None for any other layout.

    The last chunk's filling counts as rows: who knows the lengths knows where they end.
    """
    for chunks in _chunk_counts(len(mapped), row_bytes):
        payload = len(mapped) - 16 * chunks - 4
        index = mapped[payload:-4].tobytes()
        if google_crc32c.value(index).to_bytes(4, "little") != mapped[-4:].tobytes():
            continue
        return payload // row_bytes if index == shard_index(chunks, payload // chunks) else None
    if len(mapped) < 20:
        raise CorruptStore(f"{path} is cut short: {len(mapped)} bytes; see `pgm cache verify`")
    return None


def _chunk_counts(size: int, row_bytes: int) -> Iterator[int]:
    """How many chunks a raw shard of `size` bytes can have: one of fewer rows, or several of CHUNK_TOKENS rows."""
    if size >= 20 and (size - 20) % row_bytes == 0 and size - 20 <= CHUNK_TOKENS * row_bytes:
        yield 1
    full = CHUNK_TOKENS * row_bytes + 16
    if size > full and (size - 4) % full == 0:
        yield (size - 4) // full
