"""The samples of a dataset, a Parquet file named by its bytes: id, split, label columns, perhaps group, has_<modality>.

A file never changes; another list of samples is another file, and a version of the dataset says which one it is of.
"""

import io
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from ..errors import CorruptStore, NotFound, UserError
from ..storage import Storage
from ..storage.base import digest_of, put_named
from ..store import Features
from .card import SPLITS

FOLDER = "samples"


def check_samples(samples: pa.Table) -> None:
    """Raises UserError for ids that repeat, unknown splits and missing columns."""
    if absent := {"id", "split"} - set(samples.column_names):
        raise UserError(f"a samples table needs the columns id and split; {', '.join(sorted(absent))} is not there")
    if pc.count_distinct(samples["id"]).as_py() != len(samples):
        twice = Counter(samples["id"].to_pylist()).most_common(1)[0][0]
        raise UserError(f"sample ids must be unique in a dataset; {twice!r} appears more than once")
    if unknown := set(pc.unique(samples["split"]).to_pylist()) - set(SPLITS):
        raise UserError(f"unknown split {', '.join(sorted(map(repr, unknown)))}; splits are {', '.join(SPLITS)}")


def put_samples(dataset: Storage, samples: pa.Table) -> str:
    """Keep a table of samples; returns the digest it is named by."""
    return put_table(dataset, FOLDER, samples)


def read_samples(dataset: Storage, digest: str) -> Any:
    """The table of this digest, checked by it. Raises CorruptStore."""
    return read_table(dataset, FOLDER, digest, "Run `pgm cache verify`")


def samples_key(digest: str) -> str:
    """Where a table of samples lies below a dataset."""
    return table_key(FOLDER, digest)


def put_table(dataset: Storage, folder: str, table: pa.Table) -> str:
    """Keep a table as a Parquet file named by the digest of its bytes; returns that. Equal tables are one file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    digest = digest_of({"": [sink.getbuffer()]})
    put_named(dataset, table_key(folder, digest), [sink.getbuffer()], digest)
    return digest


def read_table(dataset: Storage, folder: str, digest: str, remedy: str) -> Any:
    """The table of this digest. Raises CorruptStore, which ends in `remedy`, where it is not as it was written."""
    key = table_key(folder, digest)
    try:
        content = dataset.local(key, digest).read_bytes()
    except FileNotFoundError:
        content = b""
    if digest_of({"": [content]}) != digest:
        raise CorruptStore(f"{dataset.url}/{key} is missing or not as it was written. {remedy}")
    return pq.read_table(pa.BufferReader(content))


def table_key(folder: str, digest: str) -> str:
    """Where the table of this digest lies below a dataset."""
    return f"{folder}/{digest}.parquet"


def ids_digest(sample_ids: Sequence[str]) -> str:
    """Digest of the sample ids in their order (about 50 ms for a million)."""
    array = pa.array(sample_ids, type=pa.large_string())
    lengths = np.asarray(pc.binary_length(array), np.int64)
    hasher = xxhash.xxh3_128(lengths.tobytes())
    if lengths.any():
        hasher.update(array.buffers()[2])
    return hasher.hexdigest()


def ids_of(features: Features) -> list[str]:
    """(N,) ids of a store's samples, from the dataset's table of them. Raises NotFound where there is none."""
    dataset = features.store.storage.parent
    for name in dataset.names(FOLDER):
        ids: list[str] = read_samples(dataset, name.removesuffix(".parquet"))["id"].to_pylist()
        if ids_digest(ids) == features.version.sample_ids:
            return ids
    raise NotFound(
        f"{dataset.url} has no table of the samples of {features.url}; `pgm cache verify` says what is wrong"
    )
