"""What the figures show, gathered from runs and stores as plain numbers; drawing is elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ...cache import open_dataset
from ...cache.errors import UserError
from ..feed import present_lengths
from ..inference import data_of, load
from ..runs import Run
from ..tables.plan import Cell

SHARES = ("uni", "paired", "overlap", "gap")
LOSSES = {"ufc": "UFC", "pfc": "PFC", "upr": "UPR", "task": "Task"}
BATCH = 128
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class GateValues:
    """modality -> share -> one value a seed, in per cent (Figure 4's uni-modal and paired-modal, overlap and gap)."""

    shares: Mapping[str, Mapping[str, list[float]]]


@dataclass(frozen=True)
class LossValues:
    """loss -> (seeds, epochs) over the second stage (Figure 5)."""

    losses: Mapping[str, Floats]


@dataclass(frozen=True)
class TokenValues:
    """modality -> tokens a sample (N,), 0 where it is missing."""

    lengths: Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True)
class ConfusionValues:
    """counts[i, j]: test samples of class i called j, summed over the seeds."""

    counts: NDArray[np.int64]
    classes: Sequence[str]


def gate_values(cells: Sequence[Cell]) -> GateValues:
    """Shares of each modality's features on the test split, seed by seed."""
    from ..pgm.gates import gate_report

    found: dict[str, dict[str, list[float]]] = {}
    for cell in cells:
        run = cell.run
        data = data_of(run, cell.request.features)
        loaded = load(run, str(cell.resolved.device), data.task)
        rows = data.splits["test"] if len(data.splits["test"]) else data.splits["val"]
        feed = loaded.feed("auto", data.features, rows, data.targets[rows], data.samples)

        def prepared() -> Iterator[tuple[Any, Any]]:
            for batch in feed.batches(feed.evaluation_order(BATCH)):  # noqa: B023 (used at once)
                inputs = loaded.model.prepared(batch.inputs)  # noqa: B023
                yield inputs.tokens, inputs.masks

        report = gate_report(loaded.model.method.get_submodule("pgm"), prepared())  # type: ignore[arg-type]
        for modality, shares in report.items():
            for name in SHARES:
                found.setdefault(modality, {}).setdefault(name, []).append(getattr(shares, name))
    return GateValues(found)


def loss_values(runs: Sequence[Run]) -> LossValues:
    """The losses of the second stage, epoch by epoch; runs that stopped early are cut to the shortest."""
    curves: dict[str, list[list[float]]] = {}
    for run in runs:
        epochs = [entry["losses"] for entry in run.metrics if entry["stage"] == "task"]
        for name in epochs[0]:
            curves.setdefault(name, []).append([losses[name] for losses in epochs])
    shortest = min(len(curve) for several in curves.values() for curve in several)
    arrays = {name: np.array([curve[:shortest] for curve in several]) for name, several in curves.items()}
    return LossValues({LOSSES[name]: arrays[name] for name in LOSSES if name in arrays})


def token_values(cell: Cell) -> TokenValues:
    """Tokens a sample, of every modality."""
    features = cell.resolved.data.features
    return TokenValues({name: np.asarray(present_lengths(store), np.int64) for name, store in features.items()})


def confusion_values(cells: Sequence[Cell]) -> ConfusionValues:
    """Counts from the test predictions. Raises UserError for a task without classes."""
    card = cells[0].resolved.data.card
    classes = list(getattr(cells[0].resolved.data.task, "classes", card.classes))
    counts = np.zeros((len(classes), len(classes)), np.int64)
    for cell in cells:
        table = pq.read_table(cell.run.predictions("test"))
        if "prediction" not in table.column_names or not classes:
            raise UserError(f"A confusion matrix needs predicted classes, and {card.name} is a {card.task} task.")
        np.add.at(counts, (table["target"].to_numpy(), table["prediction"].to_numpy()), 1)
    return ConfusionValues(counts, classes)


def sample_texts(cell: Cell) -> dict[str, str]:
    """Sample id -> its text, where samples.parquet keeps one."""
    samples = open_dataset(cell.request.features, cell.resolved.folder, cell.resolved.data.version).samples
    if "text" not in samples.column_names:
        return {}
    return dict(zip(samples["id"].to_pylist(), samples["text"].to_pylist(), strict=True))
