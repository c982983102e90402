"""A segment is an ordinary Zarr v3 group or HDF5 file: zarr-python, h5py and tensorstore read what was written."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorstore
import xxhash
import zarr

from .conftest import KINDS, make

LENGTHS = [[3, 0, 700, 1], [2, 5]]  # more tokens than an inner chunk holds, and a segment of few
FAILED = (1,)


def plain_arrays(path: Path) -> dict[str, Any]:
    """Every array of a segment, whichever of the two it is."""
    if path.is_dir():
        group = zarr.open_group(path, mode="r")
        return {name: np.asarray(array[:]) for name, array in group.arrays()}
    with h5py.File(path, "r") as file:
        return {name: file[name][:] for name in file}


@pytest.mark.parametrize("stored", ["float16", "float32", "int8"])
@pytest.mark.parametrize("kind", KINDS)
def test_tokens_lengths_and_items_are_there_for_a_plain_reader(tmp_path: Path, stored: str, kind: str) -> None:
    made = make(tmp_path / "store", LENGTHS, stored=stored, kinds=(kind,), failed=FAILED)
    names, at = made.features.version.segments, 0
    assert len(names) == 2
    for name, lengths in zip(names, LENGTHS, strict=True):
        arrays = plain_arrays(Path(made.features.url, "segments", name))
        assert arrays["lengths"].tolist() == lengths
        assert arrays["tokens"].dtype == stored
        assert arrays["tokens"].shape == (sum(lengths), 8)
        tokens, ends = arrays["tokens"], np.cumsum(lengths)
        if stored == "int8":
            assert arrays["scales"].shape == (sum(lengths), 1)
            tokens = (tokens * arrays["scales"]).astype(np.float16)
        else:
            assert "scales" not in arrays
        items = pq.read_table(io.BytesIO(arrays["items"].tobytes()))
        for row, (start, end) in enumerate(zip(ends - lengths, ends, strict=True)):
            assert np.array_equal(tokens[start:end], made.samples[at + row])
            kept = arrays["tokens"][start:end].tobytes()
            kept += arrays["scales"][start:end].tobytes() if stored == "int8" else b""
            assert arrays["checksums"][row] == (xxhash.xxh3_64_intdigest(kept) if kept else 0)
        assert items["id"].to_pylist() == [f"s{at + row}" for row in range(len(lengths))]
        assert items["error"].to_pylist() == ["broken" if at + row in FAILED else "" for row in range(len(lengths))]
        at += len(lengths)


@pytest.mark.parametrize("stored", ["float16", "float32", "int8"])
@pytest.mark.parametrize("kind", ["zarr", "zstd", "lz4"])
def test_a_reader_that_is_not_zarr_python_agrees(tmp_path: Path, stored: str, kind: str) -> None:
    made = make(tmp_path / "store", LENGTHS, stored=stored, kinds=(kind,), failed=FAILED)
    for name in made.features.version.segments:
        place = Path(made.features.url, "segments", name)
        for array, values in plain_arrays(place).items():
            spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{place / array}/"}}
            assert np.array_equal(tensorstore.open(spec, read=True).result().read().result(), values), array


def test_one_sample_costs_a_plain_reader_one_chunk(tmp_path: Path) -> None:
    made = make(tmp_path / "store", [[1] * 5000], dim=4)
    [name] = made.features.version.segments
    tokens: Any = zarr.open_group(Path(made.features.url, "segments", name), mode="r")["tokens"]
    assert tokens.chunks == (512, 4)
    assert np.array_equal(tokens[4321:4322], made.samples[4321])
