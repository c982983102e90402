"""What every layout turns its files into, and what one writer puts into the cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "tr"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "te"), "test"),
}


@dataclass(frozen=True, eq=False)
class PackedTokens:
    """One modality without padding: tokens (T, D), all samples' one after another; lengths (N,), 0 where missing.

    source: what stands in the store's identity: the file's digest, and whatever else decided the numbers.
    """

    tokens: NDArray[Any]
    lengths: NDArray[np.int64]
    source: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Imported:
    """N samples of one dataset: one row a sample in every field.

    labels: (N,) names, class numbers or scores. splits: None where the file has none, and they are to be drawn.
    folds: the dataset's own, counted from 0. metric: what rows are compared on, None for the task's own.
    notes end up in the dataset's card; warnings do too, and are said loudly.
    """

    modalities: Mapping[str, PackedTokens]
    labels: NDArray[Any]
    ids: Sequence[str]
    splits: Sequence[str] | None = None
    groups: Sequence[str] | None = None
    task: str | None = None
    classes: Sequence[str] | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    metric: str | None = None
    folds: Sequence[int] | None = None


@dataclass(frozen=True)
class Options:
    """What the command line may add to a layout.

    labels: a table of ids, splits and labels. split: a table of ids (or videos) and splits. split_column: which of the
    file's splits. modalities: names for the files, in their order, or which of the file's modalities to take.
    """

    labels: Path | None = None
    split: Path | None = None
    split_column: str | None = None
    modalities: tuple[str, ...] = ()
    task: str | None = None
