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
Row = Mapping[str, Any]


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
    rows = read_rows(path)
    _check_columns(path, rows, columns)
    folder = (root or path.parent).expanduser().absolute()
    media = _media(rows, columns, folder)
    classes, labels = _labels(rows, columns.label, task)
    groups = [_text(row, columns.group) for row in rows] if columns.group else None
    splits, note = _splits(rows, columns.split, labels if classes else None, groups)
    ids = [_text(row, columns.id) for row in rows] if columns.id else [f"{row:06d}" for row in range(len(rows))]
    table: dict[str, Any] = {"id": ids, "split": splits}
    if labels is not None:
        table["label"] = labels
    if groups is not None:
        table["group"] = groups
    samples = pa.table(table)
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


def read_rows(path: Path) -> list[Row]:
    """The table's rows as mappings from column to value; in CSV and TSV every value is text, so that id 007 stays
    007."""
    if not path.is_file():
        raise NotFound(f"There is no table {path}. Give a .csv, .tsv, .jsonl or .parquet file, or a dataset's name.")
    kind = path.suffix.lower()
    try:
        if kind == ".parquet":
            rows: list[Row] = pq.read_table(path).to_pylist()
        elif kind == ".jsonl":
            rows = [json.loads(line) for line in decode_text(path.read_bytes()).splitlines() if line.strip()]
        else:
            text = io.StringIO(decode_text(path.read_bytes()), newline="")
            # A cell may be a whole book; the table is in memory already.
            csv.field_size_limit(LONGEST_CELL)
            rows = list(csv.DictReader(text, delimiter="\t" if kind == ".tsv" else ","))
    except (pa.ArrowInvalid, json.JSONDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not readable as {kind[1:]}: {error}") from error
    if not rows:
        raise UserError(f"{path} has no rows: a dataset needs at least one sample.")
    return rows


def _check_columns(path: Path, rows: Sequence[Row], columns: Columns) -> None:
    there = [str(name) for name in rows[0]]
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


def _media(rows: Sequence[Row], columns: Columns, root: Path) -> dict[str, list[Media | None]]:
    media: dict[str, list[Media | None]] = {}
    if columns.text:
        # An empty text is a text; only a missing value is none.
        values = [row.get(columns.text) for row in rows]
        media["text"] = [None if value is None else TextMedia(str(value)) for value in values]
    for modality, column in (
        ("audio", columns.audio or columns.video),
        ("vision", columns.image or columns.video),
        *columns.series,
    ):
        if column:
            media[modality] = [_file(_text(row, column), root, number) for number, row in enumerate(rows)]
    return media


def _file(relative: str, root: Path, number: int) -> FileMedia | None:
    if not relative:
        return None
    return FileMedia(str(inside(root, relative, f"Row {number + 1}")))


def _labels(rows: Sequence[Row], column: str | None, task: str) -> tuple[tuple[str, ...], Any]:
    """Class names and the label column: class numbers, or the scores themselves (`labels_are_scores`)."""
    if column is None:
        return (), None
    values = [_text(row, column) for row in rows]
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
    rows: Sequence[Row], column: str | None, labels: Any, groups: Sequence[str] | None
) -> tuple[list[str], str]:
    """Each row's split, and a note where it had to be drawn."""
    if column:
        values = [_text(row, column).lower() for row in rows]
        if unknown := sorted(set(values) - set(SPLIT_NAMES)):
            raise UserError(
                f"Column {column!r} holds {', '.join(map(repr, unknown))}; splits are {', '.join(SPLIT_NAMES)}."
            )
        return [SPLIT_NAMES[value] for value in values], ""
    splits, how = draw_splits(len(rows), labels, groups)
    return splits, f"No split column: 70/10/20 drawn {how} with seed {SEED}."


def _text(row: Row, column: str | None) -> str:
    value = row.get(column) if column else None
    return "" if value is None else str(value).strip()
