"""Splits where a dataset brings none: 70/10/20 with a fixed seed, so that the same rows give the same splits
everywhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.model_selection import GroupShuffleSplit, train_test_split

SEED = 20251027
TEST, VAL_OF_REST = 0.2, 0.125


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


def _drawn(rows: np.ndarray, share: float, labels: Any, groups: Sequence[str] | None) -> tuple[np.ndarray, np.ndarray]:
    """(kept, drawn) rows."""
    of_rows = np.array(groups)[rows] if groups else rows
    if len(set(of_rows.tolist())) < 3:
        return rows, rows[:0]
    if groups:
        first, second = next(GroupShuffleSplit(1, test_size=share, random_state=SEED).split(rows, groups=of_rows))
        return rows[first], rows[second]
    stratify = np.array(labels)[rows] if _stratifiable(labels, rows, share) else None
    first, second = train_test_split(rows, test_size=share, random_state=SEED, stratify=stratify)
    return np.sort(first), np.sort(second)


def _stratifiable(labels: Any, rows: np.ndarray, share: float) -> bool:
    """Whether every class can be in both parts."""
    if labels is None:
        return False
    counts = Counter(np.array(labels)[rows].tolist())
    return min(counts.values()) > 1 and len(rows) * min(share, 1 - share) >= len(counts)
