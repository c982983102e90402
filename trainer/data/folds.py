"""Cross-validation: a fold is a split of the dataset, and its name says which: `fold:0/5:group`.

Fold k tests, fold k + 1 validates, the others train; the dataset's own splits are not used. The folds are the dataset's
own (its column `fold`), or drawn by scikit-learn: whole groups, stratified by class where there are classes, or
stratified, or at random. So a fold stands wherever a split does: in a run's name, in `--split`, in what `pgm evaluate`
opens again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...cache import DatasetCard
from ...cache.errors import NotFound, UserError
from ...cache.nearest import did_you_mean

BY = ("own", "group", "label", "random")
FEWEST = 3  # one tests, one validates, one trains
NAME = re.compile(r"fold:(\d+)/(\d+):([a-z]+)(?::(\d+))?")
Folds = NDArray[np.int64]


@dataclass(frozen=True)
class Fold:
    """One of `of` folds, counted from 0. by: one of `BY`; seed: of the drawing. Raises UserError for what is none."""

    number: int
    of: int
    by: str
    seed: int = 0

    def __post_init__(self) -> None:
        check_by(self.by)
        if self.of < FEWEST or self.number >= self.of:
            raise UserError(f"{self.name}: folds are counted from 0, and there are {FEWEST} or more.")

    @property
    def name(self) -> str:
        """What `--split` calls it."""
        return f"fold:{self.number}/{self.of}:{self.by}" + (f":{self.seed}" if self.seed else "")

    @property
    def note(self) -> str:
        """What a reader must know; the same of every fold."""
        how = "the dataset's own folds" if self.by == "own" else f"folds by {self.by}, seed {self.seed}"
        return (
            f"Cross-validation, {self.of} folds ({how}): one tests, the next validates, the others train; "
            "the dataset's own splits are not used."
        )

    def column(self, samples: pa.Table, card: DatasetCard) -> pa.Array:
        """(N,) train, val or test. Raises UserError where the samples have no such folds."""
        after = (folds_of(samples, card, self) - self.number) % self.of
        return pa.array(np.where(after == 0, "test", np.where(after == 1, "val", "train")).tolist(), pa.string())


@dataclass(frozen=True)
class CrossValidation:
    """All folds: of the dataset's own where `of` is 0. by: "" for groups where there are groups, else stratified."""

    of: int = 0
    by: str = ""
    seed: int = 0

    def folds(self, samples: pa.Table, card: DatasetCard) -> tuple[Fold, ...]:
        """Every fold. Raises UserError where the samples have no such folds."""
        by = self.by or ("own" if not self.of else "group" if "group" in samples.column_names else "label")
        of = self.of or int(own_folds(samples, card).max()) + 1
        return tuple(Fold(number, of, by, self.seed) for number in range(of))


def cross_validation(folds: str | int | None, by: str | None) -> CrossValidation | None:
    """--folds and --by as one. Raises UserError for what they do not take."""
    if folds is None:
        if by is not None:
            raise UserError("--by says how --folds are drawn; without it there are none.")
        return None
    if by is not None:
        check_by(by)
    if str(folds) == "own":
        if by not in (None, "own"):
            raise UserError(f"--folds own takes the dataset's; --by {by} is for folds that are drawn.")
        return CrossValidation()
    if not str(folds).isdecimal() or int(folds) < FEWEST:
        raise UserError(f"--folds is own, or {FEWEST} or more (one tests, one validates), not {folds}.")
    return CrossValidation(int(folds), by or "")


def check_by(by: str) -> None:
    """Raise UserError for another way to draw folds."""
    if by not in BY:
        raise UserError(f"Folds are drawn by {', '.join(BY)}, not {by!r}.{did_you_mean(by, BY)}")


def fold_of(name: str) -> Fold | None:
    """The fold that a split's name says; None for a split that is none. Raises UserError for a wrong one."""
    found = NAME.fullmatch(name)
    if found is None:
        return None
    number, of, by, seed = found.groups()
    return Fold(int(number), int(of), by, int(seed or 0))


def own_folds(samples: pa.Table, card: DatasetCard) -> Folds:
    """(N,) the dataset's own folds. Raises NotFound where it has none."""
    if "fold" not in samples.column_names:
        raise NotFound(f"{card.name} has no folds of its own (a column `fold`). Draw them: --folds 5 --by group")
    return np.asarray(samples["fold"].to_numpy(), np.int64)


def folds_of(samples: pa.Table, card: DatasetCard, fold: Fold) -> Folds:
    """(N,) which fold tests each sample. Raises UserError where they cannot be drawn so."""
    if fold.by == "own":
        known = own_folds(samples, card)
        if int(known.max()) + 1 != fold.of:
            raise UserError(f"{card.name} has {int(known.max()) + 1} folds of its own, not {fold.of}.")
        return known
    from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

    labels: NDArray[Any] = samples[card.label_column].to_numpy()
    stratified, how = labels.dtype.kind in "iub", {"n_splits": fold.of, "shuffle": True, "random_state": fold.seed}
    groups = None
    if fold.by == "group":
        if "group" not in samples.column_names:
            raise UserError(f"{card.name} has no groups to draw folds by; use --by label or --by random.")
        groups = samples["group"].to_pylist()
        if len(set(groups)) < fold.of:
            raise UserError(f"{card.name} has {len(set(groups))} groups, too few for {fold.of} folds.")
        drawing = (StratifiedGroupKFold if stratified else GroupKFold)(**how)
    else:
        drawing = (StratifiedKFold if stratified and fold.by == "label" else KFold)(**how)
    found = np.zeros(len(labels), np.int64)
    for number, (_, test) in enumerate(drawing.split(labels, labels, groups)):
        found[test] = number
    return found
