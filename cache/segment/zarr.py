"""A segment as a Zarr v3 group: `tokens` one sharded array, `lengths`, `checksums`, `items` and, for int8, `scales`.

zarr-python writes the metadata and the small arrays. An uncompressed shard of tokens is laid out here: its inner chunks
one after another in order (so their payload is one run of rows), then Zarr's index of them and the index's crc32c. A
reader that knows that no codec is used maps the rows. Compressed shards zarr-python
encodes; see packed.py for reading them.
"""

import json
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
from .contents import Codec, Contents
from .encoding import Array
from .packed import PackedRows
from .rows import Span

CHUNK_TOKENS = 512  # what a plain reader loads for one sample
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


def zarr_rows(folder: Path, name: str, row_bytes: int) -> Span | PackedRows:
    """Where the rows of `tokens` or `scales` lie, or how they are decoded. Raises FileNotFoundError, CorruptStore.

    The filling of the last chunk counts as rows of none.
    """
    if name == "scales":
        path = folder / "scales/c/0/0"
        return Span(path, 0, path.stat().st_size // row_bytes)
    path = folder / TOKENS
    metadata = (folder / "tokens/zarr.json").read_bytes()
    try:
        value = json.loads(metadata)
        [sharding] = value["codecs"]
        rows, width = (int(size) for size in value["shape"])
        chunk, dtype = int(sharding["configuration"]["chunk_shape"][0]), np.dtype(value["data_type"])
        raw = [codec["name"] for codec in sharding["configuration"]["codecs"]] == ["bytes"]
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptStore(f"{folder}/tokens/zarr.json is not as it was written ({error!r})") from error
    chunks = -(-rows // chunk)
    if not raw:
        return PackedRows(path, dtype, rows, width, chunk)
    if rows and (dtype.itemsize * width, path.stat().st_size) != (row_bytes, chunks * (chunk * row_bytes + 16) + 4):
        raise CorruptStore(f"{path} is cut short or not as it was written; see `pgm cache verify`")
    return Span(path, 0, rows)


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
    yield index_checksum(index)


def index_checksum(index: bytes) -> bytes:
    """crc32c, as it follows the index."""
    checksum: int = google_crc32c.value(index)
    return checksum.to_bytes(4, "little")


def shard_index(chunks: int, chunk_bytes: int) -> bytes:
    """Zarr's index of a shard: (offset, bytes) little-endian for each chunk."""
    index = np.empty((chunks, 2), "<u8")
    index[:, 0] = np.arange(chunks, dtype=np.uint64) * np.uint64(chunk_bytes)
    index[:, 1] = chunk_bytes
    return index.tobytes()
