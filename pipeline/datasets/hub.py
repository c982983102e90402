"""A dataset of the Hugging Face hub, or a local one in its format, where the `datasets` library is installed.

Its rows become files and a Parquet table under `data/hub/`, written once; from there on it is a user's own table.
Copying costs disk, and buys that worker processes read plain files and that a later run needs neither the library nor
the network. The folder is named by the whole source and the columns taken of it: two owners' datasets of one name, and
a local dataset that was saved again, never meet.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from ...cache.errors import NotFound, UserError
from ...cache.nearest import did_you_mean
from .table import Columns

TABLE = "table.parquet"


def default_name(name: str) -> str:
    """What a hub dataset is called here: `owner--name`, or a local folder's own name."""
    return Path(name).resolve().name if Path(name).is_dir() else name.replace("/", "--")


def copy_folder(name: str, columns: Columns) -> str:
    """The name of the folder that holds the copy: readable, with a digest of what was copied."""
    hasher = xxhash.xxh3_64(json.dumps([name, columns.named()], sort_keys=True).encode())
    # What `save_to_disk` says of the rows, their fingerprint among it.
    for state in sorted([*Path(name).glob("state.json"), *Path(name).glob("*/state.json")]):
        hasher.update(state.read_bytes())
    return f"{default_name(name)}--{hasher.hexdigest()[:8]}"


def fetch(name: str, columns: Columns, data: Path) -> Path:
    """Write the rows of hub dataset `name` into a folder of their own under `data`/hub and return the table's path; at
    once if it is there.

    Raises UserError where the library is not installed, NotFound where it cannot load the dataset.
    """
    folder = data / "hub" / copy_folder(name, columns)
    table = folder / TABLE
    if table.exists():
        return table
    if importlib.util.find_spec("datasets") is None:
        raise UserError("--hf reads through the datasets library, which is not installed: pip install 'pgm[hf]'")
    datasets = importlib.import_module("datasets")
    local = Path(name)
    try:
        splits = datasets.load_from_disk(name) if local.is_dir() else datasets.load_dataset(name)
    except (OSError, ValueError) as error:
        raise NotFound(f"The datasets library could not load {name!r}: {str(error).splitlines()[0]}") from error
    if not isinstance(splits, datasets.DatasetDict):
        splits = {"train": splits}
    folder.mkdir(parents=True, exist_ok=True)
    rows = [row for split, dataset in splits.items() for row in _rows(datasets, dataset, split, columns, folder)]
    partial = table.with_suffix(".partial")
    pq.write_table(pa.Table.from_pylist(rows), partial)
    partial.rename(table)
    return table


def _rows(datasets: Any, dataset: Any, split: str, columns: Columns, folder: Path) -> Iterator[dict[str, Any]]:
    """The named columns of each row, media as paths; without a split column of its own, the split it lies in."""
    media = [column for column in (columns.image, columns.audio, columns.video) if column]
    wanted = [column for role, column in columns.named().items() if role != "split" or column in dataset.column_names]
    for column in wanted:
        if column not in dataset.column_names:
            hint = did_you_mean(column, dataset.column_names)
            raise UserError(f"The dataset has no column {column!r}.{hint} It has: {', '.join(dataset.column_names)}.")
    dataset = dataset.select_columns(wanted)
    for column in media:
        if hasattr(dataset.features[column], "decode"):
            # The stored bytes as they are: decoding is this package's business, with its own limits.
            dataset = dataset.cast_column(column, type(dataset.features[column])(decode=False))
    features: Mapping[str, Any] = dataset.features
    names = {column: feature.names for column, feature in features.items() if isinstance(feature, datasets.ClassLabel)}
    for number, row in enumerate(dataset):
        kept = {key: names[key][value] if key in names and value is not None else value for key, value in row.items()}
        for column in media:
            kept[column] = _written(kept[column], folder, f"{split}-{number:06d}-{column}")
        yield {(columns.split or "split"): split, **kept}


def _written(value: Any, folder: Path, stem: str) -> str | None:
    """A medium's bytes as a file; its path relative to the folder."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        data = value.get("bytes") or Path(value["path"]).read_bytes()
        suffix = Path(value.get("path") or "").suffix
    else:
        data, suffix = Path(str(value)).read_bytes(), Path(str(value)).suffix
    name = f"media/{stem}{suffix}"
    (folder / "media").mkdir(exist_ok=True)
    (folder / name).write_bytes(data)
    return name
