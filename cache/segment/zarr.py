"""A segment as a Zarr v3 group: `tokens` one sharded array, `lengths`, `checksums`, `items` and, for int8, `scales`.

The objects are laid out here, by the specification: through zarr-python every array takes several trips to the thread
of its event loop, on a busy machine 60 ms a segment. A shard of tokens is its inner chunks one after another in order
(uncompressed, their payload is one run of rows that a reader maps; for compressed ones see packed.py), then Zarr's
index of them and the index's crc32c. Every other array is one raw chunk.
"""

import json
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numcodecs import blosc
from zarr.codecs import BloscCodec

from ..errors import CorruptStore
from ..storage.base import Parts, as_bytes
from .contents import Codec, Contents
from .encoding import Array
from .packed import PackedRows
from .rows import Span

CHUNK_TOKENS = 512  # what a plain reader loads for one sample
TOKENS = "tokens/c/0/0"
MARKER = "zarr.json"  # written last: without it the group is not there
GROUP = {"attributes": {"pgm_segment": 1}, "zarr_format": 3, "node_type": "group"}
READ = {"lengths": "<i8", "checksums": "<u8", "items": "u1"}
LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}


def zarr_objects(contents: Contents) -> dict[str, Parts]:
    """The group's objects by key, the root's metadata last."""
    small = {"lengths": contents.lengths, "checksums": contents.checksums, "items": items_array(contents)}
    if contents.scales is not None:
        small["scales"] = contents.scales
    objects: dict[str, Parts] = {"tokens/zarr.json": [tokens_metadata(contents)]}
    if len(contents.tokens):
        objects[TOKENS] = shard(contents)
    for name, values in small.items():
        chunk = tuple(max(1, size) for size in values.shape)
        objects[f"{name}/zarr.json"] = [array_metadata(values, chunk, [as_little(values)])]
        if values.size:
            objects["/".join([name, "c", *"0" * values.ndim])] = [as_bytes(values)]
    return {**dict(sorted(objects.items())), MARKER: [spelled(GROUP)]}


def items_array(contents: Contents) -> Array:
    """(m,) uint8: the items' Parquet file."""
    return np.frombuffer(contents.items.to_bytes(), np.uint8)


def read_zarr(folder: Path) -> dict[str, Array]:
    """The group's arrays but for the tokens. Raises CorruptStore."""
    try:
        return {name: np.frombuffer((folder / name / "c/0").read_bytes(), dtype) for name, dtype in READ.items()}
    except (ValueError, OSError) as error:
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


def tokens_metadata(contents: Contents) -> bytes:
    """`zarr.json` of the tokens: one shard of chunks."""
    tokens, packed = contents.tokens, compressor(contents.codec, contents.tokens.dtype.itemsize)
    chunk, width = chunk_rows(len(tokens)), tokens.shape[1]
    sharding = {
        "chunk_shape": [chunk, width],
        "codecs": [as_little(tokens), *([packed.to_dict()] if packed else [])],
        "index_codecs": [LITTLE, {"name": "crc32c"}],
        "index_location": "end",
    }
    shape = (max(1, -(-len(tokens) // chunk)) * chunk, width)
    codec = {"name": "sharding_indexed", "configuration": sharding}
    return array_metadata(tokens, shape, [codec], dimension_names=["token", "feature"])


def array_metadata(values: Array, chunk: tuple[int, ...], codecs: list[Any], **more: Any) -> bytes:
    """`zarr.json` of an array in chunks of one size, all of which are there."""
    known = {
        "shape": values.shape,
        "data_type": values.dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0 if values.dtype.kind in "iu" else "NaN",
        "codecs": codecs,
        "attributes": {},
    }
    return spelled(known | more | {"zarr_format": 3, "node_type": "array", "storage_transformers": []})


def spelled(metadata: dict[str, Any]) -> bytes:
    """JSON as zarr-python spells it."""
    return json.dumps(metadata, indent=2).encode()


def as_little(values: Array) -> dict[str, Any]:
    """The codec of raw values."""
    return LITTLE if values.dtype.itemsize > 1 else {"name": "bytes"}


def compressor(codec: Codec, itemsize: int) -> BloscCodec | None:
    """Blosc for values of `itemsize` bytes, None where nothing is compressed."""
    if codec == "none":
        return None
    # Bit shuffling groups exponents with exponents, the only part of float features that compresses.
    return BloscCodec(typesize=itemsize, cname=codec, clevel=5, shuffle="bitshuffle", blocksize=0)


def shard(contents: Contents) -> Parts:
    """Payload, index, crc32c: inner chunks in order, the last one filled up with zeros; each an (offset, bytes)."""
    tokens = contents.tokens
    chunk = chunk_rows(len(tokens))
    chunks = -(-len(tokens) // chunk)
    filling = np.zeros((chunks * chunk - len(tokens), tokens.shape[1]), tokens.dtype)
    payload: list[bytes | memoryview]
    if contents.codec == "none":
        payload, sizes = [as_bytes(tokens), as_bytes(filling)], [chunk * tokens[:1].nbytes] * chunks
    else:
        blocks = [tokens[at * chunk : (at + 1) * chunk] for at in range(chunks)]
        blocks[-1] = np.concatenate([blocks[-1], filling])
        payload = [packed(block, contents.codec) for block in blocks]
        sizes = [len(part) for part in payload]
    index = np.stack([np.cumsum(sizes) - sizes, sizes], axis=1).astype("<u8").tobytes()
    return [*payload, index, google_crc32c.value(index).to_bytes(4, "little")]


def packed(block: Array, codec: Codec) -> bytes:
    """An inner chunk, as `compressor` says."""
    chosen: bytes = blosc.compress(
        np.ascontiguousarray(block), codec.encode(), 5, blosc.BITSHUFFLE, 0, typesize=block.dtype.itemsize
    )
    return chosen
