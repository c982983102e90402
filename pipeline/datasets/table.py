"""A user's own data: a CSV, TSV, JSONL or Parquet table of texts, paths and labels, one row a sample.

    title,path,class,split
    Sushi at home,images/001.jpg,sushi,train

Paths are relative to the root (by default the table's folder) and must stay under it. An empty cell is a missing
modality. Without a split column the rows are split 70/10/20 with a fixed seed, stratified by label, or by group where
there is one.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...cache.dataset import DatasetCard
from ...cache.errors import NotFound, UserError
from ...cache.nearest import did_you_mean
from ..collection import Collection, count_splits
from ..decode import decode_text
from ..media import FileMedia, Media, TextMedia
from ..tasks import METRICS, checked_task, labels_are_scores
from .reading import inside
from .splitting import SEED, SPLIT_NAMES, draw_splits

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
LONGEST_CELL = 1 << 30
Table = Mapping[str, Sequence[Any]]  # columns by name: a million rows as mappings take seconds


@dataclass(frozen=True)
class Columns:
    """Which column of the table is what. A video gives frames to vision and its sound track to audio; `series` are
    modalities of their own, each with its column of files."""

    text: str | None = None
    image: str | None = None
    audio: str | None = None
    video: str | None = None
    label: str | None = None
    split: str | None = None
    id: str | None = None
    group: str | None = None
    series: tuple[tuple[str, str], ...] = ()

    def named(self) -> dict[str, str]:
        """The columns that were given, by role; a series' role is `series NAME`."""
        single = {role: name for role, name in vars(self).items() if role != "series" and name is not None}
        return {**single, **{f"series {modality}": column for modality, column in self.series}}


def is_table(name: str) -> bool:
    """Whether DATASET on the command line names a table rather than a known dataset."""
    return name.lower().endswith(SUFFIXES)


def load_table(
    path: Path, columns: Columns, root: Path | None = None, name: str | None = None, task: str = "classification"
) -> Collection:
    """The samples of a table.

    Raises NotFound for a file or column that is not there, and UserError for a table that cannot be a dataset: no
    medium column, no rows, a path that leaves the root, an unknown split, a label that does not fit the task.
    """
    checked_task(task)
    table = read_columns(path)
    _check_columns(path, table, columns)
    count = len(next(iter(table.values())))
    folder = (root or path.parent).expanduser().absolute()
    media = _media(table, columns, folder)
    classes, labels = _labels(table, columns.label, task)
    groups = _texts(table[columns.group]) if columns.group else None
    splits, note = _splits(table, columns.split, count, labels if classes else None, groups)
    ids = _texts(table[columns.id]) if columns.id else [f"{row:06d}" for row in range(count)]
    kept: dict[str, Any] = {"id": ids, "split": splits}
    if labels is not None:
        kept["label"] = labels
    if groups is not None:
        kept["group"] = groups
    samples = pa.table(kept)
    card = DatasetCard(
        name=name or path.stem,
        task=task,
        classes=classes,
        metrics=METRICS.get(task, ()),
        splits=count_splits(samples),
        source={"table": path.name, "columns": columns.named()},
        notes=(note,) if note else (),
    )
    return Collection(card, samples, media)


def read_columns(path: Path) -> Table:
    """The table's columns, None where a row has no value; in CSV and TSV every value is text, so that id 007 stays
    007. Raises NotFound, and UserError for what is no such table or has no rows."""
    if not path.is_file():
        raise NotFound(f"There is no table {path}. Give a .csv, .tsv, .jsonl or .parquet file, or a dataset's name.")
    kind = path.suffix.lower()
    try:
        if kind == ".parquet":
            read = pq.read_table(path)
            table: Table = {name: read.column(name).to_pylist() for name in read.column_names}
        elif kind == ".jsonl":
            rows = [json.loads(line) for line in decode_text(path.read_bytes()).splitlines() if line.strip()]
            table = {str(name): [row.get(name) for row in rows] for name in (rows[0] if rows else ())}
        else:
            table = _delimited(decode_text(path.read_bytes()), "\t" if kind == ".tsv" else ",")
    except (pa.ArrowInvalid, json.JSONDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not readable as {kind[1:]}: {error}") from error
    if not any(table.values()):
        raise UserError(f"{path} has no rows: a dataset needs at least one sample.")
    return table


def _delimited(content: str, delimiter: str) -> Table:
    """The columns of a text with a header; blank lines are no rows, and what stands beyond the last column is none."""
    # A cell may be a whole book; the table is in memory already.
    csv.field_size_limit(LONGEST_CELL)
    lines = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter)
    names = next(lines, [])
    rows = [line if len(line) == len(names) else [*line, *[None] * len(names)] for line in lines if line]
    return {name: [row[at] for row in rows] for at, name in enumerate(names)}


def _check_columns(path: Path, table: Table, columns: Columns) -> None:
    there = list(table)
    for role, name in columns.named().items():
        if name not in there:
            hint = did_you_mean(name, there)
            option = f"--{role.split()[0]}-column"
            raise NotFound(f"{option} {name}: {path} has no such column.{hint} It has: {', '.join(there)}.")
    if not any((columns.text, columns.image, columns.audio, columns.video, columns.series)):
        raise UserError(
            f"Which columns of {path} hold the media? Name at least one of --text-column, --image-column, "
            f"--audio-column, --video-column, --series-column. It has: {', '.join(there)}."
        )


def _media(table: Table, columns: Columns, root: Path) -> dict[str, list[Media | None]]:
    media: dict[str, list[Media | None]] = {}
    if columns.text:
        # An empty text is a text; only a missing value is none.
        media["text"] = [None if value is None else TextMedia(str(value)) for value in table[columns.text]]
    for modality, column in (
        ("audio", columns.audio or columns.video),
        ("vision", columns.image or columns.video),
        *columns.series,
    ):
        if column:
            media[modality] = _files(_texts(table[column]), root)
    return media


def _files(names: Sequence[str], root: Path) -> list[Media | None]:
    """Files below the root, None where a row names none. Raises UserError for one that lies outside."""
    base = os.path.normpath(root)
    below = base.rstrip(os.sep) + os.sep
    found: list[Media | None] = []
    for number, name in enumerate(names):
        path = os.path.normpath(os.path.join(base, name))
        if name and not path.startswith(below):
            path = str(inside(root, name, f"Row {number + 1}"))
        found.append(FileMedia(path) if name else None)
    return found


def _labels(table: Table, column: str | None, task: str) -> tuple[tuple[str, ...], Any]:
    """Class names and the label column: class numbers, or the scores themselves (`labels_are_scores`)."""
    if column is None:
        return (), None
    values = _texts(table[column])
    if "" in values:
        raise UserError(f"Row {values.index('') + 1} has no label in column {column!r}. Every sample needs one.")
    try:
        numbers = np.array(values, np.float64)
    except ValueError as error:
        if task == "sentiment":
            raise UserError(f"--task sentiment needs numbers in column {column!r}: {error}") from error
    else:
        if labels_are_scores(task, numbers):
            return (), pa.array(numbers, pa.float32())
    classes = tuple(sorted(set(values)))
    number = {name: place for place, name in enumerate(classes)}
    return classes, pa.array([number[value] for value in values], pa.int32())


def _splits(
    table: Table, column: str | None, count: int, labels: Any, groups: Sequence[str] | None
) -> tuple[list[str], str]:
    """Each row's split, and a note where it had to be drawn."""
    if column:
        values = [value.lower() for value in _texts(table[column])]
        if unknown := sorted(set(values) - set(SPLIT_NAMES)):
            raise UserError(
                f"Column {column!r} holds {', '.join(map(repr, unknown))}; splits are {', '.join(SPLIT_NAMES)}."
            )
        return [SPLIT_NAMES[value] for value in values], ""
    splits, how = draw_splits(count, labels, groups)
    return splits, f"No split column: 70/10/20 drawn {how} with seed {SEED}."


def _texts(values: Sequence[Any]) -> list[str]:
    """Each value as text without space around it, "" where there is none."""
    return ["" if value is None else value.strip() if type(value) is str else str(value).strip() for value in values]
