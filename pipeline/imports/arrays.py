"""Arrays that are features already, as a cached dataset: `pgm import NAME FILE --modality M --tokens KEY --labels KEY`.

Takes (N, D) vectors (one token a sample) or (N, S, D) tokens with optional lengths, from .npz, .mat or Python. Values
are kept in float32, because published features come in every scale. Provenance "imported", with the file's digest,
stands in the store's identity.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...cache import DatasetCard, FeatureWriter, Identity, Items, Layout, write_dataset, write_shard
from ...cache.errors import UserError
from ...cache.identity import ids_digest

Task = Literal["classification", "emotion", "sentiment", "retrieval"]
METRICS: dict[str, tuple[str, ...]] = {
    "classification": ("accuracy", "weighted_f1"),
    "emotion": ("accuracy", "weighted_f1"),
    "sentiment": ("acc2_has0", "f1_has0", "acc2_non0", "f1_non0", "acc5", "acc7", "mae", "corr"),
    "retrieval": ("map", "p10"),
}
SHARD_TOKENS = 1 << 14
SPLIT_NAMES = {"train": "train", "training": "train", "val": "val", "valid": "val", "dev": "val", "test": "test"}


@dataclass(frozen=True, eq=False)
class ArrayModality:
    """One modality: tokens (N, D) or (N, S, D); lengths (N,) real tokens a sample, where S is padded at the end.

    source: where the array came from, as `source_of` says it; by default a digest of the values.
    """

    tokens: NDArray[Any]
    lengths: NDArray[np.integer[Any]] | None = None
    source: Mapping[str, Any] | None = None

    def origin(self) -> dict[str, Any]:
        """What stands in the store's identity."""
        if self.source is not None:
            return dict(self.source)
        return {"digest": hashlib.blake2b(np.ascontiguousarray(self.tokens).tobytes(), digest_size=16).hexdigest()}


def import_arrays(
    features: Path,
    name: str,
    modalities: Mapping[str, ArrayModality],
    labels: NDArray[Any],
    splits: Sequence[str],
    *,
    task: Task = "classification",
    ids: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Write a dataset and one store a modality under `features`/`name`; returns the dataset's folder.

    labels: (N,) scores for sentiment; class names, or integers, which `classes` names (default: their own digits).
    splits: (N,) train, val (or valid, dev) and test. groups: (N,) video or dialogue, kept whole when a
    validation split is carved. The same arrays again find their finished stores.
    Raises UserError for shapes and values that do not fit.
    """
    count = len(labels)
    ids = list(ids) if ids is not None else [f"{row:06d}" for row in range(count)]
    column, names = label_column(labels, task, classes)
    split = [SPLIT_NAMES.get(str(value).lower(), "") for value in splits]
    columns: dict[str, Any] = {"id": ids, "split": split, "label": column}
    if groups is not None:
        columns["group"] = [str(group) for group in groups]
    for what, values in columns.items():
        if len(values) != count:
            raise UserError(f"There are {count:,} labels and {len(values):,} values of {what!r}; they must be as many.")
    if "" in split:
        raise UserError(
            f"Sample {ids[split.index('')]!r} has split {splits[split.index('')]!r}; use train, val or test."
        )
    stores = {modality: packed(modality, array, count) for modality, array in modalities.items()}
    folder = features / name
    source = {modality: array.origin() for modality, array in modalities.items()}
    sizes: dict[str, int] = {part: split.count(part) for part in ("train", "val", "test") if part in split}
    card = DatasetCard(name, task, tuple(names), METRICS[task], splits=sizes, source=source, notes=tuple(notes))
    write_dataset(folder, card, pa.table(columns))
    for modality, (tokens, lengths) in stores.items():
        write_store(folder, modality, tokens, lengths, ids, source[modality])
    return folder


def label_column(labels: NDArray[Any], task: Task, classes: Sequence[str] | None) -> tuple[NDArray[Any], Sequence[str]]:
    """The label column and the class names. Raises UserError for labels the task cannot use."""
    if task == "sentiment":
        return labels.astype(np.float64), ()
    if labels.dtype.kind in "US":
        names = list(classes) if classes is not None else sorted({str(label) for label in labels})
        unknown = sorted({str(label) for label in labels} - set(names))
        if unknown:
            raise UserError(f"Label {unknown[0]!r} is none of the classes {', '.join(names)}.")
        place = {label: index for index, label in enumerate(names)}
        return np.array([place[str(label)] for label in labels], np.int32), names
    if labels.dtype.kind not in "iub":
        raise UserError(f"Labels of type {labels.dtype} are neither names nor whole numbers; is this --task sentiment?")
    numbers = labels.astype(np.int32)
    names = list(classes) if classes is not None else [str(i) for i in range(int(numbers.max(initial=0)) + 1)]
    if numbers.min(initial=0) < 0 or numbers.max(initial=0) >= len(names):
        raise UserError(
            f"Labels run from {numbers.min()} to {numbers.max()}; {len(names)} classes have 0 to {len(names) - 1}."
        )
    return numbers, names


def packed(modality: str, array: ArrayModality, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Packed tokens (T, D) float32 and lengths (N,)."""
    tokens = array.tokens
    if tokens.dtype.kind not in "fiu" or tokens.ndim not in (2, 3) or len(tokens) != count:
        raise UserError(
            f"The {modality} array is {tokens.dtype} of shape {tokens.shape}; expected numbers of shape "
            f"({count}, D) or ({count}, S, D), one row a label."
        )
    tokens = tokens[:, None, :] if tokens.ndim == 2 else tokens
    longest = tokens.shape[1]
    if array.lengths is None:
        return tokens.reshape(-1, tokens.shape[2]).astype(np.float32), np.full(count, longest, np.int64)
    lengths = np.asarray(array.lengths, np.int64)
    if lengths.shape != (count,) or lengths.min(initial=0) < 0 or lengths.max(initial=0) > longest:
        raise UserError(f"The lengths of {modality} must be {count} numbers from 0 to {longest}; got {lengths.shape}.")
    return tokens[np.arange(longest) < lengths[:, None]].astype(np.float32), lengths


def write_store(
    folder: Path,
    modality: str,
    tokens: NDArray[np.float32],
    lengths: NDArray[np.int64],
    ids: list[str],
    source: Mapping[str, Any],
) -> None:
    """One finished store, or the one that is there already."""
    from_file = Path(str(source.get("file", "arrays"))).stem
    fields = {"provenance": "imported", "stored_dtype": "float32", "samples": ids_digest(ids), **source}
    identity = Identity(modality, f"imported-{from_file}", fields)
    path = folder / identity.folder
    if (path / "store.json").exists():
        return
    layout = Layout(lengths, tokens.shape[1], SHARD_TOKENS, stored="float32")
    missing = {int(row): "no tokens in the imported array" for row in np.flatnonzero(lengths == 0)}
    with FeatureWriter(path, identity, layout, ids) as writer:
        for shard in writer.pending():
            start, stop = layout.bounds(shard)
            write_shard(path, shard, tokens[start:stop])
        writer.finalize(Items.of(layout, ids, missing=missing))
