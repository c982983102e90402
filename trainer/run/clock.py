"""How long an epoch takes, and how much of it is waiting for data."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from ..batch import Batch


@dataclass
class Clock:
    """Time of one epoch, and how much of it was spent waiting for the feed."""

    started: float
    waited: float = 0.0
    training: float = 0.0  # seconds until the last step was done; validation comes after
    samples: int = 0

    def timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches; the time until each is there counts as waiting."""
        while True:
            before = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - before
            if batch is None:
                self.training = time.perf_counter() - self.started
                return
            self.samples += len(batch)
            yield batch
