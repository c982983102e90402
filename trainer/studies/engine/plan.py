"""Which runs a table is made of, which of them are there, and how long the others will take."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from ....cache.errors import UserError
from ....cache.store.identity import canonical_json
from ...head.switches import changed
from ...methods import Shape, Stage, choose
from ...protocol import Protocol as TrainingProtocol
from ...run.predictions import read_predictions
from ...run.request import Request, Resolved, resolve
from ...run.runs import Run
from ...run.stages import SharedStages
from ...run.tuning import trainings
from ...tasks.scores import Recomputed, SampleScores
from .rows import Row, TableSpec

ALL = "all"  # modalities
PROBED_STEPS = 3
PROBED_SECONDS = 2.0  # a stage: a step that takes so long is measured well enough by itself


class Measurement(Protocol):
    """What a table wants of a finished run besides its result, kept in the run's folder; it travels to the workers."""

    def there(self, run: Run) -> bool:
        """Whether the finished run has it already."""

    def make(self, resolved: Resolved) -> None:
        """Make and keep it; the run is finished."""


@dataclass(frozen=True)
class Cell:
    """One run of a table: a row at a seed."""

    row: Row
    request: Request
    resolved: Resolved
    measurement: Measurement | None = None

    @property
    def seed(self) -> int:
        return self.request.seed

    @property
    def repeat(self) -> tuple[str | None, int]:
        """Which of a row's runs it is, by split and seed: what two rows are paired by."""
        return self.request.split, self.request.seed

    @property
    def done(self) -> bool:
        """Nothing is left to be trained or made of the run."""
        return self.run.finished and (self.measurement is None or self.measurement.there(self.run))

    @cached_property
    def run(self) -> Run:
        return self.resolved.run

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """The method's stages; it is built without memory, on torch's meta device, to be asked for them."""
        with torch.device("meta"):
            return self.resolved.method.build(self.resolved.shape).stages(self.resolved.protocol)

    @property
    def budget(self) -> dict[str, int]:
        """Epochs over the training split: of the network that sees all modalities ("all"), of those that see one."""
        found: dict[str, int] = {}
        for stage in self.stages:
            network = stage.modality or ALL
            found[network] = found.get(network, 0) + stage.epochs
        return found

    @cached_property
    def scores(self) -> SampleScores | Recomputed | None:
        """The primary metric of the finished run, test sample by test sample; None without predictions."""
        path = self.run.predictions_path("test")
        return self.resolved.data.task.sample_scores(read_predictions(path)) if path.exists() else None

    @cached_property
    def shared(self) -> str | None:
        """What names the first stage this run shares with others, None where it shares none."""
        if not self.stages or self.stages[0].shares is None or self.resolved.callbacks:
            return None
        return str(SharedStages(self.resolved).folder(self.stages[0]))


@dataclass(frozen=True)
class TablePlan:
    """A table's cells, row by row, fold by fold and seed by seed. request: what all rows share."""

    spec: TableSpec
    cells: tuple[Cell, ...]
    request: Request

    @property
    def missing(self) -> list[Cell]:
        """Cells that are not done; each run once, though two rows may have the same configuration."""
        found: dict[Path, Cell] = {cell.run.path: cell for cell in self.cells if not cell.done}
        return list(found.values())

    def of(self, row: Row) -> list[Cell]:
        """The cells of one row."""
        return [cell for cell in self.cells if cell.row is row]


def plan_table(spec: TableSpec, request: Request, seeds: int) -> TablePlan:
    """The cells of `spec` with the seeds request.seed, request.seed + 1, ...; `request` holds what all rows share.

    Raises UserError or NotFound for a row that cannot be run on this dataset.
    """
    cells: list[Cell] = []
    known: dict[str, Resolved] = {}
    folds = request.each_fold
    for row in spec.rows:
        settings = {**request.settings, **row.settings}
        for fold in folds:
            asked = dataclasses.replace(fold, method=row.method, settings=settings, missing=row.missing)
            # The data and the switches are the same for all seeds and masks; only what the run's name says differs.
            key = repr((row.method, sorted(settings.items()), fold.split))
            resolved = known[key] = known.get(key) or resolve(asked)
            for seed in range(request.seed, request.seed + seeds):
                seeded = dataclasses.replace(asked, seed=seed)
                cells.append(Cell(row, seeded, dataclasses.replace(resolved, request=seeded), row.measurement))
    return TablePlan(spec, tuple(cells), request)


def reason_against(name: str, request: Request, shape: Shape) -> str | None:
    """Why a method cannot do this task, in its own words; None where it can.

    The settings are the table's, which the reference row has accepted, so that a refusal is about the task alone.
    """
    rest = changed(TrainingProtocol.preset(request.preset), request.settings)[1]
    try:
        choose(name, request.preset, shape, rest)
    except UserError as error:
        return str(error)
    return None


def estimate(plan: TablePlan) -> dict[str, float]:
    """Row label -> seconds one run of it takes on this machine: as measured in a finished run, else from a few steps.

    Only rows with runs to train. A shared first stage is counted in every row, so sums are upper bounds.
    """
    seconds: dict[str, float] = {}
    waiting = {cell.row.label for cell in plan.missing if not cell.run.finished}
    for row in plan.spec.rows:
        cells = plan.of(row)
        if row.label not in waiting:
            continue
        known = [cell.run.result["seconds"] for cell in cells if cell.run.finished]
        seconds[row.label] = float(np.median(known)) if known else probed(cells[0].resolved)
    return seconds


def probed(resolved: Resolved) -> float:
    """Seconds of a whole run, from the time of a few training steps of each stage."""
    from ...run.machine import Machine
    from ...run.optimiser import build_optimiser
    from ...run.threads import fitting_threads
    from ...run.training import build_model, feed_of, trainer_of

    model, feed = build_model(resolved).to(resolved.device), feed_of(resolved, "train", "auto")
    trainer = trainer_of(resolved, model, feed, Machine(resolved.device, resolved.protocol.precision))
    rows = np.arange(len(feed))
    steps = -(-len(rows) // resolved.protocol.batch)
    total = 0.0
    with fitting_threads(model, resolved.device):
        for stage in trainer.stages:
            optimiser = build_optimiser(model, stage, resolved.protocol, resolved.device)
            model.train()
            chunks = np.array_split(np.resize(rows, resolved.protocol.batch * (PROBED_STEPS + 1)), PROBED_STEPS + 1)
            times = []
            for batch in feed.batches(list(chunks)):
                begun = time.perf_counter()
                trainer.step(stage, batch, optimiser)
                if resolved.device.type == "cuda":
                    torch.cuda.synchronize(resolved.device)
                times.append(time.perf_counter() - begun)
                if sum(times) > PROBED_SECONDS:
                    break
            # The first step also pays for what is set up once, which only counts where steps are short.
            total += float(np.median(times[1:] or times)) * steps * stage.passes * stage.epochs
    return total * trainings(resolved.protocol)


def configuration(cell: Cell) -> str:
    """A cell's configuration without its seed: what makes two rows the same."""
    return canonical_json({name: value for name, value in cell.resolved.config.items() if name != "seed"})


def planned_rows(plan: TablePlan, seconds: dict[str, float]) -> Sequence[dict[str, Any]]:
    """What --plan prints: per row the runs that exist, those that would be trained, and the estimate.

    to_evaluate: finished runs that this table wants more of.
    """
    return [
        {
            "row": row.label,
            "runs": [cell.run.id for cell in plan.of(row)],
            "finished": sum(cell.run.finished for cell in plan.of(row)),
            "to_train": sum(not cell.run.finished for cell in plan.of(row)),
            "to_evaluate": sum(cell.run.finished and not cell.done for cell in plan.of(row)),
            "seconds_a_run": round(seconds[row.label], 1) if row.label in seconds else None,
        }
        for row in plan.spec.rows
    ]
