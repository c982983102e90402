"""A table beside the features: which sample has which split, label and group.

A .csv, .tsv, .jsonl or .parquet file with columns named id, split, label and group, or as the public releases call
them (video_id and clip_id make `<video>_<clip>`, mode is a split, and so on).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...cache.errors import NotFound, UserError
from .imported import SPLIT_NAMES

NAMES = {
    "id": ("id", "ids", "name", "sample", "clip", "filename", "file"),
    "split": ("split", "mode", "set", "partition", "subset"),
    "label": ("label", "labels", "emotion", "sentiment", "class", "score"),
    "group": ("group", "video_id", "video", "dialogue", "dialogue_id", "speaker"),
}


@dataclass(frozen=True)
class LabelTable:
    """The rows of one table; `columns` maps id, split, label and group to what the file calls them."""

    path: Path
    rows: Sequence[Mapping[str, Any]]
    columns: Mapping[str, str]

    def texts(self, role: str) -> list[str]:
        """(N,) one column as text. Raises NotFound, with the columns there are, where the table has no such column."""
        if role == "id" and "id" not in self.columns and {"video_id", "clip_id"} <= {*self.rows[0]}:
            return [f"{row['video_id']}_{row['clip_id']}" for row in self.rows]
        if role not in self.columns:
            raise NotFound(
                f"{self.path.name} has no column for the {role} of a sample ({' or '.join(NAMES[role])}); it has "
                f"{', '.join(map(str, self.rows[0]))}."
            )
        return ["" if row[self.columns[role]] is None else str(row[self.columns[role]]).strip() for row in self.rows]

    def optional(self, role: str) -> list[str] | None:
        """The same, or None where there is no such column."""
        return self.texts(role) if role in self.columns else None

    def labels(self) -> NDArray[Any]:
        """(N,) numbers where every label is one, else names. Raises UserError for a row without a label."""
        values = self.texts("label")
        if "" in values:
            raise UserError(f"Row {values.index('') + 1} of {self.path.name} has no label. Every sample needs one.")
        for kind in (np.int64, np.float64):
            try:
                return np.array([kind(value) for value in values])
            except ValueError:
                continue
        return np.array(values)

    def splits(self) -> list[str] | None:
        """(N,) train, val or test, as the table spells it; None without such a column. UserError for another word."""
        values = self.optional("split")
        if values is None:
            return None
        if unknown := sorted({value for value in values if value.lower() not in SPLIT_NAMES}):
            raise UserError(
                f"{self.path.name} has the split {unknown[0]!r}; splits are train, val (or valid, dev) and test."
            )
        return values


def read_label_table(path: Path, split_column: str | None = None) -> LabelTable:
    """A table and what its columns are. Raises NotFound and UserError."""
    from ..datasets.table import read_columns

    table = read_columns(path)
    rows = [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]
    there = {str(name).strip().lower(): str(name) for name in rows[0]}
    columns = {role: next((there[name] for name in names if name in there), None) for role, names in NAMES.items()}
    if split_column is not None:
        if split_column not in rows[0]:
            raise NotFound(f"{path.name} has no column {split_column!r}; it has {', '.join(map(str, rows[0]))}.")
        columns["split"] = split_column
    return LabelTable(path, rows, {role: name for role, name in columns.items() if name is not None})
