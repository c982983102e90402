"""A cached dataset as training takes it: targets, splits, the chosen stores, and a digest of what was chosen.

Where the dataset has no validation split, one is carved from train: whole groups (a video, a dialogue) where the
dataset has groups, stratified by class otherwise; always by the same seed, so that every run selects on the same
samples. A named split takes the place of the dataset's own. The digest is content: of every sample that is used, in
which split, its id, its target and the checksum of each of its features. It costs no reading: the checksums stand in
the version's index.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...cache import (
    CachedDataset,
    DatasetCard,
    Features,
    Mask,
    NamedSplit,
    Place,
    Storage,
    list_datasets,
    open_split,
    storage_at,
)
from ...cache.dataset import refuse_earlier
from ...cache.dataset.sources import rows_of, shared_sources
from ...cache.errors import NotFound, UserError
from ...cache.nearest import did_you_mean
from ..protocol import Protocol
from ..randomness import derived
from ..tasks import Task, kind_of, name_of, task_for
from .feed import present_lengths
from .folds import fold_of
from .groups import Groups, groups_of
from .order import Rows
from .sequence import Context

# Fields of a store's identity that belong to the samples and not to the encoder.
OF_THE_SAMPLES = ("dataset",)


@dataclass(frozen=True)
class TrainingData:
    """targets (N,) for all samples of the dataset; splits: name -> rows of samples; features by modality.

    samples: their table as used. own_notes: what opening the data brought up. storage, version: its place, and
    which of its versions was opened.
    """

    name: str
    storage: Storage
    version: int
    card: DatasetCard
    ids: list[str]
    task: Task
    targets: NDArray[Any]
    splits: Mapping[str, Rows]
    features: Mapping[str, Features]
    digest: str
    own_notes: tuple[str, ...]
    samples: pa.Table

    def labels(self, columns: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Those of these columns that the samples have, of numbers and without gaps: (N,) each."""
        found = {name: self.samples[name] for name in columns if name in self.samples.column_names}
        whole = {name: column.to_numpy() for name, column in found.items() if not column.null_count}
        return {name: values for name, values in whole.items() if values.dtype.kind in "biuf"}

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the numbers must know. Sources are compared on first use: a finished run never asks."""
        shared = (str(shared_sources(store, self.splits)) for store in self.features.values())
        return tuple(dict.fromkeys((*self.own_notes, *filter(None, shared), *self.card.notes)))

    @cached_property
    def masks(self) -> dict[tuple[float, int], Mask]:
        """The missing-modality masks opened so far, by rate and seed."""
        return {}

    @property
    def widths(self) -> dict[str, int]:
        return {name: store.dim for name, store in self.features.items()}

    @property
    def stores(self) -> dict[str, str]:
        """Modality -> the identity's digest."""
        return {name: store.identity.digest for name, store in self.features.items()}


def only_dataset(root: Place) -> str:
    """The one dataset under `root`. Raises NotFound where there is none, UserError where there are several."""
    names = list_datasets(root)
    if len(names) == 1:
        return names[0]
    if not names:
        for name in storage_at(root).names():
            refuse_earlier(storage_at(root).under(name))
        raise NotFound(
            f"No cached dataset in {root}. Make one first, for example: pgm extract digits "
            "(or name the folder that holds yours with --features DIR)."
        )
    raise UserError(f"{len(names)} datasets are cached in {root}: {', '.join(names)}. Choose one with --dataset NAME.")


def modalities_in(dataset: CachedDataset, wanted: Sequence[str] | None) -> tuple[str, ...]:
    """The dataset's modalities, or the wanted ones of them. Raises NotFound for one that is not cached."""
    cached = tuple(dataset.modalities)
    if not cached:
        raise NotFound(f"{dataset.storage.url} holds no features yet. Make them with: pgm extract {dataset.name}")
    for name in wanted or ():
        if name not in cached:
            near = did_you_mean(name, list(cached))
            raise NotFound(
                f"Dataset {dataset.name!r} has no cached modality {name!r}; it has {', '.join(cached)}.{near}"
            )
    return tuple(name for name in cached if name in wanted) if wanted else cached


def load_data(
    dataset: CachedDataset,
    modalities: Sequence[str],
    stores: Mapping[str, str],
    protocol: Protocol,
    split: str | None = None,
) -> TrainingData:
    """Open what a run reads; nothing but indices and labels is in memory yet.

    stores: modality -> digest, where several stores of a modality are cached. split: a named split, by default the
    dataset's own. Raises NotFound for what is not there, UserError for what cannot be trained on.
    """
    features = {m: dataset.features(m, stores.get(m)) for m in modalities}
    # By the name that does not depend on how the task was asked for: it is in the names of runs.
    card = replace(dataset.card, task=name_of(kind_of(dataset.card)))
    samples, named = with_split(dataset, split)
    labels = labels_of(samples, card)
    task = task_for(card, protocol, tuple(modalities), labels)
    targets = task.targets(labels)
    splits, notes = splits_of(samples, card, targets, protocol)
    splits, dropped = with_features(splits, features)
    if protocol.class_weights == "balanced":
        task.balance(targets[splits["train"]])
    return TrainingData(
        name=dataset.name,
        storage=dataset.storage,
        version=dataset.version.number,
        card=card,
        ids=samples["id"].to_pylist(),
        task=task,
        targets=targets,
        splits=splits,
        features=features,
        digest=content_digest(samples, card, targets, splits, features),
        own_notes=(
            *limited(dataset),
            *named,
            *notes,
            *dropped,
            *defined(task, targets, splits),
            *random_encoders(features),
        ),
        samples=samples,
    )


def with_split(dataset: CachedDataset, name: str | None) -> tuple[pa.Table, tuple[str, ...]]:
    """The table of samples, with the split column of a fold or named split where there is a name, and a note of it."""
    samples = dataset.samples
    if name is None:
        return samples, ()
    fold = fold_of(name)
    if fold is not None:
        column, note = fold.column(samples, dataset.card), fold.note
    else:
        made, column = open_split(dataset, name)
        note = split_note(made, dataset.name)
    return samples.set_column(samples.column_names.index("split"), "split", column), (note,)


def limited(dataset: CachedDataset) -> tuple[str, ...]:
    """A note where the version has a name: it holds a part of the samples."""
    name = dataset.version.name
    return (f"Version {name!r} of {dataset.name}: not all of its samples.",) if name else ()


def split_note(made: NamedSplit, dataset: str) -> str:
    """Which split is used, and the command that draws it again."""
    return f"{split_note_start(made.name)}{made.command(dataset)}"


def split_note_start(name: str) -> str:
    """How the note on a named split begins."""
    return f"Split {name}, drawn by: "


def labels_of(samples: pa.Table, card: DatasetCard) -> NDArray[Any]:
    """(N,) the label column. Raises UserError where it is absent, has gaps or names a class that is not there."""
    if card.label_column not in samples.column_names:
        raise NotFound(
            f"Dataset {card.name!r} has no column {card.label_column!r} to learn; "
            f"its table of samples has {', '.join(samples.column_names)}."
        )
    column = samples[card.label_column]
    if column.null_count:
        raise UserError(
            f"{column.null_count} samples of {card.name!r} have no {card.label_column!r}; label or remove them."
        )
    labels: NDArray[Any] = column.to_numpy()
    if labels.dtype.kind in "iu" and card.classes and (labels.min() < 0 or labels.max() >= len(card.classes)):
        raise UserError(
            f"Column {card.label_column!r} of {card.name!r} holds {labels.min()}..{labels.max()}, "
            f"but there are {len(card.classes)} classes (0..{len(card.classes) - 1})."
        )
    return labels


def splits_of(
    samples: pa.Table, card: DatasetCard, targets: NDArray[Any], protocol: Protocol
) -> tuple[dict[str, Rows], tuple[str, ...]]:
    """Rows of train, val and test; val carved from train where there is none."""
    splits: dict[str, Rows] = rows_of(samples["split"])
    if not len(splits["train"]):
        raise UserError(f"Dataset {card.name!r} has no training samples: no sample has split 'train'.")
    if len(splits["val"]):
        return splits, ()
    train = splits["train"]
    groups = group_names(samples)
    if groups is not None and len(set(groups)) > 1:
        keys, by = np.unique([groups[row] for row in train], return_inverse=True)[1], "whole groups"
    else:
        keys, by = None, "stratified by class" if targets.dtype.kind == "i" else "at random"
    chosen = carve(train, keys, targets[train], protocol)
    splits["val"], splits["train"] = train[chosen], train[~chosen]
    note = (
        f"{card.name} has no validation split: {int(chosen.sum()):,} of {len(train):,} training samples validate "
        f"({by}, split seed {protocol.split_seed})."
    )
    return splits, (note,)


def grouping(samples: pa.Table, rows: Rows, whole: bool, context: Context | None) -> Groups | None:
    """The groups of some rows of the table of samples, where batches hold them whole or tokens are neighbours."""
    if not (whole or context):
        return None
    ids = [str(name) for name in samples["id"].to_pylist()]
    return groups_of(group_names(samples), ids, rows, whole, context.utterances if context else 0)


def group_names(samples: pa.Table) -> list[str] | None:
    """(N,) the group of each sample; None where the dataset has none."""
    return [str(name) for name in samples["group"].to_pylist()] if "group" in samples.column_names else None


def carve(
    train: Rows, groups: NDArray[np.int64] | None, targets: NDArray[Any], protocol: Protocol
) -> NDArray[np.bool_]:
    """(len(train),) bool: the samples that validate; at least one, and never all."""
    generator = np.random.default_rng(derived(protocol.split_seed, "carve"))
    wanted = max(1, round(protocol.val_fraction * len(train)))
    if groups is not None:
        chosen = np.zeros(len(train), bool)
        for group in generator.permutation(int(groups.max()) + 1)[:-1]:
            if chosen.sum() >= wanted:
                break
            chosen |= groups == group
        return chosen
    order = generator.permutation(len(train))
    if targets.dtype.kind == "i":
        # Every class in the same share: the shuffled samples of a class are spread evenly over the unit interval.
        order = order[np.argsort(evenly_placed(targets[order]), kind="stable")]
    chosen = np.zeros(len(train), bool)
    chosen[order[:wanted]] = True
    return chosen


def evenly_placed(classes: NDArray[np.int64]) -> NDArray[np.float64]:
    """(N,) each sample's rank within its class over the class's size."""
    place = np.empty(len(classes))
    for label in np.unique(classes):
        members = np.flatnonzero(classes == label)
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return place


def with_features(
    splits: Mapping[str, Rows], features: Mapping[str, Features]
) -> tuple[dict[str, Rows], tuple[str, ...]]:
    """Training and validation without samples that have no modality at all; the test split keeps them."""
    present = np.any([present_lengths(store) > 0 for store in features.values()], axis=0)
    kept = {name: rows if name == "test" else rows[present[rows]] for name, rows in splits.items()}
    lost = {name: len(rows) - len(kept[name]) for name, rows in splits.items() if len(kept[name]) < len(rows)}
    counts = ", ".join(f"{count:,} of {name}" for name, count in lost.items())
    notes = (f"Left out because none of the chosen modalities has features for them: {counts}.",) if lost else ()
    return kept, notes


def defined(task: Task, targets: NDArray[Any], splits: Mapping[str, Rows]) -> tuple[str, ...]:
    """A note where the test split leaves metrics without a value. Raises UserError where validation cannot select."""
    lacking = {split: task.undefined(targets[splits[split]]) for split in ("val", "test") if len(splits[split])}
    if task.monitor in lacking.get("val", ()):
        raise UserError(
            f"The validation split holds one class only, so {task.monitor} is not defined there and cannot select. "
            "Choose --select-on accuracy, or a split that is stratified (pgm cache split)."
        )
    found = lacking.get("test", ())
    return (f"The test split holds one class only: {' and '.join(found)} are not defined there.",) if found else ()


def random_encoders(features: Mapping[str, Features]) -> tuple[str, ...]:
    """A note where encoders were not pretrained, because such numbers must not be compared with published ones."""
    names = [m for m, store in features.items() if store.identity.fields.get("random_weights")]
    return (f"Random weights, not pretrained: the encoders of {', '.join(names)}.",) if names else ()


def content_digest(
    samples: pa.Table,
    card: DatasetCard,
    targets: NDArray[Any],
    splits: Mapping[str, Rows],
    features: Mapping[str, Features],
) -> str:
    """32 hex digits of all that the data contributes to a run's numbers."""
    hasher = hashlib.blake2b(repr((card.task, card.classes)).encode(), digest_size=16)
    groups = ["group"] if "group" in samples.column_names else []
    for split, rows in sorted(splits.items()):
        used = samples.select(["id", *groups]).take(pa.array(rows))
        for column in used.column_names:
            # The lengths too: otherwise ("ab", "c") and ("a", "bc") would be one list.
            values = [str(value) for value in used[column].to_pylist()]
            hasher.update(f"{split} {column} {list(map(len, values))}".encode())
            hasher.update("".join(values).encode(errors="surrogatepass"))
        hasher.update(np.ascontiguousarray(targets[rows]).tobytes())
        for name, store in sorted(features.items()):
            hasher.update(f"{name} {store.dim} {store.dtype}".encode())
            hasher.update(store.checksums[rows].tobytes() + present_lengths(store)[rows].tobytes())
    return hasher.hexdigest()


def encoder_of(store: Features) -> dict[str, Any]:
    """A store's identity without what belongs to its samples: what a trained model must find again in other data."""
    known = store.identity.as_dict()
    known["fields"] = {name: value for name, value in known["fields"].items() if name not in OF_THE_SAMPLES}
    return known
