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
runs/trials/<hash>/      the validation score of a choice of rates and epochs (see tuning.py)
runs/stages/<hash>/      outcomes of stages that runs share (see stages.py)
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...cache.errors import NotFound, UserError
from ...cache.nearest import did_you_mean
from ...cache.store.identity import canonical_json, field_differences
from .files import read_json
from .home import CONFIG, RESULT, WEIGHTS, Home, Root, folder_of, home_of, known_runs

if TYPE_CHECKING:
    from pandas import DataFrame

    from .model import Model

METRICS = "metrics.jsonl"
ENVIRONMENT = "environment.json"
# Of what all methods share: loop, schedule, order, randomness, input statistics. Raised when the same configuration
# comes to other numbers, so that old runs stand beside new ones. Tasks and methods have versions of their own, and
# tests/trainer/methods/test_golden_losses.py fails where numbers move under unchanged ones.
RECIPE = 2
DIGITS = 12


def content_hash(config: Mapping[str, Any]) -> str:
    """The run's name: 12 hex digits of the SHA-256 of the canonical JSON of what was asked."""
    return hashlib.sha256(canonical_json(config).encode()).hexdigest()[:DIGITS]


@dataclass(frozen=True)
class Run:
    """A run's folder. `run.test["accuracy"]` after `run = train(...)`.

    home: where it lies when it is finished, where that is not the folder (home.py).
    """

    path: Path
    home: Home | None = None

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def finished(self) -> bool:
        """Whether there is a result; one that lies in another place is brought here."""
        return (self.path / RESULT).exists() or (self.home is not None and self.home.fetch(self.path))

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
        if self.home is not None and not (self.path / WEIGHTS).exists():
            self.home.fetch(self.path, weights=True)
        return self.path / WEIGHTS

    def predictions_path(self, split: str) -> Path:
        return self.path / f"predictions-{split}.parquet"

    def predictions(self, split: str = "test") -> DataFrame:
        """What the run said of each sample of "val" or "test", beside its target: a row a sample.

        Raises NotFound where the split has none, UserError where pandas is not installed.
        """
        if not self.predictions_path(split).exists():
            raise NotFound(f"Run {self.id} has no predictions of {split!r}; it has those of val and test.")
        return dataframe(pq.read_table(self.predictions_path(split)))

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """One record an epoch."""
        return [json.loads(line) for line in (self.path / METRICS).read_text().splitlines()]

    @property
    def history(self) -> DataFrame:
        """The epochs as a table: stage, epoch, losses and validation metrics, a column each."""
        return dataframe(pa.Table.from_pylist([flat(record) for record in self.metrics]))

    def model(self, device: str = "auto") -> Model:
        """The trained model with the selected weights, in eval mode."""
        from .inference import load, task_of

        return load(self, device, task_of(self)).model.eval()

    def _repr_html_(self) -> str:
        """For notebooks: what was asked, and what came out."""
        if not self.finished:
            return f"<p>run <code>{escape(self.id)}</code>, not finished</p>"
        config, result = self.config, self.result
        cells = "".join(f"<td>{100 * value:.2f}</td>" for value in result["test"].values())
        names = "".join(f"<th>test {escape(name)}</th>" for name in result["test"])
        what = f"{config['method']['name']} on {config['dataset']}, seed {config['seed']}"
        return (
            f"<table><caption>run <code>{escape(self.id)}</code>: {escape(what)}</caption><thead><tr>{names}"
            f"<th>parameters</th><th>seconds</th></tr></thead><tbody><tr>{cells}<td>{result['parameters']:,}</td>"
            f"<td>{result['seconds']:.1f}</td></tr></tbody></table>"
        )


def dataframe(table: pa.Table) -> DataFrame:
    """An Arrow table as pandas has it. Raises UserError where pandas is not installed."""
    try:
        import pandas  # noqa: F401
    except ImportError:
        raise UserError(
            "Data frames are pandas': pip install 'pgm[pandas]'. The files themselves are Parquet."
        ) from None
    return table.to_pandas()


def flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """{"losses": {"task": 1}} as {"losses.task": 1}."""
    found: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{inner}": of for inner, of in flat(value).items()}
        else:
            found[name] = value
    return found


def run_at(root: Root, name: str) -> Run:
    """The run of this id under a root, there or not."""
    return Run(folder_of(root) / name, home_of(root, name))


def list_runs(root: Root, beginning: str = "") -> list[Run]:
    """Every run under `root` whose id begins so, oldest first."""
    found = [run_at(root, name) for name in known_runs(root) if name.startswith(beginning)]
    begun = [run for run in found if run.finished or (run.path / CONFIG).exists()]
    return sorted(begun, key=lambda run: (run.path / CONFIG).stat().st_mtime)


def open_run(root: Root, name: str) -> Run:
    """The run whose id begins with `name`. Raises NotFound for none and UserError for several."""
    found = list_runs(root, name)
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{len(found)} runs begin with {name!r}: {', '.join(run.id for run in found)}.")
    runs = known_runs(root)
    known = f"There are {len(runs)}; see: pgm runs ls." if runs else "There are none; pgm train makes one."
    raise NotFound(f"No run {name!r} in {root}. {known}{did_you_mean(name, runs)}")


def difference(one: Run, other: Run) -> list[str]:
    """What two runs' configurations disagree in, one line a field."""
    return field_differences(one.config, other.config)


def remove(run: Run) -> None:
    """Delete a run; what says that it is finished goes first, so that a half-deleted one is never taken for that."""
    if run.home is not None:
        run.home.remove()
    (run.path / RESULT).unlink(missing_ok=True)
    shutil.rmtree(run.path)
