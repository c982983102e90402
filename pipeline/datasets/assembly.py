"""From an adapter's columns to a `Collection`: one table, one card, the same names everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ...cache.dataset import DatasetCard
from ..collection import Collection, count_splits
from ..media import Media
from ..tasks import METRICS, labels_are_scores


def assemble(
    name: str,
    task: str,
    classes: Sequence[str],
    columns: Mapping[str, Sequence[Any]],
    media: Mapping[str, Sequence[Media | None]],
    source: Mapping[str, Any],
    notes: Sequence[str] = (),
) -> Collection:
    """`columns` (id, split, label, perhaps group and more) and `media`, each with one value a sample.

    Labels are stored as float32 scores or int32 classes (`labels_are_scores`). A modality no sample has is left
    out, with a warning. Empty notes are dropped.
    """
    scores = labels_are_scores(task, np.asarray(columns.get("label", ())))
    label_type = pa.float32() if scores else pa.int32()
    samples = pa.table({key: pa.array(v, label_type) if key == "label" else v for key, v in columns.items()})
    kept = {modality: sources for modality, sources in media.items() if any(item is not None for item in sources)}
    absent = [modality for modality in media if modality not in kept]
    warnings: list[str] = []
    if absent:
        has = f"the dataset has {' and '.join(kept) or 'nothing'} alone"
        warnings.append(f"Nothing of {' and '.join(absent)} was found under the root: {has}.")
    card = DatasetCard(
        name=name,
        task=task,
        classes=tuple(classes),
        metrics=METRICS.get(task, ()),
        splits=count_splits(samples),
        source=dict(source),
        notes=tuple(note for note in (*notes, *warnings) if note),
    )
    return Collection(card, samples, kept, tuple(warnings))


def said(count: int, singular: str, plural: str) -> str:
    """`count` with the right word, as a note; empty for none."""
    return f"{count:,} {singular if count == 1 else plural}." if count else ""
