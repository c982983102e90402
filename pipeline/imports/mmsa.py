"""MMSA's feature pickles (aligned_50.pkl, unaligned_50.pkl of MOSI, MOSEI, SIMS).

    {"train", "valid", "test"} -> text (N, 50, 768), audio, vision (N, S, D), id "<video>$_$<clip>", regression_labels,
    classification_labels 0/1/2, annotations, and in some releases text_bert (N, 3, 50) and *_lengths

S differs between the splits and releases, so it is read from the arrays. Lengths come from *_lengths; for text from the
mask in text_bert; else from the frames that are not zero. Ids are kept as they are, the video is the group.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import text_of
from .containers import Opened
from .imported import Imported, Options, PackedTokens
from .split_pickles import Part, column_of, packed_modality, parts_of, present, stacked

SEPARATOR = "$_$"


def recognises(files: Sequence[Opened]) -> bool:
    """Whether the one file is an MMSA pickle."""
    parts = parts_of(files)
    return bool(parts) and all("regression_labels" in part for _, part in parts)


def read(files: Sequence[Opened], options: Options) -> Imported:
    """The samples of an MMSA pickle; with --task classification the classes it annotates."""
    file, parts = files[0], parts_of(files)
    modalities: dict[str, PackedTokens] = {}
    notes: list[str] = []
    for name in present(parts, options.modalities):
        modalities[name], stripped = packed_modality(file, parts, "mmsa", name, [lengths_of(p, name) for p in parts])
        notes += stripped.said(name)
    if "text" not in modalities and not options.modalities and all("text_bert" in part for _, part in parts):
        notes.append("text_bert holds token numbers, not features; text was left out.")
    ids = [text_of(one) for part in column_of(parts, "id", file) for one in np.ravel(part).tolist()]
    categorical = options.task in ("classification", "emotion")
    labels = stacked(column_of(parts, "classification_labels" if categorical else "regression_labels", file))
    task = options.task if categorical and options.task else "sentiment"
    return Imported(
        modalities,
        labels.astype(np.int64) if categorical else labels.astype(np.float64),
        ids,
        splits=[split for (split, _), part in zip(parts, column_of(parts, "id", file), strict=True) for _ in part],
        groups=[one.split(SEPARATOR)[0] for one in ids] if all(SEPARATOR in one for one in ids) else None,
        task=task,
        classes=class_names(labels, parts) if categorical else None,
        notes=tuple(notes),
    )


def class_names(labels: NDArray[Any], parts: Sequence[Part]) -> tuple[str, ...] | None:
    """The annotations in the order of their labels; None where the file has none for every class, or contradicts."""
    written = [text_of(one) for _, part in parts for one in np.ravel(part.get("annotations", ()))]
    pairs = set(zip(labels.astype(int).tolist(), (one.lower() for one in written), strict=len(written) > 0))
    names = dict(sorted(pairs))
    whole = len(pairs) == len(names) == len(set(names.values())) and list(names) == list(range(len(names)))
    return tuple(names.values()) if whole and names else None


def lengths_of(part: Part, name: str) -> NDArray[np.int64] | None:
    """(N,) real frames where the file says them; None where they are found by the zero frames."""
    values: dict[str, Any] = part[1]
    if f"{name}_lengths" in values:
        return np.asarray(values[f"{name}_lengths"], np.int64).reshape(-1)
    if name != "text" or "text_bert" not in values:
        return None
    mask = np.asarray(values["text_bert"])
    if mask.ndim != 3 or mask.shape[1] != 3:
        return None
    real = (mask[:, 1] > 0).sum(axis=1)
    # Only a mask of ones and then zeros counts frames from the start.
    whole = ((mask[:, 1] > 0) == (np.arange(mask.shape[2]) < real[:, None])).all()
    fits = np.shape(values["text"])[1:2] == mask.shape[2:]
    return real.astype(np.int64) if whole and fits else None
