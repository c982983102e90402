"""Named tables beside a dataset's features: a Parquet file, and a sealed JSON that says how it was made.

<kind>/<name>.parquet holds a row a sample, in the order of samples.parquet; <name><seal> carries the recipe and the
table's checksum, and is written last: without it there is no such table.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from .durable import FileRecord, read_sealed_json, record_file, write_sealed_json
from .errors import CorruptStore
from .items import read_table, write_table

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


def seal_path(dataset: Path, kind: Kind, name: str) -> Path:
    """Where the table's recipe lies in a dataset's folder."""
    return dataset / kind.folder / f"{name}{kind.seal}"


def write_sealed_table(dataset: Path, kind: Kind, name: str, table: pa.Table, recipe: Mapping[str, Any]) -> None:
    """Write the table, then its seal with the recipe."""
    seal = seal_path(dataset, kind, name)
    seal.parent.mkdir(exist_ok=True)
    write_table(seal.with_name(f"{name}{TABLE}"), table)
    files = [record_file(seal.parent, f"{name}{TABLE}").as_list()]
    write_sealed_json(seal, {f"pgm_{kind.thing}": 1, "files": files, **recipe}, sync=True)


def read_sealed_table(dataset: Path, kind: Kind, name: str, remedy: str) -> pa.Table:
    """The table, after its checksum. Raises CorruptStore, which ends in `remedy`, where either file has changed."""
    seal = seal_path(dataset, kind, name)
    for file in (FileRecord(*entry) for entry in read_sealed_json(seal)["files"]):
        if not (seal.parent / file.name).exists() or record_file(seal.parent, file.name) != file:
            raise CorruptStore(
                f"{seal.parent / file.name} is missing or not as it was written. Delete {seal} and {remedy}"
            )
    return read_table(seal.with_name(f"{name}{TABLE}"))


def table_names(dataset: Path, kind: Kind) -> list[str]:
    """The names of a dataset's tables of one kind, sorted."""
    return sorted(path.name.removesuffix(kind.seal) for path in (dataset / kind.folder).glob(f"*{kind.seal}"))


def sealed_files(dataset: Path, kind: Kind) -> list[Path]:
    """Every file of one kind's tables in a dataset's folder."""
    return sorted(path for end in (TABLE, kind.seal) for path in (dataset / kind.folder).glob(f"*{end}"))
