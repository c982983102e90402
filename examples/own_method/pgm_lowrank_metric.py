"""A metric to select on, and a callback that ends a stage: `--select-on calibration --callback converged`.

Both decide numbers, so each says its version, and runs carry it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pgm.trainer.head.switches import AboveZero
from pgm.trainer.run.callbacks import Callback, Record
from pgm.trainer.tasks import Columns, Metric

BINS = 10


class CalibrationError(Metric):
    """How far confidence is from accuracy, for tasks with classes."""

    version: ClassVar[int] = 1
    larger_is_better: ClassVar[bool] = False

    def __call__(self, predictions: Columns) -> float:
        return calibration_error(predictions["probabilities"], predictions["target"])


def calibration_error(probabilities: NDArray[np.floating], targets: NDArray[np.integer]) -> float:
    """Mean of |confidence - accuracy| over bins of confidence, by their samples (Guo et al., 2017, eq. 3).

    probabilities: (N, classes); targets: (N,).
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == targets
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    parts = [right[bins == b].mean() - confidence[bins == b].mean() for b in np.unique(bins)]
    shares = [np.mean(bins == b) for b in np.unique(bins)]
    return float(np.dot(shares, np.abs(parts)))


@dataclass(frozen=True)
class Converged(Callback):
    """Ends a stage whose loss has fallen by less than `least` of itself in an epoch, and says how much it fell."""

    version: ClassVar[int] = 1
    least: AboveZero = 0.01

    def metrics(self, history: Sequence[Record]) -> Mapping[str, float]:
        return {"fall": fall} if (fall := fallen(history)) is not None else {}

    def stop(self, history: Sequence[Record]) -> bool:
        return (fall := fallen(history)) is not None and fall < self.least


def fallen(history: Sequence[Record]) -> float | None:
    """The share by which the last epoch's loss is below that of the epoch before; None in a stage's first."""
    losses = [record["losses"]["loss"] for record in history if record["stage"] == history[-1]["stage"]]
    return 1 - losses[-1] / losses[-2] if len(losses) > 1 else None
