"""The generic mapping: which named arrays are tokens, labels, splits, ids and groups, for files of no known layout."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...cache.errors import NotFound, UserError
from ...cache.nearest import did_you_mean
from .arrays import digest_of, text_of, tidy
from .containers import Opened, array_of, described, opened
from .files import value_of
from .imported import SPLIT_NAMES, Imported, PackedTokens
from .label_table import LabelTable, read_label_table
from .padding import clean, frames_of, kept_dtype, pack, pack_list, strip_padding

TABLES = (".csv", ".tsv", ".jsonl")


@dataclass(frozen=True)
class Request:
    """tokens and lengths map a modality to keys; two keys with a comma are put one below the other.

    labels: a key, or the path of a table or of a file with one array.
    """

    tokens: Mapping[str, str]
    labels: str
    lengths: Mapping[str, str] = field(default_factory=dict)
    split: str | None = None
    ids: str | None = None
    group: str | None = None
    strip_padding: bool = False
    clean: bool = False


class Arrays:
    """The named arrays of one file or several; a name that two files have is written FILE:NAME."""

    def __init__(self, files: Sequence[Opened]) -> None:
        self.files = files
        self.places: dict[str, list[tuple[Opened, str]]] = {}
        for file in files:
            for name in file.names:
                self.places.setdefault(name, []).append((file, name))
                if len(files) > 1:
                    self.places.setdefault(f"{file.path.name}:{name}", []).append((file, name))

    def __contains__(self, key: str) -> bool:
        return key in self.places

    def place(self, key: str) -> tuple[Opened, str]:
        """The file and the name in it. Raises NotFound with the nearest name, UserError for a name of two files."""
        if len(self.files) == 1:
            value_of(self.files[0].names, key, self.files[0].path)
            return self.files[0], key
        found = self.places.get(key, [])
        if len(found) == 1:
            return found[0]
        if found:
            raise UserError(
                f"{len(found)} files have an array {key!r}; write for example {found[0][0].path.name}:{key}."
            )
        held = "; ".join(f"{file.path.name}: {described(file.names)}" for file in self.files)
        raise NotFound(f"No file has an array {key!r}. {held}.{did_you_mean(key, self.places)}")

    def values(self, keys: str) -> list[Any]:
        """What the files have under each of the keys."""
        return [value_of(file.names, name, file.path) for file, name in map(self.place, keys.split(","))]

    def array(self, keys: str) -> NDArray[Any]:
        """(N,) numbers or text, from arrays of (N,) or (N, 1)."""
        parts = []
        for key in keys.split(","):
            file, name = self.place(key)
            part = tidy(array_of(value_of(file.names, name, file.path), name, file.path))
            if part.size != max(part.shape, default=1):
                raise UserError(f"{key!r} has shape {part.shape}; expected one value a sample, (N,).")
            parts.append(part.reshape(-1))
        return np.concatenate(parts)

    def source(self, keys: str, **more: Any) -> dict[str, Any]:
        """What stands in the store's identity."""
        places = [self.place(key) for key in keys.split(",")]
        first = places[0][0]
        others = [file for file in dict.fromkeys(file for file, _ in places) if file is not first]
        if others:
            more["others"] = [{"file": file.path.name, "digest": file.digest} for file in others]
        return first.source(",".join(name for _, name in places), **more)


def mapped(files: Sequence[Opened], request: Request) -> Imported:
    """The dataset that a request describes. Raises NotFound for a key that is not there, UserError for what misfits."""
    arrays = Arrays(files)
    modalities: dict[str, PackedTokens] = {}
    notes: list[str] = []
    for name in request.tokens:
        modalities[name], said = modality(arrays, request, name)
        notes += said
    first = next(iter(request.tokens))
    ids = None if request.ids is None else [text_of(one) for one in arrays.array(request.ids).tolist()]
    labels, table = labels_of(arrays, request.labels, ids)
    splits = None if request.split is None else [text_of(one) for one in arrays.array(request.split).tolist()]
    if splits is None and table is not None:
        splits = table.splits()
    if splits is None:
        splits = stacked_splits(arrays, request.tokens[first])
    groups = None if request.group is None else [text_of(one) for one in arrays.array(request.group).tolist()]
    if table is not None:
        ids = ids or (table.texts("id") if "id" in table.columns else None)
        groups = groups or table.optional("group")
    names = ids if ids is not None else [f"{row:06d}" for row in range(len(labels))]
    return Imported(modalities, labels, names, splits, groups, notes=tuple(notes))


def modality(arrays: Arrays, request: Request, name: str) -> tuple[PackedTokens, list[str]]:
    """One modality: (N, S, D), (N, D), or a list of (S, D), in one array or several."""
    keys = request.tokens[name]
    real = arrays.array(request.lengths[name]) if name in request.lengths else None
    more: dict[str, Any] = {} if real is None else {"lengths": digest_of(real.astype(np.int64))}
    notes = []
    try:
        parts = [listed(value, key, arrays) for key, value in zip(keys.split(","), arrays.values(keys), strict=True)]
        if all(isinstance(part, np.ndarray) for part in parts):
            frames = [frames_of(part) for part in parts]
            tokens, lengths, stripped = unpadded(frames, real, request.strip_padding)
            more |= {"padding": stripped} if stripped else {}
        elif real is not None:
            raise UserError("a list of samples has its lengths already; leave out --lengths")
        else:
            packs = [part if isinstance(part, PackedTokens) else whole(part) for part in parts]
            tokens = packs[0].tokens if len(packs) == 1 else np.concatenate([one.tokens for one in packs])
            tokens = tokens.astype(kept_dtype(tokens), copy=request.clean)
            lengths = np.concatenate([one.lengths for one in packs])
    except UserError as error:
        raise type(error)(f"{name} ({keys}): {error}") from error
    if request.clean and (cleaned := clean(tokens)):
        more["cleaned"] = cleaned
        notes.append(f"{name}: {cleaned:,} values that were infinite or NaN are now 0.")
    return PackedTokens(tokens, lengths, arrays.source(keys, **more)), notes


def listed(value: Any, key: str, arrays: Arrays) -> Any:
    """An array of numbers, or packed tokens where the file keeps samples of different lengths."""
    if isinstance(value, PackedTokens):
        return value
    array = array_of(value, key, arrays.place(key)[0].path)
    return packed_list(array) if array.dtype.kind == "O" else array


def packed_list(array: NDArray[Any]) -> PackedTokens:
    """A list or cell array of (S, D) or (D,)."""
    return PackedTokens(*pack_list([None if one is None else np.asarray(one) for one in array.ravel()]), {})


def whole(array: NDArray[Any]) -> PackedTokens:
    """An array without padding, beside one that is a list."""
    frames = frames_of(array)
    lengths = np.full(len(frames), frames.shape[1], np.int64)
    return PackedTokens(pack([frames], [lengths]), lengths, {})


def unpadded(
    frames: Sequence[NDArray[Any]], real: NDArray[Any] | None, strip: bool
) -> tuple[NDArray[Any], NDArray[np.int64], str]:
    """Tokens, lengths and the padded end, if it was looked for."""
    bounds = np.cumsum([len(part) for part in frames])[:-1]
    if strip:
        given = [None] * len(frames) if real is None else np.split(real, bounds)
        found = strip_padding(frames, given, cleaning=False)
        return found.tokens, found.lengths, found.side
    if real is None:
        lengths = [np.full(len(part), part.shape[1], np.int64) for part in frames]
        return pack(frames, lengths), np.concatenate(lengths), ""
    count, longest = sum(map(len, frames)), max(part.shape[1] for part in frames)
    if real.shape != (count,) or real.min(initial=0) < 0 or real.max(initial=0) > longest:
        raise UserError(f"the lengths must be {count} numbers from 0 to {longest}; got {real.shape}")
    lengths = np.split(real.astype(np.int64), bounds)
    return pack(frames, lengths), np.concatenate(lengths), ""


def labels_of(arrays: Arrays, labels: str, ids: Sequence[str] | None) -> tuple[NDArray[Any], LabelTable | None]:
    """(N,) labels by key, or from another file: a table, joined by id where there are ids, or one array."""
    path = Path(labels)
    if labels in arrays or not path.is_file():
        return arrays.array(labels), None
    if path.suffix.lower() not in TABLES:
        with opened(path) as file:
            if len(file.names) != 1:
                raise UserError(f"{path.name} holds {described(file.names)}; one array of labels was expected.")
            return Arrays([file]).array(next(iter(file.names))), None
    table = read_label_table(path)
    if ids is None or "id" not in table.columns:
        return table.labels(), table
    rows = {name: row for row, name in enumerate(table.texts("id"))}
    if unknown := [name for name in ids if name not in rows]:
        raise NotFound(f"{path.name} has no row for {len(unknown):,} samples, the first {unknown[0]!r}.")
    joined = LabelTable(path, [table.rows[rows[name]] for name in ids], table.columns)
    return joined.labels(), joined


def stacked_splits(arrays: Arrays, keys: str) -> list[str] | None:
    """The splits that stacked arrays are: by their names (`train/text`, `T_te`), else two are train and test."""
    listing = keys.split(",")
    if len(listing) == 1:
        return None
    found = [split_named(key) for key in listing]
    if not all(found):
        if len(listing) != 2:
            raise UserError(f"{len(listing)} stacked arrays: say which rows are train and test with --split KEY.")
        found = ["train", "test"]
    counts = [
        len(value.lengths if isinstance(value, PackedTokens) else array_of(value, key, arrays.files[0].path))
        for key, value in zip(listing, arrays.values(keys), strict=True)
    ]
    return [split for split, count in zip(found, counts, strict=True) for _ in range(count)]


def split_named(key: str) -> str:
    """The split that an array's name speaks of; empty for none."""
    words = re.split(r"[^a-z]+", key.lower())
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), "")
