"""A task's primary metric sample by sample, so that a difference can be tested on exactly what is printed.

A metric is the mean of one or more parts, each the mean of a score over the samples that have one: accuracy has one
part, and all samples; balanced accuracy one a class; cross-modal retrieval has two, one a direction, and in each only
the samples that can be asked for. Whoever draws samples again draws values and counts together, and gets the metric of
what was drawn. A metric that is no such mean, as the area under a curve, is computed anew of every draw.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Columns = Mapping[str, NDArray[Any]]  # of a predictions table: name -> (N,) or (N, d)


@dataclass(frozen=True)
class SampleScores:
    """values (N, K): each sample's score in each part, 0 where it has none. counts (N, K): 1 where it has one."""

    values: NDArray[np.float64]
    counts: NDArray[np.float64]

    @classmethod
    def of_all(cls, values: NDArray[Any]) -> SampleScores:
        """One part, in which every sample has a score; values (N,)."""
        column = values.astype(np.float64)[:, None]
        return cls(column, np.ones_like(column))

    def among(self, end: int, count: int) -> SampleScores:
        """The same of `count` samples, of which these are the last before `end` and the others have no score."""
        room = ((end - len(self.values), count - end), (0, 0))
        return SampleScores(np.pad(self.values, room), np.pad(self.counts, room))

    @property
    def metric(self) -> float:
        """The metric itself; nan where a part has no sample."""
        totals = self.counts.sum(axis=0)
        return float((self.values.sum(axis=0) / totals).mean()) if totals.size and totals.all() else float("nan")

    @property
    def each(self) -> NDArray[np.float64]:
        """(N,) mean over a sample's own parts; nan for a sample that has none."""
        parts = self.counts.sum(axis=1)
        return np.where(parts > 0, self.values.sum(axis=1) / np.maximum(parts, 1), np.nan)


@dataclass(frozen=True)
class Recomputed:
    """of: weights (B, N) of the samples -> the metric (B,), nan where it is not defined. each: (N,) a score a sample,
    which tells hard ones from easy ones, though the metric is not its mean."""

    of: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    each: NDArray[np.float64]

    def among(self, end: int, count: int) -> Recomputed:
        """The same of `count` samples, of which these are the last before `end` and the others do not count."""
        own = slice(end - len(self.each), end)
        each = np.full(count, np.nan)
        each[own] = self.each
        return Recomputed(lambda weights: self.of(weights[:, own]), each)

    @property
    def metric(self) -> float:
        """The metric itself."""
        return float(self.of(np.ones((1, len(self.each))))[0])
