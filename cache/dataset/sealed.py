"""Named tables beside a dataset's features: a Parquet file, and a sealed JSON that says how it was made.

<kind>/<name>.parquet holds a row a sample, in the order of the dataset's samples; <name><seal> carries the recipe and
the table's digest, and is written last: without it there is no such table. Neither is ever rewritten.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import CorruptStore
from ..storage import Storage
from ..storage.base import digest_of, joined
from ..storage.sealed_json import put_sealed, read_sealed
from .samples import parquet_bytes

TABLE = ".parquet"


@dataclass(frozen=True)
class Kind:
    """Where tables of one kind lie and what their seal's name ends in; `thing`: what people call one."""

    thing: str
    folder: str
    seal: str


SPLIT = Kind("split", "splits", ".split.json")
MASK = Kind("mask", "masks", ".mask.json")
KINDS = (SPLIT, MASK)


def seal_key(kind: Kind, name: str) -> str:
    """Where the table's recipe lies below a dataset."""
    return joined(kind.folder, f"{name}{kind.seal}")


def table_key(kind: Kind, name: str) -> str:
    """Where the table itself lies below a dataset."""
    return joined(kind.folder, f"{name}{TABLE}")


def put_table(dataset: Storage, kind: Kind, name: str, table: pa.Table, recipe: Mapping[str, Any]) -> None:
    """Write the table, then its seal with the recipe."""
    content = parquet_bytes(table)
    if not dataset.exists(seal_key(kind, name)):
        # Left without a seal by a kill, it may be another draw of the name.
        dataset.delete(table_key(kind, name))
    dataset.put(table_key(kind, name), [content])
    put_sealed(dataset, seal_key(kind, name), {f"pgm_{kind.thing}": 2, "table": digest_of({"": [content]}), **recipe})


def read_recipe(dataset: Storage, kind: Kind, name: str) -> dict[str, Any]:
    """What a table's seal says. Raises FileNotFoundError, CorruptStore."""
    return read_sealed(dataset, seal_key(kind, name))


def read_table(dataset: Storage, kind: Kind, name: str, remedy: str) -> pa.Table:
    """The table, after its digest. Raises CorruptStore, which ends in `remedy`, where either file has changed."""
    try:
        content = dataset.read(table_key(kind, name))
        if digest_of({"": [content]}) == read_recipe(dataset, kind, name)["table"]:
            return pq.read_table(pa.BufferReader(content))
    except FileNotFoundError:
        pass
    raise CorruptStore(
        f"{dataset.url}/{table_key(kind, name)} is missing or not as it was written. Delete it and "
        f"{dataset.url}/{seal_key(kind, name)}, and {remedy}"
    )


def table_names(dataset: Storage, kind: Kind) -> list[str]:
    """The names of a dataset's tables of one kind, sorted."""
    return [name.removesuffix(kind.seal) for name in dataset.names(kind.folder) if name.endswith(kind.seal)]
