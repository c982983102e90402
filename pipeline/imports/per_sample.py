"""A folder of one .npy a sample, as MERTools writes them: <folder>/<id>.npy of shape (S, D) or (D,).

Several folders are several modalities, named by --modality in their order, else by their folders. Ids, labels, and if
it has them splits and groups, come from the table given by --labels. A sample without a file lacks the modality.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from ...cache.errors import NotFound, UserError
from ...cache.store.identity import slug
from ..media import FileMedia
from .arrays import digest_of
from .containers import Opened
from .imported import Imported, Options, PackedTokens
from .label_table import read_label_table
from .padding import pack_list


def recognises(files: Sequence[Opened]) -> bool:
    """Whether every path is a folder."""
    return all(file.kind == "folder" for file in files)


def read(files: Sequence[Opened], options: Options) -> Imported:
    """The samples of the table, in its order."""
    if options.labels is None:
        raise UserError(
            f"{files[0].path} is a folder of features, which says nothing of labels. Give a table with the columns id, "
            "label and perhaps split and group: --labels FILE.csv"
        )
    if options.modalities and len(options.modalities) != len(files):
        raise UserError(f"There are {len(files)} folders and {len(options.modalities)} --modality; name each folder.")
    names = options.modalities or tuple(slug(file.path.name) for file in files)
    if len(set(names)) != len(names):
        raise UserError(f"Two folders are both called {names[0]!r}; name them with one --modality each, in order.")
    table = read_label_table(options.labels, options.split_column)
    ids = table.texts("id")
    modalities, notes = {}, []
    for name, file in zip(names, files, strict=True):
        modalities[name], said = folder_modality(file.path, ids)
        notes += [f"{name}: {one}" for one in said]
    return Imported(
        modalities, table.labels(), ids, table.splits(), table.optional("group"), options.task, notes=tuple(notes)
    )


def folder_modality(folder: Path, ids: Sequence[str]) -> tuple[PackedTokens, list[str]]:
    """One folder's tokens in the order of ids, and what there is to say of it."""
    there = {path.stem: path for path in folder.iterdir() if path.suffix == ".npy" and not path.name.startswith(".")}
    if not there.keys() & set(ids):
        raise NotFound(
            f"No file of {folder} belongs to the table: it has {len(there):,} .npy files"
            f"{f' such as {min(there)}.npy' if there else ''}, and the table's first id is {ids[0]!r}."
        )
    hasher = xxhash.xxh3_128()
    for name in sorted(there.keys() & set(ids)):
        hasher.update(f"{name} {FileMedia(str(there[name])).digest()}\n".encode())
    tokens, lengths = pack_list([array_in(there[one]) if one in there else None for one in ids])
    source: dict[str, Any] = {"file": folder.name, "digest": hasher.hexdigest(), "key": "*.npy", "layout": "per_sample"}
    absent, extra = int((lengths == 0).sum()), len(there.keys() - set(ids))
    notes = [f"{absent:,} of {len(ids):,} samples have no file or an empty one."] if absent else []
    if extra:
        notes.append(f"{extra:,} files belong to no row of the table and were left out.")
    return PackedTokens(tokens, lengths, {**source, "lengths": digest_of(lengths)}), notes


def array_in(path: Path) -> NDArray[Any]:
    """One sample's array. Raises UserError for a damaged file and for pickled objects, which are never loaded."""
    try:
        array: NDArray[Any] = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{path} is not a readable .npy of numbers: {error}") from error
    return array
