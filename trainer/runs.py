"""Runs on disk: one folder a run, named by the content of what was asked.

runs/<hash>/
  config.json            what decides the numbers: dataset digest, stores, method, protocol, seed; the hash is over it
  environment.json       what should not: versions, device, threads, paths, the command
  metrics.jsonl          one line an epoch: stage, epoch, losses, validation metrics, gradient norms by modality
  checkpoint.pt          while unfinished
  weights.safetensors    the selected weights
  predictions-val.parquet, predictions-test.parquet
  result.json            written last: a run with it is finished
  laziness-1.json        what pgm table balance measured of the finished run (laziness.py)
  test-<mask>.json       the test split with modalities missing, and predictions-test-<mask>.parquet (masked_test.py)
runs/stages/<hash>/      outcomes of stages that runs share (see stages.py)
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..cache.errors import NotFound, UserError
from ..cache.store.identity import canonical_json, field_differences
from .files import read_json
from .switches import nearest

CONFIG = "config.json"
RESULT = "result.json"
METRICS = "metrics.jsonl"
WEIGHTS = "weights.safetensors"
ENVIRONMENT = "environment.json"
# Of what all methods share: loop, schedule, order, randomness, input statistics. Raised when the same configuration
# comes to other numbers, so that old runs stand beside new ones. Tasks and methods have versions of their own, and
# tests/trainer/test_golden_losses.py fails where numbers move under unchanged ones.
RECIPE = 2
DIGITS = 12


def content_hash(config: Mapping[str, Any]) -> str:
    """The run's name: 12 hex digits of the SHA-256 of the canonical JSON of what was asked."""
    return hashlib.sha256(canonical_json(config).encode()).hexdigest()[:DIGITS]


@dataclass(frozen=True)
class Run:
    """A run's folder. `run.test["accuracy"]` after `run = train(...)`."""

    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def finished(self) -> bool:
        return (self.path / RESULT).exists()

    @property
    def config(self) -> dict[str, Any]:
        """What was asked: data, method, protocol, seed."""
        return read_json(self.path / CONFIG)

    @property
    def environment(self) -> dict[str, Any]:
        """Where it ran."""
        return read_json(self.path / ENVIRONMENT)

    @property
    def result(self) -> dict[str, Any]:
        """What came out. Raises UserError while the run is unfinished."""
        if not self.finished:
            raise UserError(f"Run {self.id} is not finished; the same `pgm train` command continues it.")
        return read_json(self.path / RESULT)

    @property
    def val(self) -> dict[str, float]:
        return dict(self.result["val"])

    @property
    def test(self) -> dict[str, float]:
        return dict(self.result["test"])

    @property
    def weights(self) -> Path:
        return self.path / WEIGHTS

    def predictions(self, split: str) -> Path:
        return self.path / f"predictions-{split}.parquet"

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """One record an epoch."""
        return [json.loads(line) for line in (self.path / METRICS).read_text().splitlines()]


def list_runs(root: Path) -> list[Run]:
    """Every run under `root`, oldest first."""
    found = [Run(path.parent) for path in root.glob(f"*/{CONFIG}")]
    return sorted(found, key=lambda run: (run.path / CONFIG).stat().st_mtime)


def open_run(root: Path, name: str) -> Run:
    """The run whose id begins with `name`. Raises NotFound for none and UserError for several."""
    runs = list_runs(root)
    found = [run for run in runs if run.id.startswith(name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{len(found)} runs begin with {name!r}: {', '.join(run.id for run in found)}.")
    known = f"There are {len(runs)}; see: pgm runs ls." if runs else "There are none; pgm train makes one."
    raise NotFound(f"No run {name!r} in {root}. {known}{nearest(name, [run.id for run in runs])}")


def difference(one: Run, other: Run) -> list[str]:
    """What two runs' configurations disagree in, one line a field."""
    return field_differences(one.config, other.config)


def remove(run: Run) -> None:
    """Delete a run's folder; result.json goes first, so that a half-deleted run is never taken for a finished one."""
    (run.path / RESULT).unlink(missing_ok=True)
    shutil.rmtree(run.path)
