"""Features for other tools: safetensors, npy, another format of store, and the pickle layout of MMSA.

Every export streams the store once, in the order of the disk (except MMSA's, which is one pickle by design), writes
under a temporary name and renames. Numbers are those a reader of the store sees: int8 leaves as float16.
"""

import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from .durable import explain_full_disk, write_json
from .encoding import Array
from .errors import StoreIncomplete, UserError
from .layout import Codec, Format, Layout
from .manifest import CachedDataset
from .store import Features
from .writer import FeatureWriter, write_shard

Kind = Literal["safetensors", "npy", "hdf5", "zarr", "mmsa"]
ROWS = 1 << 14
MMSA_SPLITS = {"train": "train", "val": "valid", "test": "test"}


def export_store(features: Features, target: Path, kind: Kind, codec: Codec = "none") -> Path:
    """Write one store as `kind` at `target`, which must not exist; returns it.

    safetensors: one file with `tokens` (T, D), `offsets` (N+1,) and the ids and identity as metadata.
    npy: a folder with tokens.npy, offsets.npy and store.json (ids, identity).
    hdf5, zarr: a whole store of that format, which `open_features` and every `pgm cache` command take.
    """
    if kind not in get_args(Kind) or kind == "mmsa":
        raise UserError(f"one store is exported as safetensors, npy, hdf5 or zarr, not as {kind!r}")
    _refuse_existing(target)
    if kind == "hdf5" or kind == "zarr":
        convert(features, target, kind, codec)
    else:
        _atomically(target, lambda temporary: (_npy if kind == "npy" else _safetensors)(features, temporary))
    return target


def export_mmsa(dataset: CachedDataset, target: Path, wanted: dict[str, str] | None = None) -> Path:
    """All finished modalities of a dataset as MMSA's pickle: split -> id, one padded (N, S_max, D) array a modality.

    Zeros after each sample's tokens, true counts in `<modality>_lengths`, labels as `regression_labels` (sentiment) or
    `classification_labels`; the splits are named train, valid and test. A failed or missing sample has length 0.
    """
    _refuse_existing(target)
    modalities = sorted({info.identity.modality for info in dataset.stores if info.complete})
    stores = {modality: dataset.features(modality, (wanted or {}).get(modality)) for modality in modalities}
    if not stores:
        raise StoreIncomplete(f"{dataset.name} has no finished store to export; run `pgm extract {dataset.name}`")
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


def convert(features: Features, target: Path, format_: Format, codec: Codec = "none") -> Features:
    """The same features as a store of another format or codec, shard by shard."""
    if not features.info.complete:
        raise StoreIncomplete(f"{features.path} is not finished; only a finished store is converted to another")
    old, items = features.layout, features.items
    stored = "float16" if old.stored == "int8" else old.stored
    layout = Layout(old.lengths, old.dim, old.shard_tokens, format_, codec, stored)
    with FeatureWriter(target, features.identity, layout, items.ids) as writer:
        for shard in writer.pending():
            write_shard(target, shard, features.token_rows(*layout.bounds(shard)))
        return writer.finalize(replace(items, offset=layout.offsets[:-1]))


def _rows(features: Features) -> Iterator[Array]:
    for start in range(0, features.layout.total, ROWS):
        yield features.token_rows(start, min(start + ROWS, features.layout.total))


def _about(features: Features) -> dict[str, Any]:
    return {
        "identity": features.identity.as_dict(),
        "ids": list(features.ids),
        "status": features.status.tolist(),
    }


def _npy(features: Features, folder: Path) -> None:
    folder.mkdir()
    layout = features.layout
    header = {"descr": features.dtype.str, "fortran_order": False, "shape": (layout.total, layout.dim)}
    with (folder / "tokens.npy").open("wb") as file:
        np.lib.format.write_array_header_2_0(file, header)
        for block in _rows(features):
            file.write(np.ascontiguousarray(block).data)
    np.save(folder / "offsets.npy", layout.offsets)
    write_json(folder / "store.json", _about(features))


def _safetensors(features: Features, path: Path) -> None:
    """The format is eight bytes of header length, a JSON header, raw rows: written here so that nothing is buffered."""
    layout = features.layout
    size, dtype = layout.total * layout.dim * features.dtype.itemsize, {2: "F16", 4: "F32"}[features.dtype.itemsize]
    header = {
        "__metadata__": {name: json.dumps(value) for name, value in _about(features).items()},
        "offsets": {"dtype": "I64", "shape": [layout.samples + 1], "data_offsets": [0, layout.offsets.nbytes]},
        "tokens": {
            "dtype": dtype,
            "shape": [layout.total, layout.dim],
            "data_offsets": [layout.offsets.nbytes, layout.offsets.nbytes + size],
        },
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.write(layout.offsets.data)
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
    with explain_full_disk(target):
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
