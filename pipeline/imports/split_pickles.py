"""Pickles with one dict a split, {"train": {...}, "valid": {...}, "test": {...}}: what MMSA's and MulT's share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...cache.errors import UserError
from .arrays import digest_of, text_of
from .containers import Opened
from .imported import SPLIT_NAMES, PackedTokens
from .padding import Stripped, strip_padding

MODALITIES = ("text", "audio", "vision")
Part = tuple[str, dict[str, Any]]


def parts_of(files: Sequence[Opened]) -> list[Part]:
    """(split, its dict) in the file's order; empty where the one file is nothing of the kind."""
    if len(files) != 1 or files[0].kind != "pickle" or not isinstance(files[0].value, dict):
        return []
    parts = [(SPLIT_NAMES.get(text_of(key).lower(), ""), part) for key, part in files[0].value.items()]
    return parts if parts and all(split and isinstance(part, dict) for split, part in parts) else []


def column_of(parts: Sequence[Part], key: str, file: Opened) -> list[Any]:
    """One key's value in every split. Raises UserError where a split lacks it."""
    for split, part in parts:
        if key not in part:
            raise UserError(f"The {split} part of {file.path.name} has no {key!r}; it has {', '.join(map(str, part))}.")
    return [part[key] for _, part in parts]


def packed_modality(
    file: Opened, parts: Sequence[Part], layout: str, name: str, lengths: Sequence[Any]
) -> tuple[PackedTokens, Stripped]:
    """One modality of all splits without its padding. Raises UserError, naming it, for a shape that is none."""
    arrays = [np.asarray(value) for value in column_of(parts, name, file)]
    try:
        stripped = strip_padding(arrays, lengths)
    except UserError as error:
        raise UserError(f"{name} of {file.path.name}: {error}") from error
    keys = ",".join(f"{text_of(key)}/{name}" for key in file.value)
    source = file.source(keys, layout=layout, padding=stripped.side, lengths=digest_of(stripped.lengths))
    return PackedTokens(stripped.tokens, stripped.lengths, source), stripped


def present(parts: Sequence[Part], wanted: Sequence[str]) -> list[str]:
    """The modalities that every split has, or the wanted ones. Raises UserError for one that is not there."""
    there = [name for name in MODALITIES if all(name in part for _, part in parts)]
    for name in wanted:
        if name not in there:
            raise UserError(f"The file has no {name!r} in every split; it has {', '.join(there) or 'no modality'}.")
    if not there:
        raise UserError(f"None of {', '.join(MODALITIES)} is in every split of the file.")
    return [name for name in there if name in wanted] if wanted else there


def stacked(values: Sequence[Any]) -> NDArray[Any]:
    """(N,) numbers of all splits, from lists, (N,), (N, 1) or (N, 1, 1)."""
    arrays = [np.asarray(value) for value in values]
    for array in arrays:
        if array.size != len(array):
            raise UserError(f"Labels of shape {array.shape} are several a sample; one each is read.")
    return np.concatenate([array.reshape(-1) for array in arrays])
