"""`pgm import` keeps float16 in every container and layout that can hold it; float32 stays, float64 is rounded."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import typer
from pgm.cache import open_dataset
from pgm.pipeline.imports.commands import import_command
from safetensors.numpy import save_file
from scipy.io import savemat
from typer.testing import CliRunner

N = 6
LABELS = np.arange(N) % 2
SPLIT = ["train"] * 3 + ["val"] + ["test"] * 2
VECTORS = np.random.default_rng(0).normal(size=(N, 4))
Arguments = list[Any]
MAPPED = ["--modality", "text", "--tokens", "x", "--labels", "y"]


def npz(folder: Path, x: Any) -> Arguments:
    np.savez(folder / "a.npz", x=x, y=LABELS)
    return [folder / "a.npz", *MAPPED]


def npy(folder: Path, x: Any) -> Arguments:
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", LABELS)
    return [folder / "x.npy", folder / "y.npy", *MAPPED]


def hdf5(folder: Path, x: Any) -> Arguments:
    with h5py.File(folder / "a.h5", "w") as file:
        file["x"], file["y"] = x, LABELS
    return [folder / "a.h5", *MAPPED]


def mat(folder: Path, x: Any) -> Arguments:
    savemat(folder / "a.mat", {"x": x, "y": LABELS[:, None]})
    return [folder / "a.mat", *MAPPED]


def safetensors(folder: Path, x: Any) -> Arguments:
    save_file({"x": x, "y": LABELS}, folder / "a.safetensors")
    return [folder / "a.safetensors", *MAPPED]


def parquet(folder: Path, x: Any) -> Arguments:
    pq.write_table(table(x), folder / "a.parquet")
    return [folder / "a.parquet", *MAPPED]


def arrow(folder: Path, x: Any) -> Arguments:
    pyarrow.feather.write_feather(table(x), folder / "a.feather")
    return [folder / "a.feather", *MAPPED]


def table(x: Any) -> pa.Table:
    return pa.table({"x": pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), x.shape[1]), "y": LABELS})


def pickled(folder: Path, x: Any) -> Arguments:
    (folder / "a.pkl").write_bytes(pickle.dumps({"x": [row[None] for row in x], "y": LABELS.tolist()}))
    return [folder / "a.pkl", *MAPPED]


def mmsa(folder: Path, x: Any) -> Arguments:
    parts = split_pickle(x)
    for part in parts.values():
        part["regression_labels"] = np.zeros(len(part["text"]), np.float32)
        part["id"] = [f"{name}$_$0" for name in part["id"]]
    (folder / "a.pkl").write_bytes(pickle.dumps(parts))
    return [folder / "a.pkl", "--layout", "mmsa"]


def mult(folder: Path, x: Any) -> Arguments:
    parts = split_pickle(x)
    for part in parts.values():
        part["labels"] = np.zeros((len(part["text"]), 1, 1), np.float32)
        part["id"] = np.array(part["id"])
    (folder / "a.pkl").write_bytes(pickle.dumps(parts))
    return [folder / "a.pkl", "--layout", "mult"]


def split_pickle(x: Any) -> dict[str, dict[str, Any]]:
    rows = {"train": range(0, 3), "valid": range(3, 4), "test": range(4, N)}
    return {name: {"text": x[part][:, None], "id": [f"v{row}_0" for row in part]} for name, part in rows.items()}


def mmgcn(folder: Path, x: Any) -> Arguments:
    dialogues = range(N)
    vectors = {d: [x[d]] for d in dialogues}
    labels, others = {d: [d % 7] for d in dialogues}, {d: ["-"] for d in dialogues}
    value = ({d: [0] for d in dialogues}, others, labels, vectors, vectors, vectors, others, [0, 1, 2, 3], [4, 5], None)
    (folder / "a.pkl").write_bytes(pickle.dumps(value))
    return [folder / "a.pkl", "--modality", "text"]


def csd(folder: Path, x: Any) -> Arguments:
    for name, values in (("Opinion Segment Labels", np.zeros((N, 1))), ("glove vectors", x)):
        with h5py.File(folder / f"{name[:5]}.csd", "w") as file:
            for row in range(N):
                file[f"{name}/data/v{row}/features"] = values[row : row + 1]
                file[f"{name}/data/v{row}/intervals"] = np.array([[0.0, 1.0]])
    return [folder / "Opini.csd", folder / "glove.csd"]


def wikipedia(folder: Path, x: Any) -> Arguments:
    savemat(folder / "raw_features.mat", {"T_tr": x[:4], "I_tr": x[:4], "T_te": x[4:], "I_te": x[4:]})
    for name, rows in (("trainset", range(4)), ("testset", range(4, N))):
        lines = (f"t{row}\ti{row}\t{row + 1}\n" for row in rows)
        (folder / f"{name}_txt_img_cat.list").write_text("".join(lines))
    return [folder / "raw_features.mat"]


def mosi(folder: Path, x: Any) -> Arguments:
    ids = np.array([f"v{row}_0" for row in range(N)])
    others = {"split_bclstm": np.array(SPLIT), "label_sentiment": np.zeros(N), "label_binary": LABELS}
    np.savez(folder / "a.npz", ids=ids, video_id=ids, text=x, audio=x, video=x, **others)
    return [folder / "a.npz", "--layout", "mosi"]


def crossmodal(folder: Path, x: Any) -> Arguments:
    with h5py.File(folder / "a.h5", "w") as file:
        for split, rows in (("train", slice(0, 4)), ("test", slice(4, N))):
            file[f"{split}_text"], file[f"{split}_imgs_deep"], file[f"{split}_labels"] = x[rows], x[rows], LABELS[rows]
    return [folder / "a.h5", "--layout", "crossmodal"]


def per_sample(folder: Path, x: Any) -> Arguments:
    (folder / "samples").mkdir()
    for row in range(N):
        np.save(folder / "samples" / f"s{row}.npy", x[row])
    lines = (f"s{row},{SPLIT[row]},{row % 2}\n" for row in range(N))
    (folder / "l.csv").write_text("id,split,label\n" + "".join(lines))
    return [folder / "samples", "--labels", folder / "l.csv", "--modality", "text"]


Source = Callable[[Path, Any], Arguments]
EVERY: list[Source] = [npz, npy, hdf5, mat, safetensors, parquet, arrow, pickled]
EVERY += [mmsa, mult, mmgcn, csd, wikipedia, mosi, crossmodal, per_sample]
HALF = [source for source in EVERY if source not in (mat, wikipedia)]  # MATLAB has no half precision
BIG_ENDIAN: list[Source] = [npz, npy, hdf5, pickled, mmsa, mult, mmgcn, csd, mosi, crossmodal, per_sample]


def kept(tmp_path: Path, source: Source, x: Any, *options: str) -> tuple[str, Any]:
    """What the imported store keeps tokens as, and the tokens (N, D)."""
    app = typer.Typer()
    app.command()(import_command)
    arguments = ["d", *source(tmp_path, x), "--features", tmp_path / "features", *options]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None:
        raise result.exception
    features = open_dataset(tmp_path / "features", "d").features("text")
    return features.store.stored, features.gather(np.arange(N))[0]


@pytest.mark.parametrize(
    ("source", "dtype", "stored"),
    [
        *((source, "<f2", "float16") for source in HALF),
        *((source, ">f2", "float16") for source in BIG_ENDIAN),
        *((source, "<f4", "float32") for source in EVERY),
        *((source, "<f8", "float32") for source in EVERY),
    ],
    ids=lambda value: getattr(value, "__name__", None) or str(value),
)
def test_float16_stays_and_all_else_becomes_float32(tmp_path: Path, source: Source, dtype: str, stored: str) -> None:
    given = VECTORS.astype(dtype)
    found, tokens = kept(tmp_path, source, given)
    assert found == stored
    assert tokens.dtype == stored
    assert np.array_equal(tokens, given.astype(stored))


@pytest.mark.parametrize("store", ["float16", "float32", "int8"])
def test_store_asks_otherwise(tmp_path: Path, store: str) -> None:
    found, tokens = kept(tmp_path, npz, VECTORS.astype(np.float16), "--store", store)
    assert found == store
    np.testing.assert_allclose(tokens, VECTORS, atol=0.02 if store == "int8" else 1e-3)


def test_one_wider_part_widens_the_modality(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=VECTORS[:4].astype(np.float16), b=VECTORS[4:].astype(np.float32), y=LABELS)
    found, tokens = kept(tmp_path, lambda folder, _: [folder / "a.npz", *MAPPED[:3], "a,b", "--labels", "y"], None)
    assert found == "float32"
    assert np.array_equal(tokens[4:], VECTORS[4:].astype(np.float32))


def test_the_import_says_what_it_keeps(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(import_command)
    arguments = ["d", *npz(tmp_path, VECTORS.astype(np.float16)), "--features", tmp_path]
    assert "6 tokens of 4, float16" in CliRunner().invoke(app, [str(argument) for argument in arguments]).output
