"""The generic mapping gives the same dataset from every container, and says what it does not find."""

from __future__ import annotations

import json
import pickle
import tracemalloc
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
from pgm.cache import CachedDataset, open_dataset
from pgm.cache.dataset.verify import verify_store
from pgm.cache.errors import NotFound, UserError
from pgm.pipeline.imports.commands import import_command
from safetensors.numpy import save_file
from scipy.io import savemat
from typer.testing import CliRunner

N = 8
RNG = np.random.default_rng(0)
VECTORS = RNG.normal(size=(N, 4)).astype(np.float32)
TOKENS = RNG.normal(size=(N, 5, 3)).astype(np.float32)
SIZES = np.array([5, 1, 0, 2, 3, 5, 4, 1])
LABELS = np.arange(N) % 2
NAMES = [f"clip{row}" for row in range(N)]
SPLIT = ["train"] * 5 + ["dev"] + ["test"] * 2
VIDEO = np.arange(N) // 3
RAGGED = [TOKENS[row, : SIZES[row]] for row in range(N)]


def run(*arguments: object) -> Any:
    app = typer.Typer()
    app.command()(import_command)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None:
        raise result.exception
    return result


def imported(root: Path, *arguments: object) -> tuple[CachedDataset, dict[str, Any]]:
    said = json.loads(run("mine", *arguments, "--features", root, "--json").stdout)
    dataset = open_dataset(root, "mine")
    assert all(verify_store(store.storage).sound for store in dataset.stores.values())
    return dataset, said


def save_npz(path: Path) -> None:
    np.savez(path, tokens=TOKENS, vectors=VECTORS, y=LABELS, sizes=SIZES, names=NAMES, part=SPLIT, video=VIDEO)


def save_mat(path: Path) -> None:
    savemat(
        path,
        {
            "tokens": TOKENS,
            "vectors": VECTORS,
            "y": LABELS.astype(float)[:, None],  # MATLAB's numbers are doubles, its columns matrices
            "sizes": SIZES[None],
            "names": np.array(NAMES, object)[:, None],
            "part": np.array(SPLIT, object),
            "video": VIDEO,
        },
    )


def save_mat73(path: Path) -> None:
    """As MATLAB 7.3 writes: HDF5 with reversed axes, cells of text as references, text as numbers."""

    def cells(file: h5py.File, name: str, texts: list[str]) -> None:
        references = []
        for place, text in enumerate(texts):
            item = file.create_dataset(f"#refs#/{name}{place}", data=np.array([[ord(c)] for c in text], np.uint16))
            item.attrs["MATLAB_class"] = np.bytes_("char")
            references.append(item.ref)
        file.create_dataset(name, data=np.array([references], dtype=h5py.ref_dtype), dtype=h5py.ref_dtype)

    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in (("tokens", TOKENS), ("vectors", VECTORS), ("y", LABELS.astype(float)[:, None])):
            file[name] = array.T
        file["sizes"], file["video"] = SIZES[:, None].astype(float), VIDEO[:, None]
        cells(file, "names", NAMES)
        cells(file, "part", SPLIT)
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, made by a test".ljust(124))


def save_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["tokens"], file["vectors"], file["y"], file["sizes"], file["video"] = TOKENS, VECTORS, LABELS, SIZES, VIDEO
        file["names"] = NAMES
        file["part"] = np.array(SPLIT, "S5")


def columns() -> dict[str, Any]:
    return {
        "tokens": pa.array(
            [None if not len(r) else [t.tolist() for t in r] for r in RAGGED], pa.list_(pa.list_(pa.float32()))
        ),
        "vectors": pa.FixedSizeListArray.from_arrays(VECTORS.ravel(), 4),
        "y": LABELS,
        "names": NAMES,
        "part": pa.array(SPLIT).dictionary_encode(),
        "video": VIDEO,
    }


def save_stream(path: Path) -> None:
    table = pa.table(columns())
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)


def save_pickle(path: Path) -> None:
    value = {"tokens": RAGGED, "vectors": VECTORS, "y": LABELS.tolist(), "names": NAMES, "part": SPLIT, "video": VIDEO}
    path.write_bytes(pickle.dumps(value))


WHOLE: dict[str, Callable[[Path], None]] = {
    "x.npz": save_npz,
    "x.mat": save_mat,
    "y.mat": save_mat73,
    "x.h5": save_hdf5,
    "x.parquet": lambda path: pq.write_table(pa.table(columns()), path),
    "x.feather": lambda path: pyarrow.feather.write_feather(pa.table(columns()), path),
    "x.arrow": save_stream,
    "x.pkl": save_pickle,
    "no suffix": save_pickle,
}


@pytest.mark.parametrize("name", WHOLE)
def test_every_container_gives_the_same_dataset(tmp_path: Path, name: str) -> None:
    WHOLE[name](tmp_path / name)
    options = ["--modality", "vision", "--tokens", "tokens", "--modality", "text", "--tokens", "vectors"]
    options += ["--labels", "y", "--split", "part", "--ids", "names", "--group", "video"]
    if name in ("x.npz", "x.mat", "y.mat", "x.h5"):
        options += ["--lengths", "vision=sizes"]
    dataset, said = imported(tmp_path / "features", tmp_path / name, *options)
    assert said["layout"] == "mapping"
    samples = dataset.samples
    assert samples["id"].to_pylist() == NAMES
    assert samples["label"].to_pylist() == LABELS.tolist()
    assert samples["split"].to_pylist() == ["train"] * 5 + ["val"] + ["test"] * 2
    assert [int(float(group)) for group in samples["group"].to_pylist()] == VIDEO.tolist()
    vision, text = dataset.features("vision"), dataset.features("text")
    assert vision.status.tolist() == ["missing" if not size else "ok" for size in SIZES]
    for row in range(N):
        assert np.array_equal(text[row], VECTORS[row : row + 1])
        if SIZES[row]:
            assert np.array_equal(vision[row], RAGGED[row])
    assert vision.identity.fields["file"] == name
    assert len(dataset.card.source["vision"]["digest"]) == 32


def test_a_matlab_structure_and_lines_filled_with_blanks(tmp_path: Path) -> None:
    savemat(tmp_path / "x.mat", {"data": {"text": VECTORS, "more": {"y": LABELS}}, "part": ["train"] * 7 + ["test"]})
    options = ["--modality", "t", "--tokens", "data/text", "--labels", "data/more/y", "--split", "part"]
    dataset, _ = imported(tmp_path, tmp_path / "x.mat", *options)
    assert dataset.samples["split"].to_pylist() == ["train"] * 7 + ["test"]
    assert dataset.samples["label"].to_pylist() == LABELS.tolist()
    assert np.array_equal(dataset.features("t")[7], VECTORS[7:])


def test_a_large_array_is_not_copied_more_than_twice(tmp_path: Path) -> None:
    large = np.ones((2000, 4, 500), np.float32)
    value = {"train": {"text": large, "regression_labels": np.zeros(2000), "id": [f"v$_${row}" for row in range(2000)]}}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(value))
    del value
    tracemalloc.start()
    try:
        imported(tmp_path, tmp_path / "x.pkl")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # What the pickle holds, and the packed tokens.
    assert peak < 2.5 * large.nbytes


def test_safetensors_with_labels_from_a_table(tmp_path: Path) -> None:
    save_file({"tokens": TOKENS, "vectors": VECTORS.astype(np.float16)}, tmp_path / "x.safetensors")
    lines = [f"{name},{label},{split}" for name, label, split in zip(NAMES, LABELS, SPLIT, strict=True)]
    (tmp_path / "l.csv").write_text("\n".join(["id,label,split", *lines]))
    dataset, _ = imported(
        tmp_path, tmp_path / "x.safetensors", "--modality", "a", "--tokens", "tokens", "--modality", "b",
        "--tokens", "vectors", "--labels", tmp_path / "l.csv",
    )  # fmt: skip
    assert dataset.samples["id"].to_pylist() == NAMES
    assert dataset.samples["split"].to_pylist().count("val") == 1
    assert np.array_equal(dataset.features("a")[3], TOKENS[3])
    assert np.array_equal(dataset.features("b")[3][0], VECTORS.astype(np.float16)[3].astype(np.float32))


def test_safetensors_in_bfloat16(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_torch

    numbers = torch.arange(8.0).reshape(4, 2).to(torch.bfloat16)
    save_torch({"a": numbers, "y": torch.tensor([0, 1, 0, 1])}, tmp_path / "x.safetensors")
    dataset, _ = imported(tmp_path, tmp_path / "x.safetensors", "--modality", "a", "--tokens", "a", "--labels", "y")
    assert dataset.features("a")[3].tolist() == [[6, 7]]


def test_npy_files_with_labels_in_another(tmp_path: Path) -> None:
    np.save(tmp_path / "text.npy", VECTORS)
    np.save(tmp_path / "audio.npy", TOKENS)
    np.save(tmp_path / "y.npy", LABELS)
    dataset, _ = imported(
        tmp_path, tmp_path / "text.npy", tmp_path / "audio.npy", "--modality", "text", "--tokens", "text",
        "--modality", "audio", "--tokens", "audio", "--labels", tmp_path / "y.npy",
    )  # fmt: skip
    assert dataset.features("audio").identity.fields["file"] == "audio.npy"
    assert np.array_equal(dataset.features("audio")[7], TOKENS[7])
    assert dataset.samples["label"].to_pylist() == LABELS.tolist()


def test_a_table_of_labels_is_joined_by_id(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=VECTORS, names=NAMES)
    lines = [f"{name},{row},train" for row, name in reversed(list(enumerate(NAMES)))]
    (tmp_path / "l.csv").write_text("\n".join(["id,label,split", *lines, "other,9,test"]))
    options = [tmp_path / "x.npz", "--modality", "t", "--tokens", "a", "--ids", "names", "--labels", tmp_path / "l.csv"]
    dataset, _ = imported(tmp_path, *options)
    assert dataset.samples["label"].to_pylist() == list(range(N))
    (tmp_path / "l.csv").write_text("\n".join(["id,label,split", *lines[2:]]))
    with pytest.raises(NotFound, match=r"l\.csv has no row for 2 samples, the first 'clip6'"):
        imported(tmp_path, *options)


@pytest.mark.parametrize("keys", ["train/{},valid/{},test/{}", "test/{},train/{}"])
def test_nested_keys_say_their_split(tmp_path: Path, keys: str) -> None:
    parts = {"train": slice(0, 4), "valid": slice(4, 5), "test": slice(5, 8)}
    value = {name: {"text": VECTORS[rows], "y": LABELS[rows]} for name, rows in parts.items()}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(value))
    dataset, _ = imported(
        tmp_path, tmp_path / "x.pkl", "--modality", "t", "--tokens", keys.format("text", "text", "text"),
        "--labels", keys.format("y", "y", "y"),
    )  # fmt: skip
    order = [key.split("/")[0] for key in keys.split(",")]
    rows = np.concatenate([np.arange(N)[parts[name]] for name in order])
    named = {"train": "train", "valid": "val", "test": "test"}
    assert dataset.samples["split"].to_pylist() == [named[o] for o in order for _ in range(N)[parts[o]]]
    assert dataset.samples["label"].to_pylist() == LABELS[rows].tolist()
    assert all(np.array_equal(dataset.features("t")[place][0], VECTORS[row]) for place, row in enumerate(rows))


def test_lengths_without_a_name_go_with_the_modalities_in_order(tmp_path: Path) -> None:
    save_npz(tmp_path / "x.npz")
    options = ["--modality", "a", "--tokens", "tokens", "--lengths", "sizes", "--labels", "y"]
    dataset, _ = imported(tmp_path, tmp_path / "x.npz", *options)
    assert dataset.features("a").lengths.tolist() == SIZES.tolist()
    with pytest.raises(UserError, match="1 --lengths for the modalities a, b: say whose with --lengths MODALITY=sizes"):
        imported(tmp_path, tmp_path / "x.npz", *options, "--modality", "b", "--tokens", "vectors")
    with pytest.raises(NotFound, match="--lengths c=sizes: there is no --modality c"):
        imported(tmp_path, tmp_path / "x.npz", *options[:4], "--labels", "y", "--lengths", "c=sizes")


def test_other_lengths_make_another_version(tmp_path: Path) -> None:
    save_npz(tmp_path / "x.npz")
    options = ["--modality", "a", "--tokens", "tokens", "--labels", "y"]
    imported(tmp_path, tmp_path / "x.npz", *options)
    dataset, _ = imported(tmp_path, tmp_path / "x.npz", *options, "--lengths", "sizes")
    [store] = dataset.stores.values()
    assert [store.version(number).counts["ok"] for number in (1, 2)] == [N, N - 1]


def test_padding_is_stripped_and_values_cleaned_when_asked(tmp_path: Path) -> None:
    padded = np.where(np.arange(5)[:, None] >= 5 - np.maximum(SIZES, 1)[:, None, None], np.abs(TOKENS) + 1, 0)
    padded[0, 2, 1] = -np.inf
    np.savez(tmp_path / "x.npz", a=padded, y=LABELS)
    options = [tmp_path / "x.npz", "--modality", "a", "--tokens", "a", "--labels", "y"]
    with pytest.raises(UserError, match=r"a features of sample '000000' hold NaN, .*--clean makes such values 0"):
        imported(tmp_path, *options)
    assert not (tmp_path / "mine").exists()
    dataset, said = imported(tmp_path, *options, "--clean", "--strip-padding")
    assert "a: 1 values that were infinite or NaN are now 0." in said["notes"]
    store = dataset.features("a")
    assert store.lengths.tolist() == np.maximum(SIZES, 1).tolist()
    assert dataset.card.source[store.identity.modality]["padding"] == "front"
    assert np.array_equal(store[4], padded[4, 2:].astype(np.float32))


def test_known_names_bring_task_and_classes(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.ones((3, 2)), y=np.array([0, 6, 3]), s=[0.1, -2, 1], ten=[1, 5, 10])
    options = ["--modality", "t", "--tokens", "a", "--features", tmp_path, "--labels"]
    run("meld", tmp_path / "x.npz", *options, "y")
    assert open_dataset(tmp_path, "meld").card.classes[6] == "anger"
    run("mosei", tmp_path / "x.npz", *options, "s")
    assert open_dataset(tmp_path, "mosei").card.task == "sentiment"
    result = run("wikipedia", tmp_path / "x.npz", *options, "ten")
    assert "counted from 1" in result.stderr
    assert open_dataset(tmp_path, "wikipedia").samples["label"].to_pylist() == [0, 4, 9]
    run("mosei", tmp_path / "x.npz", *options, "y", "--task", "classification")
    assert open_dataset(tmp_path, "mosei").card.classes == tuple("0123456")


def test_a_name_of_two_files_needs_its_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        np.savez(tmp_path / f"{name}.npz", x=VECTORS * (1 + (name == "b")), y=LABELS)
    files = [tmp_path / "a.npz", tmp_path / "b.npz"]
    with pytest.raises(UserError, match=r"2 files have an array 'x'; write for example a\.npz:x"):
        imported(tmp_path, *files, "--modality", "t", "--tokens", "x", "--labels", "y")
    options = ["--modality", "t", "--tokens", "a.npz:x", "--modality", "v", "--tokens", "b.npz:x"]
    dataset, _ = imported(tmp_path, *files, *options, "--labels", "a.npz:y")
    assert np.array_equal(dataset.features("v")[1], 2 * VECTORS[1:2])
    with pytest.raises(NotFound, match=r"No file has an array 'z'. a\.npz: x \(8, 4\) float32, y"):
        imported(tmp_path, *files, "--modality", "t", "--tokens", "z", "--labels", "a.npz:y")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--modality", "t", "--tokens", "token", "--labels", "y"], r"no array 'token'.*tokens \(8, 5, 3\).*mean 'tok"),
        (["--modality", "t", "--tokens", "names", "--labels", "y"], r"t \(names\): Expected numbers of shape"),
        (["--modality", "t", "--tokens", "tokens"], "Which array holds the labels"),
        (
            ["--modality", "t", "--tokens", "tokens", "--labels", "vectors"],
            r"'vectors' has shape \(8, 4\); expected one",
        ),
        (
            ["--modality", "t", "--tokens", "tokens", "--labels", "y", "--split", "names"],
            "has split 'clip0'; use train",
        ),
        (["--modality", "t", "--tokens", "tokens,tokens,tokens", "--labels", "y"], "3 stacked arrays: say which rows"),
        (["--modality", "t", "--modality", "t", "--tokens", "y", "--tokens", "y", "--labels", "y"], "comes twice"),
        (
            ["--modality", "t", "--tokens", "tokens", "--labels", "y", "--split-column", "part"],
            "here it is --split KEY",
        ),
        (["--modality", "t", "--tokens", "tokens", "--tokens", "y", "--labels", "y"], "1 --modality and 2 --tokens"),
        (
            ["--modality", "t", "--tokens", "tokens,tokens", "--labels", "y"],
            "array has 16 samples and there are 8 labels",
        ),
    ],
)
def test_what_cannot_be_is_said(tmp_path: Path, options: list[str], message: str) -> None:
    save_npz(tmp_path / "x.npz")
    with pytest.raises(UserError, match=message):
        imported(tmp_path, tmp_path / "x.npz", *options)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.txt", b"hello", r"x\.txt is none of the files that are read: \.npz"),
        ("x.pt", b"PK\x03\x04 torch", r"x\.pt is none of the files that are read"),
        ("x.npz", b"PK\x03\x04 broken", r"x\.npz is not readable as npz"),
        ("x.mat", b"not matlab at all, and long enough " * 9, r"x\.mat is not readable as mat"),
        ("x.h5", b"\x89HDF\r\n\x1a\n", r"x\.h5 is not readable as hdf5"),
        ("x.parquet", b"PAR1 broken", r"x\.parquet is not readable as parquet"),
        ("x.npy", b"\x93NUMPY\x01\x00", r"x\.npy is not readable as npy"),
        ("x.safetensors", b"\x09\0\0\0\0\0\0\0{broken!}", r"x\.safetensors is not readable as safetensors"),
    ],
)
def test_a_file_that_is_not_what_it_seems_is_said(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        run("mine", tmp_path / name, "--features", tmp_path)


def test_an_npy_of_objects_is_not_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(UserError, match=r"x\.npy is not readable as npy.*Python objects"):
        run("mine", tmp_path / "x.npy", "--features", tmp_path)


def test_a_null_in_a_table_is_a_missing_sample(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [[1.0, 2.0], None, [3.0, 4.0]], "y": [0, 1, 0]}), tmp_path / "x.parquet")
    dataset, said = imported(tmp_path, tmp_path / "x.parquet", "--modality", "t", "--tokens", "a", "--labels", "y")
    assert said["modalities"]["t"] == {"tokens": 2, "dim": 2, "stored": "float32", "missing": 1, "padding": None}
    assert dataset.features("t").status.tolist() == ["ok", "missing", "ok"]
    assert dataset.features("t")[2].tolist() == [[3, 4]]


def test_lists_of_uneven_width_in_a_table_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [[1.0], [1.0, 2.0]], "y": [0, 1]}), tmp_path / "x.parquet")
    with pytest.raises(UserError, match="lists of 1 to 2 numbers where every token needs as many"):
        run("mine", tmp_path / "x.parquet", "--modality", "t", "--tokens", "a", "--labels", "y", "--features", tmp_path)


def test_a_hostile_pickle_stops_the_import(tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(UserError, match=r"x\.pkl asks for os\.system"):
        run("mosi", tmp_path / "x.pkl", "--features", tmp_path)
    assert not (tmp_path / "mosi").exists()
