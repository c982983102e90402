"""Splits where a dataset brings none, or no validation: drawn with a fixed seed, so that the same rows give the same
splits everywhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

SEED = 20251027
TEST, VAL_OF_REST = 0.2, 0.125
LARGEST_VALIDATION = 0.1
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "eval"), "test"),
}


def draw_splits(count: int, labels: Any, groups: Sequence[str] | None) -> tuple[list[str], str]:
    """Each of `count` rows' split, and how it was drawn: whole groups where there are any, else stratified by label.

    Fewer than three rows, or groups, all train: there is nothing to hold out.
    """
    splits = np.full(count, "train", dtype=object)
    everything = np.arange(count)
    rest, test = _drawn(everything, TEST, labels, groups)
    _, val = _drawn(rest, VAL_OF_REST, labels, groups)
    splits[val], splits[test] = "val", "test"
    how = "by group" if groups else "stratified by label" if _stratifiable(labels, everything, TEST) else "at random"
    return splits.tolist(), how


def carve_validation(
    splits: Sequence[str], labels: Any, groups: Sequence[str] | None = None, wanted: int | None = None
) -> tuple[list[str], str]:
    """`splits` with some of train turned to val, and a note that says so; as they are where there is val already.

    wanted: how many samples, at most (and by default) a tenth of train. Whole groups where there are any, which makes
    the number approximate; else stratified by label where every class can be in both parts.
    """
    if "val" in splits:
        return list(splits), ""
    train = np.flatnonzero(np.array(splits) == "train")
    size = round(LARGEST_VALIDATION * len(train))
    size = max(min(size, size if wanted is None else wanted), 1)
    _, val = _drawn(train, size, labels, groups)
    carved = np.array(splits, dtype=object)
    carved[val] = "val"
    how = "by group" if groups else "stratified by label" if _stratifiable(labels, train, size) else "at random"
    if not len(val):
        return carved.tolist(), "There is no validation split, and too little to carve one from."
    note = f"No validation split comes with it: {len(val):,} of {len(train):,} training samples validate, drawn {how}"
    return carved.tolist(), f"{note} with seed {SEED}."


def _drawn(
    rows: np.ndarray, size: float | int, labels: Any, groups: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray]:
    """(kept, drawn) rows; `size` is a share, or a number of rows."""
    from sklearn.model_selection import GroupShuffleSplit, train_test_split

    of_rows = np.array(groups)[rows] if groups else rows
    if len(set(of_rows.tolist())) < 3:
        return rows, rows[:0]
    if groups:
        share = size if isinstance(size, float) else size / len(rows)
        first, second = next(GroupShuffleSplit(1, test_size=share, random_state=SEED).split(rows, groups=of_rows))
        return rows[first], rows[second]
    stratify = np.array(labels)[rows] if _stratifiable(labels, rows, size) else None
    first, second = train_test_split(rows, test_size=size, random_state=SEED, stratify=stratify)
    return np.sort(first), np.sort(second)


def _stratifiable(labels: Any, rows: np.ndarray, size: float | int) -> bool:
    """Whether every class can be in both parts."""
    if labels is None:
        return False
    counts = Counter(np.array(labels)[rows].tolist())
    share = size if isinstance(size, float) else size / len(rows)
    return min(counts.values()) > 1 and len(rows) * min(share, 1 - share) >= len(counts)
