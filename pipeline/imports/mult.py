"""The pickles of MulT (mosi_data.pkl, mosi_data_noalign.pkl, mosei_senti_data*.pkl).

    {"train", "valid", "test"} -> text, audio, vision (N, S, D), labels (N, 1, 1), id (N, 3): name, start, end, as bytes

Padded at the FRONT, which the zero frames show. Where names repeat (MOSEI's are videos), the start and end of the
segment make them unique, and the video is the group.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from .arrays import text_of
from .containers import Opened
from .imported import Imported, Options, PackedTokens
from .split_pickles import column_of, packed_modality, parts_of, present, stacked

SEGMENT = re.compile(r"(?:_\d+|\[\d+\])$")


def recognises(files: Sequence[Opened]) -> bool:
    """Whether the one file is a MulT pickle."""
    parts = parts_of(files)
    return bool(parts) and all("labels" in part and "regression_labels" not in part for _, part in parts)


def read(files: Sequence[Opened], options: Options) -> Imported:
    """The samples of a MulT pickle."""
    file, parts = files[0], parts_of(files)
    modalities: dict[str, PackedTokens] = {}
    notes: list[str] = []
    for name in present(parts, options.modalities):
        modalities[name], stripped = packed_modality(file, parts, "mult", name, [None] * len(parts))
        notes += stripped.said(name)
    labels = stacked(column_of(parts, "labels", file))
    splits = [split for split, part in parts for _ in range(len(part["labels"]))]
    ids, groups = names_of(column_of(parts, "id", file) if all("id" in part for _, part in parts) else [], splits)
    if labels.dtype.kind == "f":
        return Imported(modalities, labels, ids, splits, groups, "sentiment", notes=tuple(notes))
    return Imported(modalities, labels, ids, splits, groups, options.task, notes=tuple(notes))


def names_of(values: Sequence[Any], splits: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """Unique ids and the video of each sample; numbers and no videos where the file names none."""
    rows = [[text_of(cell) for cell in np.ravel(np.asarray(row, object))] for part in values for row in part]
    if len(rows) != len(splits):
        return [f"{split}_{row:05d}" for row, split in enumerate(splits)], None
    names = [row[0] for row in rows]
    if len(set(names)) == len(names):
        return names, [SEGMENT.sub("", name) for name in names]
    return ["_".join(row) for row in rows], names
