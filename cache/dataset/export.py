"""Features for other tools: safetensors, npy, another format of store, and the pickle layout of MMSA.

Every export reads the store once, in the order of its samples, writes under a temporary name and renames. Numbers are
those a reader of the store sees: int8 leaves as float16.
"""

import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from ..errors import NotFound, UserError
from ..segment import Codec, Contents, Format, Items
from ..segment.encoding import Array
from ..segment.hdf5 import hdf5_objects
from ..segment.zarr import zarr_objects
from ..storage.local import LocalStorage, explain, write_parts
from ..storage.sealed_json import spelled
from ..store import Features
from .dataset import CachedDataset

Kind = Literal["safetensors", "npy", "hdf5", "zarr", "mmsa"]
SAMPLES = 512
MMSA_SPLITS = {"train": "train", "val": "valid", "test": "test"}


def export_store(features: Features, target: Path, kind: Kind, codec: Codec = "none") -> Path:
    """Write one store as `kind` at `target`, which must not exist; returns it.

    safetensors: one file with `tokens` (T, D), `offsets` (N+1,) and the ids and identity as metadata.
    npy: a folder with tokens.npy, offsets.npy and store.json (ids, identity).
    hdf5, zarr: one array of all samples, `tokens` (T, D), with `lengths` (N,), `checksums` and `items` beside it.
    Numbers are those a reader sees: int8 leaves as float16, and its identity says so.
    """
    if kind not in get_args(Kind) or kind == "mmsa":
        raise UserError(f"one store is exported as safetensors, npy, hdf5 or zarr, not as {kind!r}")
    _refuse_existing(target)
    if kind == "hdf5" or kind == "zarr":
        _atomically(target, lambda temporary: _dense(features, temporary, kind, codec))
    else:
        _atomically(target, lambda temporary: (_npy if kind == "npy" else _safetensors)(features, temporary))
    return target


def export_mmsa(dataset: CachedDataset, target: Path, wanted: dict[str, str] | None = None) -> Path:
    """All finished modalities of a dataset as MMSA's pickle: split -> id, one padded (N, S_max, D) array a modality.

    Zeros after each sample's tokens, true counts in `<modality>_lengths`, labels as `regression_labels` (sentiment) or
    `classification_labels`; the splits are named train, valid and test. A failed or missing sample has length 0.
    """
    _refuse_existing(target)
    stores = {modality: dataset.features(modality, (wanted or {}).get(modality)) for modality in dataset.modalities}
    if not stores:
        raise NotFound(f"{dataset.name} has no features to export; run `pgm extract {dataset.name}`")
    split = np.array(dataset.samples["split"].to_pylist())
    pickled = {
        old: _mmsa_split(dataset, stores, np.flatnonzero(split == new))
        for new, old in MMSA_SPLITS.items()
        if (split == new).any()
    }

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            pickle.dump(pickled, file, protocol=4)

    _atomically(target, write)
    return target


def _dense(features: Features, target: Path, format_: Format, codec: Codec) -> None:
    """All samples in one Zarr group or HDF5 file; needs memory for the whole store."""
    ids, errors = _ids(features), features.errors()
    sources = [source.tobytes().hex() for source in features.index.source]
    items = Items(ids, sources, [errors.get(row, "") for row in range(len(features))])
    contents = Contents(items, features.lengths, np.concatenate([*_rows(features), _nothing(features)]), None, codec)
    objects = zarr_objects(contents) if format_ == "zarr" else hdf5_objects(contents)
    if "" in objects:
        write_parts(target, objects[""])
    else:
        LocalStorage(target.parent).put_group(target.name, objects)


def _rows(features: Features) -> Iterator[Array]:
    """The tokens of all samples, in the order of the samples."""
    for start in range(0, len(features), SAMPLES):
        rows = np.arange(start, min(start + SAMPLES, len(features)))
        yield features.gather(rows, unavailable="empty")[0]


def _nothing(features: Features) -> Array:
    return np.empty((0, features.dim), features.dtype)


def _offsets(features: Features) -> Array:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(features.lengths)])


def _ids(features: Features) -> list[str]:
    """The ids of the samples, from the table of samples beside the store; their rows where there is none."""
    from .samples import ids_of

    return ids_of(features)


def _about(features: Features) -> dict[str, Any]:
    known = features.identity.as_dict()
    if features.store.stored == "int8":
        known["fields"] = {**known["fields"], "exported_from": "int8", "stored_dtype": "float16"}
    return {"identity": known, "ids": _ids(features), "status": features.status.tolist()}


def _npy(features: Features, folder: Path) -> None:
    folder.mkdir()
    shape = (features.version.tokens, features.dim)
    header = {"descr": features.dtype.str, "fortran_order": False, "shape": shape}
    with (folder / "tokens.npy").open("wb") as file:
        np.lib.format.write_array_header_2_0(file, header)
        for block in _rows(features):
            file.write(np.ascontiguousarray(block).data)
    np.save(folder / "offsets.npy", _offsets(features))
    (folder / "store.json").write_bytes(spelled(_about(features)))


def _safetensors(features: Features, path: Path) -> None:
    """The format is eight bytes of header length, a JSON header, raw rows: written here so that nothing is buffered."""
    offsets, tokens = _offsets(features), features.version.tokens
    size, dtype = tokens * features.dim * features.dtype.itemsize, {2: "F16", 4: "F32"}[features.dtype.itemsize]
    header = {
        "__metadata__": {name: json.dumps(value) for name, value in _about(features).items()},
        "offsets": {"dtype": "I64", "shape": [len(offsets)], "data_offsets": [0, offsets.nbytes]},
        "tokens": {
            "dtype": dtype,
            "shape": [tokens, features.dim],
            "data_offsets": [offsets.nbytes, offsets.nbytes + size],
        },
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.write(offsets.data)
        for block in _rows(features):
            file.write(np.ascontiguousarray(block).data)


def _mmsa_split(dataset: CachedDataset, stores: dict[str, Features], rows: Array) -> dict[str, Any]:
    card, table = dataset.card, dataset.samples.take(rows)
    part: dict[str, Any] = {"id": table["id"].to_pylist()}
    for modality, features in stores.items():
        tokens, mask = features.padded(rows, unavailable="empty")
        part[modality] = tokens.astype(np.float32)
        part[f"{modality}_lengths"] = mask.sum(axis=1).tolist()
    if card.label_column in table.column_names:
        labels = "regression_labels" if card.task == "sentiment" else "classification_labels"
        part[labels] = np.asarray(table[card.label_column].to_pylist())
    for name in ("text", "raw_text"):
        if name in table.column_names:
            part["raw_text"] = table[name].to_pylist()
    return part


def _refuse_existing(target: Path) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} exists already; name another place with --to, or remove it first")


def _atomically(target: Path, write: Callable[[Path], None]) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with explain(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(temporary)
            if target.is_dir():
                target.rmdir()
            os.replace(temporary, target)
        finally:
            if temporary.is_dir():
                shutil.rmtree(temporary)
            else:
                temporary.unlink(missing_ok=True)
