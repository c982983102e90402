"""Arrays that are features already, as a cached dataset: the one writer behind every layout of `pgm import`.

Takes (N, D) vectors (one token a sample), (N, S, D) tokens with optional lengths, or packed tokens, from any file or
from Python. float16 stays float16; bfloat16 and float32 become float32 without loss, float64 and integers by rounding,
as published features come in every scale; unless asked otherwise. Where the arrays came from, with each file's digest,
stands in the dataset's card.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...cache.dataset import CachedDataset, DatasetCard, Place, open_dataset, publish, refuse_earlier
from ...cache.dataset.samples import check_samples
from ...cache.errors import UserError
from ...cache.segment import Stored
from ...cache.segment.encoding import unfit_rows
from ...cache.storage import storage_at
from ..tasks import labels_are_scores, metrics_of
from .imported import SPLIT_NAMES, PackedTokens
from .padding import frames_of, kept_dtype, pack
from .store import PackedModality, store_packed


@dataclass(frozen=True, eq=False)
class ArrayModality:
    """One modality: tokens (N, D) or (N, S, D); lengths (N,) real tokens a sample, where S is padded at the end.

    source: where the array came from, as `source_of` says it; by default a digest of the values.
    """

    tokens: NDArray[Any]
    lengths: NDArray[np.integer[Any]] | None = None
    source: Mapping[str, Any] | None = None

    def origin(self) -> dict[str, Any]:
        """What stands in the dataset's card."""
        fields = dict(self.source) if self.source is not None else {"digest": digest_of(self.tokens)}
        # Other lengths of the same array are other tokens.
        return fields if self.lengths is None else {**fields, "lengths": digest_of(np.asarray(self.lengths, np.int64))}


def digest_of(array: NDArray[Any]) -> str:
    """32 hex digits of an array's values."""
    return hashlib.blake2b(np.ascontiguousarray(array).data, digest_size=16).hexdigest()


def import_arrays(
    features: Place,
    name: str,
    modalities: Mapping[str, ArrayModality | PackedTokens],
    labels: NDArray[Any],
    splits: Sequence[str],
    *,
    task: str = "classification",
    ids: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    notes: Sequence[str] = (),
    store: Stored | None = None,
    metric: str | None = None,
    folds: Sequence[int] | None = None,
) -> CachedDataset:
    """Write a dataset and one store a modality under `features`, a folder or URL; returns the dataset.

    labels: (N,) scores for sentiment; class names, or integers, which `classes` names (default: their own digits).
    splits: (N,) train, val (or valid, dev) and test. groups: (N,) video or dialogue, kept whole when a
    validation split is carved. folds: (N,) of the dataset's own. metric: what rows are compared on, by default the
    task's. store: how tokens are kept; by default float16 as float16, all else as float32.
    The same arrays again write nothing; more samples of them write those.
    Raises UserError for shapes and values that do not fit.
    """
    count = len(labels)
    ids = list(ids) if ids is not None else [f"{row:06d}" for row in range(count)]
    sources = {
        modality: array.origin() if isinstance(array, ArrayModality) else dict(array.source)
        for modality, array in modalities.items()
    }
    stores = [
        modality_of(modality, packed(modality, array, count), sources[modality], store)
        for modality, array in modalities.items()
    ]
    column, names = label_column(labels, task, classes)
    columns = sample_columns(ids, splits, column, groups)
    if folds is not None:
        columns["fold"] = np.asarray(folds, np.int32)
    for modality in stores:
        check_fits(modality, ids)
    split = columns["split"]
    sizes: dict[str, int] = {part: split.count(part) for part in ("train", "val", "test") if part in split}
    card = DatasetCard(
        name, task, tuple(names), metrics_of(task, metric), splits=sizes, source=sources, notes=tuple(notes)
    )
    samples = pa.table(columns)
    check_samples(samples)
    dataset = storage_at(features).under(name)
    refuse_earlier(dataset)
    versions = dict(store_packed(dataset, modality, ids) for modality in stores)
    publish(dataset, card, samples, versions, {modality.name: modality.lengths > 0 for modality in stores})
    return open_dataset(features, name)


def modality_of(
    name: str, values: tuple[NDArray[Any], NDArray[np.int64]], source: Mapping[str, Any], store: Stored | None
) -> PackedModality:
    """What is to be stored, and as what."""
    tokens, lengths = values
    return PackedModality(
        name, tokens, lengths, source, store or ("float16" if tokens.dtype == np.float16 else "float32")
    )


def sample_columns(
    ids: Sequence[str], splits: Sequence[str], labels: NDArray[Any], groups: Sequence[str] | None
) -> dict[str, Any]:
    """The columns of the samples' table. Raises UserError where one has another length, or a split is unknown."""
    split = [SPLIT_NAMES.get(text_of(value).strip().lower(), "") for value in splits]
    columns: dict[str, Any] = {"id": ids, "split": split, "label": labels}
    if groups is not None:
        columns["group"] = [str(group) for group in groups]
    for what, values in columns.items():
        if len(values) != len(labels):
            raise UserError(
                f"There are {len(labels):,} labels and {len(values):,} values of {what!r}; they must be as many."
            )
    if "" in split:
        raise UserError(
            f"Sample {ids[split.index('')]!r} has split {splits[split.index('')]!r}; use train, val or test."
        )
    return columns


def label_column(labels: NDArray[Any], task: str, classes: Sequence[str] | None) -> tuple[NDArray[Any], Sequence[str]]:
    """The label column and the class names. Raises UserError for labels the task cannot use."""
    labels = tidy(labels)
    if labels.ndim != 1:
        raise UserError(f"The labels have shape {labels.shape}; expected one a sample, (N,).")
    if labels_are_scores(task, labels):
        if labels.dtype.kind not in "iuf" or not np.isfinite(labels).all():
            raise UserError(f"--task {task} needs a number for every sample; the labels are {labels.dtype}.")
        return labels.astype(np.float64), ()
    if labels.dtype.kind == "U":
        names = list(classes) if classes is not None else sorted({str(label) for label in labels})
        unknown = sorted({str(label) for label in labels} - set(names))
        if unknown:
            raise UserError(f"Label {unknown[0]!r} is none of the classes {', '.join(names)}.")
        place = {label: index for index, label in enumerate(names)}
        return np.array([place[str(label)] for label in labels], np.int32), names
    if labels.dtype.kind == "f" and not (np.isfinite(labels).all() and (labels == np.round(labels)).all()):
        raise UserError(f"Labels of type {labels.dtype} are neither names nor whole numbers; is this --task sentiment?")
    numbers = labels.astype(np.int32)
    names = list(classes) if classes is not None else [str(i) for i in range(int(numbers.max(initial=0)) + 1)]
    if numbers.min(initial=0) < 0 or numbers.max(initial=0) >= len(names):
        raise UserError(
            f"Labels run from {numbers.min()} to {numbers.max()}; {len(names)} classes have 0 to {len(names) - 1}."
        )
    return numbers, names


def tidy(values: Any) -> NDArray[Any]:
    """Labels, ids or splits as an array of numbers or of text, whichever way a file kept them."""
    array = np.asarray(values)
    if array.dtype.kind == "O":
        items = [item.item() if isinstance(item, np.ndarray) and item.size == 1 else item for item in array.ravel()]
        named = any(isinstance(item, str | bytes) for item in items)
        array = np.array([text_of(item) for item in items] if named else items).reshape(array.shape)
        if array.dtype.kind == "O":
            raise UserError(f"Values such as {items[0]!r} are neither numbers nor text.")
    if array.dtype.kind == "S":
        array = np.array([text_of(item) for item in array.ravel()], np.str_).reshape(array.shape)
    return array.astype(np.int64) if array.dtype.kind == "b" else array


def text_of(value: Any) -> str:
    """Text that a file may have kept as bytes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def packed(modality: str, array: ArrayModality | PackedTokens, count: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Packed tokens (T, D), float16 or float32, and lengths (N,)."""
    if isinstance(array, PackedTokens):
        if len(array.lengths) != count:
            raise UserError(f"The {modality} array has {len(array.lengths):,} samples and there are {count:,} labels.")
        assert int(array.lengths.sum()) == len(array.tokens), f"{modality}: lengths do not add up to the tokens"
        return np.asarray(array.tokens, kept_dtype(array.tokens)), array.lengths
    tokens = array.tokens
    if tokens.dtype.kind not in "fiu" or tokens.ndim not in (2, 3) or len(tokens) != count:
        raise UserError(
            f"The {modality} array is {tokens.dtype} of shape {tokens.shape}; expected numbers of shape "
            f"({count}, D) or ({count}, S, D), one row a label."
        )
    tokens = frames_of(tokens)
    longest = tokens.shape[1]
    if array.lengths is None:
        lengths = np.full(count, longest, np.int64)
        with np.errstate(over="ignore"):
            return tokens.reshape(-1, tokens.shape[2]).astype(kept_dtype(tokens), copy=False), lengths
    lengths = np.asarray(array.lengths, np.int64)
    if lengths.shape != (count,) or lengths.min(initial=0) < 0 or lengths.max(initial=0) > longest:
        raise UserError(f"The lengths of {modality} must be {count} numbers from 0 to {longest}; got {lengths.shape}.")
    return pack([tokens], [lengths]), lengths


def check_fits(modality: PackedModality, ids: Sequence[str]) -> None:
    """Raises UserError, before anything is written, where a value is not finite or beyond what it is stored as."""
    bad = unfit_rows(modality.tokens, modality.stored)
    if len(bad):
        row = int(np.searchsorted(np.cumsum(modality.lengths), int(bad[0]), side="right"))
        what = f"The {modality.name} features of sample {ids[row]!r} hold"
        if np.isfinite(modality.tokens[bad[0]]).all():
            largest = np.abs(modality.tokens[bad[0]]).max()
            raise UserError(f"{what} {largest:g}; {modality.stored} has numbers up to 65504. Use --store float32.")
        raise UserError(
            f"{what} NaN, an infinity or a number beyond float32, which no training survives. --clean makes such "
            "values 0 and counts them."
        )
