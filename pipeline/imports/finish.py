"""The last steps of every import: task and classes by the dataset's name, splits where none are given, the write."""

from __future__ import annotations

from dataclasses import replace

from ...cache.dataset import CachedDataset
from ...cache.segment import Stored
from ..tasks import checked_task, labels_are_scores
from .arrays import import_arrays, tidy
from .imported import Imported
from .known import KNOWN, classes_for

__all__ = ["chosen_task", "finished", "write_imported"]


def chosen_task(name: str, asked: str | None) -> str | None:
    """The task that was asked for, or the one dataset `name` is known for. Raises UserError for a mistyped one."""
    if asked is None:
        return KNOWN[name].task if name in KNOWN else None
    return checked_task(asked)


def finished(name: str, imported: Imported, task: str | None) -> Imported:
    """The dataset with its task, classes and splits decided; what was decided here is in the notes."""
    task = task or imported.task or "classification"
    labels, notes = tidy(imported.labels), list(imported.notes)
    classes = imported.classes
    scores = labels_are_scores(task, labels)
    if scores:
        classes = None
    elif classes is None:
        classes = classes_for(name, task, labels)
        known = KNOWN[name].classes if name in KNOWN and KNOWN[name].task == task else None
        numbered = labels.dtype.kind in "iuf" and len(labels) > 0
        if classes is None and known and numbered and labels.min() == 1 and labels.max() == len(known):
            labels, classes = labels - 1, known
            notes.append(f"The labels run from 1 to {len(known)}; they are the classes of {name} counted from 1.")
    splits = imported.splits
    if splits is None:
        from ..datasets.splitting import SEED, draw_splits

        by = None if scores else labels
        splits, how = draw_splits(len(labels), by, list(imported.groups) if imported.groups is not None else None)
        notes.append(f"No split was given: 70/10/20 drawn {how} with seed {SEED}.")
    return replace(imported, labels=labels, splits=splits, task=task, classes=classes, notes=tuple(notes))


def write_imported(features: str, name: str, imported: Imported, store: Stored | None = None) -> CachedDataset:
    """Put a finished import into the cache below a folder or URL; returns the dataset."""
    assert imported.splits is not None, "finish an import before writing it"
    assert imported.task is not None, "finish an import before writing it"
    return import_arrays(
        features,
        name,
        dict(imported.modalities),
        imported.labels,
        imported.splits,
        task=imported.task,
        ids=imported.ids,
        groups=imported.groups,
        classes=imported.classes,
        notes=(*imported.notes, *imported.warnings),
        store=store,
        metric=imported.metric,
        folds=imported.folds,
    )
