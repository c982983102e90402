"""The state of an unfinished run, whole on disk or not there: weights, optimiser, best weights so far, position,
history.

Written at the end of an epoch when the last one is a few seconds old: epochs that are lost are repeated exactly,
because every random number follows from the seed and the epoch (randomness.py), so a rarer checkpoint costs time and
never numbers.
"""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...cache.errors import RunFailed
from .files import write_atomically

NAME = "checkpoint.pt"
Weights = dict[str, Tensor]


@dataclass
class Progress:
    """Where training stands: `epoch` epochs of stage number `stage` are done; history holds one record an epoch."""

    stage: int = 0
    epoch: int = 0
    stale: int = 0  # epochs since the best one
    best: Weights | None = None
    best_val: dict[str, float] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0  # spent in epochs, over all interruptions
    waited: float = 0.0  # of them, waiting for data
    samples: int = 0  # trained on in them


class Checkpoints:
    """The checkpoint file of one run folder.

    At least `every` seconds, and 30 times what the last write took, lie between two writes: never more than 3 % of
    the run.
    """

    def __init__(self, folder: Path, every: float) -> None:
        self.path = folder / NAME
        self.every = every
        self.last = time.monotonic()

    def due(self) -> bool:
        return time.monotonic() - self.last >= self.every

    def save(self, progress: Progress, model: Mapping[str, Tensor], optimiser: Mapping[str, Any] | None) -> None:
        """Replace the checkpoint; on the disk when this returns."""
        started = time.monotonic()
        content = io.BytesIO()
        torch.save({"progress": vars(progress), "model": dict(model), "optimiser": optimiser}, content)
        write_atomically(self.path, content.getvalue(), sync=True)
        self.last = time.monotonic()
        if self.every:
            self.every = max(self.every, 30 * (self.last - started))

    def load(self) -> tuple[Progress, Weights, dict[str, Any] | None] | None:
        """What was saved, or None. Raises RunFailed when the file cannot be read."""
        if not self.path.exists():
            return None
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:
            # torch's own message recommends loading pickles from anywhere; it stays in the chain for whoever debugs.
            raise RunFailed(f"The checkpoint {self.path} is damaged. Train anew with --force.") from error
        return Progress(**state["progress"]), state["model"], state["optimiser"]

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def copied(state: Mapping[str, Tensor]) -> Weights:
    """A state dict on the CPU that later training does not change."""
    return {name: value.detach().to("cpu", copy=True) for name, value in state.items()}
