"""Features for other tools: packed safetensors and npy, one dense Zarr or HDF5 array, the pickle layout of MMSA.

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

import h5py
import numpy as np
import zarr

from ..errors import NotFound, UserError
from ..segment import Codec
from ..segment.encoding import Array
from ..segment.zarr import compressor
from ..storage.local import explain
from ..storage.sealed_json import spelled
from ..store import Features
from .dataset import CachedDataset
from .samples import ids_of

Kind = Literal["safetensors", "npy", "hdf5", "zarr", "mmsa"]
ROWS = 1 << 14  # packed tokens at a time
CHUNK_BYTES = 1 << 20  # of a dense array, about: what a plain reader loads for one sample
CHUNKS = 16  # a shard, and at a time
MMSA_SPLITS = {"train": "train", "val": "valid", "test": "test"}


def export_store(features: Features, target: Path, kind: Kind, codec: Codec = "none") -> Path:
    """Write one store as `kind` at `target`, which must not exist; returns it.

    safetensors: one file with `tokens` (T, D), `offsets` (N+1,) and the ids and identity as metadata.
    npy: a folder with tokens.npy, offsets.npy and store.json (ids, identity).
    hdf5, zarr: one dense array of all samples, `tokens` (N, S, D), zeros after each one's tokens, with `mask` (N, S),
    `lengths`, `ids`, `status` and `errors` (N,) beside it; a failed or missing sample is a mask without a True.
    Numbers are those a reader sees: int8 leaves as float16, and its identity says so. Raises UserError where `target`
    exists, or a dense array does not fit on its disk.
    """
    if kind not in get_args(Kind) or kind == "mmsa":
        raise UserError(f"one store is exported as safetensors, npy, hdf5 or zarr, not as {kind!r}")
    _refuse_existing(target)
    if kind in ("hdf5", "zarr") and codec == "none":
        _refuse_too_large(features, target)
    writers: dict[str, Callable[[Path], None]] = {
        "hdf5": lambda temporary: _hdf5(features, temporary),
        "npy": lambda temporary: _npy(features, temporary),
        "safetensors": lambda temporary: _safetensors(features, temporary),
        "zarr": lambda temporary: _zarr(features, temporary, codec),
    }
    _atomically(target, writers[kind])
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


def _hdf5(features: Features, target: Path) -> None:
    """One HDF5 file; tokens are one contiguous dataset."""
    with h5py.File(target, "w") as file:
        tokens = file.create_dataset("tokens", _dense_shape(features), features.dtype)
        for start, block in _dense_blocks(features, _samples_a_chunk(features) * CHUNKS):
            tokens[start : start + len(block)] = block
        for name, numbers in _numbers(features).items():
            file[name] = numbers
        for name, texts in _texts(features).items():
            file.create_dataset(name, data=texts, dtype=h5py.string_dtype())
        file.attrs["identity"] = json.dumps(_identity(features))


def _zarr(features: Features, target: Path, codec: Codec) -> None:
    """One Zarr v3 group; tokens are one array in shards of whole samples."""
    root = zarr.open_group(target, mode="w", zarr_format=3, attributes={"identity": _identity(features)})
    samples, *sample = _dense_shape(features)
    chunk = _samples_a_chunk(features)
    tokens = root.create_array(
        "tokens",
        shape=(samples, *sample),
        chunks=(chunk, *sample),
        shards=(chunk * CHUNKS, *sample),
        dtype=features.dtype,
        compressors=compressor(codec, features.dtype.itemsize),
        dimension_names=("sample", "token", "feature"),
    )
    for start, block in _dense_blocks(features, chunk * CHUNKS):
        tokens[start : start + len(block)] = block
    for name, numbers in _numbers(features).items():
        root.create_array(name, data=numbers)
    for name, texts in _texts(features).items():
        root.create_array(name, data=np.array(texts, np.dtypes.StringDType()))


def _numbers(features: Features) -> dict[str, Array]:
    """What lies beside dense tokens: lengths (N,), mask (N, S)."""
    lengths = features.lengths
    return {"lengths": lengths, "mask": np.arange(_dense_shape(features)[1]) < lengths[:, None]}


def _texts(features: Features) -> dict[str, list[str]]:
    """What lies beside dense tokens as text: ids, status ("ok", "failed", "missing") and errors, (N,) each."""
    errors = features.errors()
    reasons = [errors.get(row, "") for row in range(len(features))]
    return {"ids": ids_of(features), "status": features.status.tolist(), "errors": reasons}


def _dense_shape(features: Features) -> tuple[int, int, int]:
    """(N, S, D): every sample has the room of the longest."""
    return len(features), max(1, int(features.lengths.max(initial=0))), features.dim


def _samples_a_chunk(features: Features) -> int:
    _, longest, dim = _dense_shape(features)
    return max(1, CHUNK_BYTES // (longest * dim * features.dtype.itemsize))


def _dense_blocks(features: Features, samples: int) -> Iterator[tuple[int, Array]]:
    """(first sample, tokens (<= samples, S, D)) of all samples in their order, zeros after each one's tokens."""
    count, longest, dim = _dense_shape(features)
    for start in range(0, count, samples):
        tokens, _ = features.padded(np.arange(start, min(start + samples, count)), unavailable="empty")
        block = np.zeros((len(tokens), longest, dim), features.dtype)
        block[:, : tokens.shape[1]] = tokens
        yield start, block


def _refuse_too_large(features: Features, target: Path) -> None:
    """Raises UserError where the dense array cannot fit on the disk it would go to."""
    size = int(np.prod(_dense_shape(features), dtype=np.int64)) * features.dtype.itemsize
    free = shutil.disk_usage(next(folder for folder in target.absolute().parents if folder.exists())).free
    if size > free:
        mean = features.version.tokens / max(1, int(features.available.sum()))
        raise UserError(
            f"{target} would take {size / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB are free: in one dense array every "
            f"sample has the room of the longest, {_dense_shape(features)[1]:,} tokens where the mean is {mean:,.1f}. "
            "--as npy and --as safetensors keep samples packed; --as zarr --codec zstd makes little of the padding."
        )


def _blocks(features: Features, rows: int) -> Iterator[tuple[int, Array]]:
    """(first row, tokens (<= rows, D)) of all samples, in their order."""
    offsets = _offsets(features)
    for start in range(0, int(offsets[-1]), rows):
        stop = min(start + rows, int(offsets[-1]))
        first, last = np.searchsorted(offsets, start, side="right") - 1, np.searchsorted(offsets, stop, side="left")
        tokens, _ = features.gather(np.arange(first, last), unavailable="empty")
        yield start, tokens[start - offsets[first] : stop - offsets[first]]


def _offsets(features: Features) -> Array:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(features.lengths)])


def _identity(features: Features) -> dict[str, Any]:
    """The identity of what leaves: of an int8 store that is float16, and another computation than a float16 store's."""
    known = features.identity.as_dict()
    if features.store.stored == "int8":
        known["fields"] = {**known["fields"], "exported_from": "int8", "stored_dtype": "float16"}
    return known


def _about(features: Features) -> dict[str, Any]:
    return {"identity": _identity(features), "ids": ids_of(features), "status": features.status.tolist()}


def _npy(features: Features, folder: Path) -> None:
    folder.mkdir()
    shape = (features.version.tokens, features.dim)
    header = {"descr": features.dtype.str, "fortran_order": False, "shape": shape}
    with (folder / "tokens.npy").open("wb") as file:
        np.lib.format.write_array_header_2_0(file, header)
        for _, block in _blocks(features, ROWS):
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
        for _, block in _blocks(features, ROWS):
            file.write(np.ascontiguousarray(block).data)


def _mmsa_split(dataset: CachedDataset, stores: dict[str, Features], rows: Array) -> dict[str, Any]:
    card, table = dataset.card, dataset.samples.take(rows)
    part: dict[str, Any] = {"id": table["id"].to_pylist()}
    for modality, features in stores.items():
        tokens, mask = features.padded(rows, unavailable="empty")
        part[modality] = tokens.astype(np.float32)
        part[f"{modality}_lengths"] = mask.sum(axis=1).tolist()
    if card.label_column in table.column_names:
        labels = np.asarray(table[card.label_column].to_pylist())
        part["regression_labels" if labels.dtype.kind == "f" else "classification_labels"] = labels
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
