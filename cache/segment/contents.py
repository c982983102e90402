"""What a segment is: the features of some samples, with what each was made from and what came of it.

A segment is a cached function call. Its name begins with the digest of the call's inputs (the computation's identity
and, in order, the ids and source digests of its samples) and ends with the digest of all its bytes, so that two
segments of one name are equal to the byte, whoever wrote them, and the name alone is enough to check one.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from ..errors import CorruptStore, UserError
from .encoding import Array

SEGMENTS = "segments"  # the folder of a store's segments
Format = Literal["zarr", "hdf5"]
Codec = Literal["none", "zstd", "lz4"]
Status = Literal["ok", "failed", "missing"]
STATUSES: tuple[Status, ...] = get_args(Status)
SUFFIX = {"zarr": ".zarr", "hdf5": ".h5"}

Int64s = npt.NDArray[np.int64]
UInt64s = npt.NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Items:
    """The n samples of a segment, in order.

    ids: (n,) sample ids. sources: (n,) 32 hex digits of what each was made from, "" where unknown. errors: (n,) why a
    sample could not be encoded, "" where it was. attempt: 0, or how often failed items had been tried before.
    quantisation: for int8, the sums of its error (see encoding.py).
    """

    ids: Sequence[str]
    sources: Sequence[str]
    errors: Sequence[str]
    attempt: int = 0
    quantisation: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        if len({len(self.ids), len(self.sources), len(self.errors)}) != 1:
            raise ValueError(f"{len(self.ids)} ids, {len(self.sources)} sources and {len(self.errors)} errors")

    def __len__(self) -> int:
        return len(self.ids)

    def to_bytes(self) -> bytes:
        """A Parquet file with the columns id, source and error."""
        columns = {"id": self.ids, "source": self.sources, "error": self.errors}
        table = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
        sink = io.BytesIO()
        told = json.dumps({"attempt": self.attempt, "quantisation": self.quantisation}, sort_keys=True)
        pq.write_table(table.replace_schema_metadata({"pgm": told}), sink, compression="zstd")
        return sink.getvalue()

    @staticmethod
    def from_bytes(content: bytes) -> "Items":
        """The inverse of `to_bytes`. Raises CorruptStore."""
        try:
            table = pq.read_table(pa.BufferReader(content))
            columns = [table[name].to_pylist() for name in ("id", "source", "error")]
            return Items(*columns, **json.loads(table.schema.metadata[b"pgm"]))
        except (pa.ArrowInvalid, KeyError, OSError, TypeError, ValueError) as error:
            raise CorruptStore(f"the items of a segment are not readable ({error}); see `pgm cache verify`") from error


def inputs_digest(identity: str, ids: Sequence[str], sources: Sequence[str], attempt: int = 0) -> str:
    """16 hex digits of the call a segment caches. identity: the whole digest of the store's identity."""
    told = [f"{len(sample)} {sample} {source}\n" for sample, source in zip(ids, sources, strict=True)]
    return hashlib.sha256("".join([f"{identity} {attempt}\n", *told]).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class SegmentName:
    """`<inputs>-<content>.zarr` or `.h5`: both digests are 16 hex digits."""

    inputs: str
    content: str
    format: Format

    def __str__(self) -> str:
        return f"{self.inputs}-{self.content}{SUFFIX[self.format]}"

    @staticmethod
    def parse(name: str) -> "SegmentName | None":
        """None where it is no segment's name."""
        for format_, suffix in SUFFIX.items():
            inputs, dash, content = name.removesuffix(suffix).partition("-")
            if name.endswith(suffix) and dash and len(inputs) == len(content) == 16:
                return SegmentName(inputs, content, format_)  # type: ignore[arg-type]
        return None


@dataclass(frozen=True, eq=False)
class Contents:
    """A segment's arrays as they are stored.

    tokens: (T, D), all samples' one after another. lengths: (n,) tokens a sample, 0 for a failed one. scales: (T, 1)
    float32 for int8. checksums: (n,) xxh3_64 of each sample's stored bytes, tokens then scales; 0 without tokens.
    """

    items: Items
    lengths: Int64s
    tokens: Array
    checksums: UInt64s
    scales: Array | None = None
    codec: Codec = "none"


def sample_checksums(tokens: Array, scales: Array | None, lengths: Int64s) -> UInt64s:
    """(n,) xxh3_64 of each sample's rows of `tokens` (T, D), and of `scales` (T, 1) where there are any."""
    ends = np.cumsum(lengths)
    found = np.zeros(len(lengths), np.uint64)
    first, *others = (np.ascontiguousarray(array).view(np.uint8) for array in (tokens, scales) if array is not None)
    view, width = first.reshape(-1).data, first.shape[1]
    for row, (start, end) in enumerate(zip((ends - lengths).tolist(), ends.tolist(), strict=True)):
        if end > start and others:
            hasher = xxhash.xxh3_64(view[start * width : end * width])
            for array in others:
                hasher.update(array[start:end].data)
            found[row] = hasher.intdigest()
        elif end > start:
            # In one call: a hasher of its own costs as much as the bytes of a short sample.
            found[row] = xxhash.xxh3_64_intdigest(view[start * width : end * width])
    return found


def check_format(format_: str, codec: str) -> None:
    """Raises UserError for a format or codec that is not known, or cannot go together."""
    for name, value, known in (("--format", format_, get_args(Format)), ("--codec", codec, get_args(Codec))):
        if value not in known:
            raise UserError(f"{name} {value!r} is not one of {', '.join(known)}")
    if format_ == "hdf5" and codec != "none":
        raise UserError(f"--codec {codec} needs --format zarr: plain HDF5 readers have no zstd or lz4 without a plugin")
