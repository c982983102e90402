"""Any user of Zarr or HDF5 reads a store without this package: sample i is one slice."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tensorstore
import zarr

LENGTHS = [3, 0, 17, 1, 40, 5, 9]


@pytest.mark.parametrize("codec", ["none", "zstd", "lz4"])
def test_plain_zarr_reads_each_sample_by_one_slice(store: Callable[..., Any], tmp_path: Path, codec: str) -> None:
    made = store(tmp_path / "s", LENGTHS, 6, 16, codec=codec)
    group = zarr.open_group(made.path / "features.zarr", mode="r")
    offsets = group["offsets"][:]
    for row, expected in enumerate(made.oracle):
        np.testing.assert_array_equal(group["tokens"][offsets[row] : offsets[row + 1]], expected)


@pytest.mark.parametrize("codec", ["none", "zstd", "lz4"])
def test_tensorstore_reads_each_sample_by_one_slice(store: Callable[..., Any], tmp_path: Path, codec: str) -> None:
    made = store(tmp_path / "s", LENGTHS, 6, 16, codec=codec)

    def read(name: str) -> Any:
        path = str(made.path / "features.zarr" / name)
        return tensorstore.open({"driver": "zarr3", "kvstore": {"driver": "file", "path": path}}).result()

    offsets = read("offsets").read().result()
    tokens = read("tokens")
    for row, expected in enumerate(made.oracle):
        np.testing.assert_array_equal(tokens[offsets[row] : offsets[row + 1]].read().result(), expected)


def test_plain_h5py_reads_each_sample_by_one_slice_wherever_the_folder_is_moved(
    store: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = store(tmp_path / "s", LENGTHS, 6, 16, format="hdf5")
    (tmp_path / "elsewhere").mkdir()
    moved = made.path.rename(tmp_path / "elsewhere" / "renamed")
    monkeypatch.chdir(tmp_path)
    with h5py.File("elsewhere/renamed/features.h5", "r") as file:
        offsets = file["offsets"][:]
        for row, expected in enumerate(made.oracle):
            np.testing.assert_array_equal(file["tokens"][offsets[row] : offsets[row + 1]], expected)
    with h5py.File(moved / "features.parts" / "00001.h5", "r") as part:
        assert part["tokens"].chunks is None
        np.testing.assert_array_equal(part["tokens"][:], np.concatenate(made.oracle)[16:32])


@pytest.mark.parametrize("format_", ["zarr", "hdf5"])
def test_int8_is_tokens_times_scales_for_a_plain_reader(
    store: Callable[..., Any], tmp_path: Path, format_: str
) -> None:
    made = store(tmp_path / "s", LENGTHS, 6, 16, format=format_, stored="int8")
    if format_ == "zarr":
        group: Any = zarr.open_group(made.path / "features.zarr", mode="r")
    else:
        group = h5py.File(made.path / "features.h5", "r")
    assert group["tokens"].dtype == np.int8
    np.testing.assert_array_equal(
        (group["tokens"][20:57] * group["scales"][20:57]).astype(np.float16), made.features.token_rows(20, 57)
    )


@pytest.mark.parametrize("format_", ["zarr", "hdf5"])
def test_an_unwritten_shard_reads_as_nan_and_never_as_zeros(
    store: Callable[..., Any], tmp_path: Path, format_: str
) -> None:
    made = store(tmp_path / "s", LENGTHS, 6, 16, format=format_)
    if format_ == "zarr":
        (made.path / "features.zarr/tokens/c/1/0").unlink()
        tokens = zarr.open_group(made.path / "features.zarr", mode="r")["tokens"][:]
    else:
        (made.path / "features.parts/00001.h5").unlink()
        tokens = h5py.File(made.path / "features.h5", "r")["tokens"][:]
    assert np.isnan(tokens[16:32]).all()
    assert not np.isnan(tokens[:16]).any()


def test_a_layout_not_written_here_is_read_through_zarr(store: Callable[..., Any], tmp_path: Path) -> None:
    """A shard whose chunks lie in another order is valid Zarr; its index says so, and it is not mapped."""
    made = store(tmp_path / "s", [30, 30], 6, 1024)
    path = made.path / "features.zarr/tokens/c/0/0"
    root = zarr.open_group(made.path / "features.zarr", mode="r+")
    before = path.read_bytes()
    root["tokens"][:] = np.concatenate(made.oracle)
    if path.read_bytes() == before:  # zarr may choose the same order; make it differ: two chunks, swapped
        chunk = 512 * 6 * 2
        padded = np.full((1024, 6), np.nan, np.float16)
        padded[:60] = np.concatenate(made.oracle)
        payload = padded.tobytes()
        index = np.array([[chunk, chunk], [0, chunk]], "<u8").tobytes()
        import google_crc32c

        path.write_bytes(payload[chunk:] + payload[:chunk] + index + google_crc32c.value(index).to_bytes(4, "little"))
    for row in (0, 1):
        np.testing.assert_array_equal(made.features[row], made.oracle[row])


def test_a_read_only_folder_is_read_and_left_as_it_was(
    store: Callable[..., Any], tree: Callable[..., Any], tmp_path: Path
) -> None:
    for format_ in ("zarr", "hdf5"):
        made = store(tmp_path / format_, LENGTHS, 6, 16, format=format_)
        before = {path: path.stat().st_mtime_ns for path in [made.path, *made.path.rglob("*")]}
        folders = [path for path in before if path.is_dir()]
        for path in folders:
            path.chmod(0o555)
        try:
            code = (
                "import sys, numpy as np; from pgm.cache import open_features\n"
                "f = open_features(sys.argv[1]); print(f.gather(np.flatnonzero(f.available))[0].shape, f.ids[0])"
            )
            command = [sys.executable, "-c", code, str(made.path)]
            if os.geteuid() == 0:  # root without the right to ignore permissions
                rights = "-dac_override,-dac_read_search"
                command = ["setpriv", "--bounding-set", rights, "--inh-caps", rights, *command]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.stdout.split("\n")[0] == "(75, 6) clip/0", done.stderr
        finally:
            for path in folders:
                path.chmod(0o755)
        assert {path: path.stat().st_mtime_ns for path in [made.path, *made.path.rglob("*")]} == before
