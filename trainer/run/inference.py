"""A finished run's weights: `pgm evaluate` on a split, `pgm predict` on any dataset of the same encoders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from safetensors.torch import load_file

from ...cache import CachedDataset, DatasetCard, Features, Place, open_dataset, split_names
from ...cache.errors import IdentityMismatch, NotFound, UserError
from ...cache.store.identity import field_differences
from ..data.dataset import TrainingData, encoder_of, grouping, load_data, only_dataset, split_note_start
from ..data.feed import Feed, open_feed
from ..data.folds import fold_of
from ..data.missing import TRAINED, described, mask_of, restored_missing, without
from ..data.order import Rows
from ..data.sequence import Context, restored_context, widths_shown
from ..methods import MethodConfig, Shape, restored
from ..protocol import Protocol
from ..tasks import Task
from ..tasks.choice import task_for
from .evaluation import collect, evaluate
from .machine import Machine, device_for
from .model import Model, unit_statistics
from .position import widths_with
from .predictions import predictions_table, write_predictions
from .request import features_root
from .runs import Run, dataframe
from .training import assembled

if TYPE_CHECKING:
    from pandas import DataFrame


CODE = ("version", "extends")  # the parts of a method's description that say which code it is


@dataclass(frozen=True)
class Loaded:
    """A run ready to be used: its model on the device, and how precisely it runs."""

    model: Model
    machine: Machine
    protocol: Protocol
    widths: Mapping[str, int]
    whole_groups: bool
    context: Context | None

    def feed(
        self, kind: str, features: Mapping[str, Features], rows: Rows, targets: NDArray[Any], samples: pa.Table
    ) -> Feed:
        """The feed of some rows of a dataset, read as the run reads its own; `samples` is the table of samples."""
        groups = grouping(samples, rows, self.whole_groups, self.context)
        return open_feed(kind, features, rows, targets, self.protocol.tokens, self.machine.device, groups)


def load(run: Run, device: str, task: Task) -> Loaded:
    """Rebuild a finished run's model, to run as it did: in its own precision and, for "auto", on its kind of device.

    So it answers on the same machine what the run has stored, to the bit. Raises UserError while the run is unfinished,
    IdentityMismatch where the code of its method or task has another version since.
    """
    config = run.config
    _ = run.result
    protocol = Protocol(**config["protocol"])
    widths = dict(config["widths"])
    chosen, context = restored(config["method"], tuple(widths)), restored_context(config)
    check_versions(run, chosen, task)
    method = chosen.build(Shape(widths_with(protocol.position, widths_shown(widths, context)), task.outputs))
    statistics = unit_statistics(widths) if protocol.standardize else None
    model = assembled(method, task.cross_modal, widths, statistics, protocol.position)
    model.load_state_dict(load_file(run.weights))
    where = device_for("cpu" if device == "auto" and config["machine"]["device"] == "cpu" else device)
    machine = Machine(where, protocol.precision)
    return Loaded(model.to(where), machine, protocol, widths, chosen.whole_groups, context)


def check_versions(run: Run, method: MethodConfig, task: Task) -> None:
    """Raise IdentityMismatch where the code that would run the weights is not the code that made them."""
    config, now = run.config, method.describe()
    there = {"task": config["recipe"]["task"], **{part: config["method"].get(part) for part in CODE}}
    here = {"task": task.code, **{part: now.get(part) for part in CODE}}
    if differences := field_differences(here, there):
        raise IdentityMismatch(
            f"Run {run.id} was made by another version of the code of {now['name']} or its task:\n  "
            + "\n  ".join(differences)
            + "\nIts result stands; by this code its weights would come to other numbers. Train it again to use them."
        )


def evaluate_run(run: Run, split: str, features: Place | None, feed: str, device: str) -> dict[str, Any]:
    """The metrics of a split, from the saved weights, on the data the run was trained with.

    features: where they lie now. Raises NotFound for an unknown or empty split, IdentityMismatch for changed data.
    """
    config = run.config
    data = data_of(run, features)
    if data.digest != config["digest"]:
        raise IdentityMismatch(
            f"{data.name} is not what run {run.id} was trained on: its samples, labels, splits or stores have changed "
            f"(digest {data.digest[:8]} here, {config['digest'][:8]} in the run). Use pgm predict for other data."
        )
    if split not in data.splits or not len(data.splits[split]):
        having = ", ".join(name for name, rows in data.splits.items() if len(rows))
        raise NotFound(f"{data.name} has no samples in split {split!r}; it has {having}.")
    loaded = load(run, device, data.task)
    rows = data.splits[split]
    shown = shown_to(run, data)
    samples = loaded.feed(feed, shown, rows, data.targets[rows], data.samples)
    found = evaluate(loaded.model, data.task, samples, loaded.machine)
    return {
        "run": run.id,
        "dataset": data.card.name,
        "split": split,
        "samples": len(rows),
        "metrics": found.metrics,
    }


def evaluate_on(
    run: Run, split: str = "test", features: Place | None = None, *, feed: str = "auto", device: str = "auto"
) -> dict[str, float]:
    """The metrics of a split, by the saved weights: `pgm.evaluate(run, "val")`. As `evaluate_run`."""
    return dict(evaluate_run(run, split, features, feed, device)["metrics"])


def predicted(
    run: Run,
    dataset: str | None = None,
    features: Place | None = None,
    *,
    stores: Mapping[str, str] | None = None,
    feed: str = "auto",
    device: str = "auto",
) -> DataFrame:
    """What a run says of every sample of a cached dataset, also one without labels: `pgm.predict(run, "new")`.

    Raises IdentityMismatch when a store comes from another encoder than the run's.
    """
    return dataframe(predictions_of(run, features_root(features), dataset, stores or {}, feed, device))


def data_of(run: Run, features: Place | None) -> TrainingData:
    """The data a run was trained on, opened again: the dataset's version and the split it was trained on.

    Raises NotFound where either is gone.
    """
    config, environment = run.config, run.environment
    root = features or environment["features"]
    folder, split = environment["dataset_folder"], config.get("split")
    dataset = open_dataset(root, folder, environment["dataset_version"])
    if split is not None and fold_of(split) is None and split not in (known := split_names(dataset)):
        having = f"There are: {', '.join(known)}." if known else "There is none."
        drawn = next((n for n in environment.get("notes", ()) if n.startswith(split_note_start(split))), "")
        raise NotFound(
            f"Run {run.id} was trained on the split {split!r} of {folder}, which {dataset.storage.url} no longer has. "
            f"{having} {drawn or f'Draw it again: pgm cache split {folder} --name {split}'}"
        )
    protocol = Protocol(**config["protocol"])
    return load_data(dataset, list(config["stores"]), config["stores"], protocol, split)


def shown_to(run: Run, data: TrainingData) -> Mapping[str, Features]:
    """The stores as the run saw them: without what was missing from its training and validation samples.

    Raises IdentityMismatch where that can no longer be told.
    """
    missing = restored_missing(run.config)
    if missing is None:
        return data.features
    mask = mask_of(data, missing)
    if described(mask, missing, *TRAINED) != run.config["missing"]:
        raise IdentityMismatch(
            f"Run {run.id} was trained with other modalities missing than the masks of {data.name} take away now at "
            f"rate {missing.rate:g}, seed {missing.seed}. Use pgm predict, which shows it whole samples."
        )
    return without(data.features, mask.of(*TRAINED), missing.fill)


def predict(
    run: Run,
    features: Place,
    dataset: str | None,
    out: Path,
    stores: Mapping[str, str],
    feed: str,
    device: str,
) -> int:
    """Write predictions for every sample of a cached dataset; returns how many. Labels are not needed."""
    table = predictions_of(run, features, dataset, stores, feed, device)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_predictions(out, table)
    return len(table)


def predictions_of(
    run: Run, features: Place, dataset: str | None, stores: Mapping[str, str], feed: str, device: str
) -> pa.Table:
    """The predictions table for every sample of a cached dataset, in its order.

    Batches are those of the run's own evaluation where this is the data it was trained on (`evaluated_together`).
    Raises IdentityMismatch when a store comes from another encoder than the run's, naming the fields that differ.
    """
    config = run.config
    cached = open_dataset(features, dataset or only_dataset(features))
    opened = {m: cached.features(m, stores.get(m)) for m in config["widths"]}
    check_encoders(run, opened)
    task = task_of(run)
    loaded = load(run, device, task)
    parts, order = [], evaluated_together(run, cached, opened)
    for rows in order:
        nothing = np.zeros(len(rows), np.int64)
        samples = loaded.feed(feed, opened, rows, nothing, cached.samples)
        parts.append(collect(loaded.model, task, samples, loaded.machine))
    back = np.argsort(np.concatenate(order))
    views = {name: np.concatenate([part[name] for part in parts])[back] for name in parts[0]}
    return predictions_table(task, cached.samples["id"].to_pylist(), views, None)


def evaluated_together(run: Run, cached: CachedDataset, opened: Mapping[str, Features]) -> list[Rows]:
    """Every row of a dataset, in groups that share their batches.

    What a sample gets depends on its neighbours in the last bits. The data a run was trained on fall into the splits as
    it used them, a validation split carved from train included, so that they get what the run has stored; the rest of
    them, and all rows of other data, are one group.
    """
    config, every = run.config, np.arange(len(cached.samples), dtype=np.int64)
    digests, split = {m: store.identity.digest for m, store in opened.items()}, config.get("split")
    if digests != config["stores"] or (split is not None and split not in split_names(cached)):
        return [every]
    protocol = Protocol(**config["protocol"])
    try:
        data = load_data(cached, list(opened), digests, protocol, split)
    except UserError:
        # What cannot be trained on, for want of labels say, is not what the run was trained on.
        return [every]
    if data.digest != config["digest"]:
        return [every]
    splits = [rows for rows in data.splits.values() if len(rows)]
    rest = np.setdiff1d(every, np.concatenate(splits))
    return [*splits, rest] if len(rest) else splits


def task_of(run: Run) -> Task:
    """The task a run was trained for, from what it remembers of its dataset's card."""
    config = run.config
    card = DatasetCard(config["dataset"], config["task"], tuple(config["classes"]), ())
    return task_for(card, Protocol(**config["protocol"]), tuple(config["widths"]), np.zeros(0, np.int64))


def check_encoders(run: Run, opened: Mapping[str, Features]) -> None:
    """Raise IdentityMismatch where a store does not hold what the run learned to read."""
    for modality, store in opened.items():
        known = run.config["encoders"][modality]
        differences = field_differences(encoder_of(store), known)
        if differences:
            raise IdentityMismatch(
                f"{store.url} holds other {modality} features than run {run.id} was trained on:\n  "
                + "\n  ".join(differences)
            )
