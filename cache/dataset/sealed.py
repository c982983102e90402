"""Named tables beside a dataset's features: splits and masks, each a Parquet file and a sealed JSON of how it was made.

<kind>/<digest>.parquet holds a row a sample, in the order of the samples, under the digest of its bytes; the recipe,
<kind>/<name><seal>, names that digest and is put last and if absent: of two that draw one name at once, one is kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import CorruptStore
from ..storage import Storage
from ..storage.base import digest_of, put_named
from ..storage.sealed_json import put_sealed, read_sealed
from .samples import parquet_bytes

TABLE = ".parquet"


@dataclass(frozen=True)
class Kind:
    """Where tables of one kind lie and what their seal's name ends in; `thing`: what people call one."""

    thing: str
    folder: str
    seal: str

    def seal_key(self, name: str) -> str:
        """Where the recipe of a table lies in a dataset."""
        return f"{self.folder}/{name}{self.seal}"

    def table_key(self, digest: str) -> str:
        """Where the table of this digest lies in a dataset."""
        return f"{self.folder}/{digest}{TABLE}"


SPLIT = Kind("split", "splits", ".split.json")
MASK = Kind("mask", "masks", ".mask.json")
KINDS = (SPLIT, MASK)


def put_table(dataset: Storage, kind: Kind, name: str, table: pa.Table, recipe: Mapping[str, Any]) -> bool:
    """Put the table, then its seal with the recipe; False where the name was taken meanwhile."""
    content = parquet_bytes(table)
    digest = digest_of({"": [content]})
    put_named(dataset, kind.table_key(digest), [content], digest)
    return put_sealed(dataset, kind.seal_key(name), {f"pgm_{kind.thing}": 2, "table": digest, **recipe})


def read_recipe(dataset: Storage, kind: Kind, name: str) -> dict[str, Any]:
    """What a table's seal says, with the table's digest as "table". Raises FileNotFoundError, CorruptStore."""
    return read_sealed(dataset, kind.seal_key(name))


def read_table(dataset: Storage, kind: Kind, name: str, digest: str, remedy: str) -> pa.Table:
    """The table of this digest. Raises CorruptStore, which ends in `remedy`, where it is not as it was written."""
    key = kind.table_key(digest)
    try:
        content = dataset.local(key, digest).read_bytes()
    except FileNotFoundError:
        content = b""
    if digest_of({"": [content]}) != digest:
        where = f"{dataset.url}/{key}"
        raise CorruptStore(
            f"{where} is missing or not as it was written. "
            f"Delete {where} and {dataset.url}/{kind.seal_key(name)}, and {remedy}"
        )
    return pq.read_table(pa.BufferReader(content))


def table_names(dataset: Storage, kind: Kind) -> list[str]:
    """The names of a dataset's tables of one kind, sorted."""
    return [name.removesuffix(kind.seal) for name in dataset.names(kind.folder) if name.endswith(kind.seal)]
