"""Named tables beside a dataset's features: splits and masks, each a Parquet file and a sealed JSON of how it was made.

<kind>/<digest>.parquet holds a row a sample, in the order of the samples, under the digest of its bytes; the recipe,
<kind>/<name><seal>, names that digest and is put last and if absent: of two that draw one name at once, one is kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ..storage import Storage
from ..storage.sealed_json import put_sealed, read_sealed
from .samples import put_table, read_table, table_key


@dataclass(frozen=True)
class Kind:
    """Where tables of one kind lie and what their seal's name ends in; `thing`: what people call one."""

    thing: str
    folder: str
    seal: str

    def seal_key(self, name: str) -> str:
        """Where the recipe of a table lies in a dataset."""
        return f"{self.folder}/{name}{self.seal}"


SPLIT = Kind("split", "splits", ".split.json")
MASK = Kind("mask", "masks", ".mask.json")
KINDS = (SPLIT, MASK)


def put_named_table(dataset: Storage, kind: Kind, name: str, table: pa.Table, recipe: Mapping[str, Any]) -> bool:
    """Put the table, then its seal with the recipe; False where the name was taken meanwhile."""
    digest = put_table(dataset, kind.folder, table)
    return put_sealed(dataset, kind.seal_key(name), {f"pgm_{kind.thing}": 2, "table": digest, **recipe})


def read_recipe(dataset: Storage, kind: Kind, name: str) -> dict[str, Any]:
    """What a table's seal says, with the table's digest as "table". Raises FileNotFoundError, CorruptStore."""
    return read_sealed(dataset, kind.seal_key(name))


def read_named_table(dataset: Storage, kind: Kind, name: str, digest: str, remedy: str) -> Any:
    """The table of this digest. Raises CorruptStore, which ends in `remedy`, where it is not as it was written."""
    files = f"{dataset.url}/{table_key(kind.folder, digest)} and {dataset.url}/{kind.seal_key(name)}"
    return read_table(dataset, kind.folder, digest, f"Delete {files}, and {remedy}")


def table_names(dataset: Storage, kind: Kind) -> list[str]:
    """The names of a dataset's tables of one kind, sorted."""
    return [name.removesuffix(kind.seal) for name in dataset.names(kind.folder) if name.endswith(kind.seal)]
