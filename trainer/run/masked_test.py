"""A finished run on the test split with modalities taken away: evaluated once a mask, and kept in the run's folder.

test-<mask>.json            metrics, and what was hidden; sealed and written last
predictions-test-<mask>.parquet

No mask of the test split is part of a run's identity: a run trained on whole samples is tested at every rate. What is
kept is used again only for the same cells hidden in the same way; anything else is evaluated anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...cache.errors import CorruptStore
from ..data.dataset import TrainingData
from ..data.missing import Missing, described, mask_of, without
from .evaluation import evaluate
from .files import read_sealed_json, write_sealed_json
from .inference import load
from .lock import RunLock
from .predictions import predictions_table, write_predictions
from .request import Resolved
from .runs import Run


@dataclass(frozen=True)
class SplitMask:
    """One mask of the test split. cells: what `described` says of it, None where it hides nothing."""

    missing: Missing
    cells: Mapping[str, Any] | None

    def file(self, run: Run) -> Path:
        """Where a run keeps what came out."""
        return run.path / f"test-{self.missing.name}.json"

    def predictions_path(self, run: Run) -> Path:
        """The predictions under this mask; those of the run's own test where nothing is hidden."""
        return run.predictions_path("test" if self.cells is None else f"test-{self.missing.name}")

    def metrics(self, run: Run) -> dict[str, float] | None:
        """The finished run's metrics under this mask; None where it was not evaluated under these cells."""
        if self.cells is None:
            return run.test
        try:
            kept = read_sealed_json(self.file(run))
        except (FileNotFoundError, CorruptStore):
            # It can be had again from the weights, so damage costs an evaluation and nothing else.
            return None
        return dict(kept["metrics"]) if kept["missing"] == self.cells and self.predictions_path(run).exists() else None


@dataclass(frozen=True)
class MaskedTests:
    """What a table of missing modalities measures of a run: its test under every mask."""

    masks: tuple[SplitMask, ...]

    def there(self, run: Run) -> bool:
        """Whether the finished run was evaluated under all of them."""
        return all(mask.metrics(run) is not None for mask in self.masks)

    def make(self, resolved: Resolved) -> None:
        """Evaluate the finished run under those it was not evaluated under."""
        run = resolved.run
        lock = RunLock(run.path)
        lock.acquire()
        try:
            for mask in self.masks:
                if mask.metrics(run) is None:
                    evaluate_under(resolved, mask)
        finally:
            lock.release()


def split_mask(data: TrainingData, missing: Missing) -> SplitMask:
    """The mask of the test split of this data."""
    return SplitMask(missing, described(mask_of(data, missing), missing, "test"))


def evaluate_under(resolved: Resolved, mask: SplitMask) -> None:
    """Evaluate a finished run on the test split under one mask, and keep what came out."""
    run, data, missing = resolved.run, resolved.data, mask.missing
    loaded = load(run, str(resolved.device), data.task)
    rows = data.splits["test"]
    shown = without(data.features, mask_of(data, missing).of("test"), missing.fill)
    feed = loaded.feed("auto", shown, rows, data.targets[rows], data.samples)
    found = evaluate(loaded.model, data.task, feed, loaded.machine)
    table = predictions_table(data.task, [data.ids[row] for row in rows], found.views, found.targets)
    write_predictions(mask.predictions_path(run), table)
    write_sealed_json(mask.file(run), {"run": run.id, "missing": dict(mask.cells or {}), "metrics": found.metrics})
