"""`pgm cache …` as a user types it: what it prints, what it exits with, what it refuses to delete."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pgm.cache import (
    DatasetCard,
    FeatureWriter,
    Identity,
    Layout,
    list_datasets,
    open_dataset,
    open_features,
    write_dataset,
)
from pgm.cache.commands import cache_app
from pgm.cache.errors import IdentityMismatch, NotFound, StoreIncomplete, StoreLocked, UserError
from pgm.cache.verify import verify
from typer.testing import CliRunner, Result

LENGTHS = [3, 6, 0, 9, 2, 7, 5, 4]
TEXT = Identity("text", "google-t5/t5-base", {"layer": -1})
AUDIO = Identity("audio", "MIT/ast", {"layer": 12})


@pytest.fixture
def root(store: Callable[..., Any], tmp_path: Path) -> Path:
    """features/toy with a Zarr text store and an HDF5 audio store; two audio samples failed."""
    root = tmp_path / "features"
    ids = [f"clip/{row}" for row in range(len(LENGTHS))]
    split = ["train"] * 4 + ["val"] * 2 + ["test"] * 2
    labels = pa.array([0, 1, 0, 1, 1, 0, 0, 1], pa.int32())
    card = DatasetCard("toy", "classification", ("cat", "dog"), ("accuracy",), splits={"train": 4, "val": 2, "test": 2})
    table = pa.table({"id": ids, "split": split, "label": labels, "text": [f"words {row}" for row in range(8)]})
    write_dataset(root / "toy", card, table)
    store(root / "toy" / TEXT.folder, LENGTHS, identity=TEXT)
    store(root / "toy" / AUDIO.folder, LENGTHS, 3, identity=AUDIO, format="hdf5", failures={1: "cut off", 5: "silent"})
    return root


def invoke(root: Path, *arguments: object, **options: Any) -> Result:
    return CliRunner().invoke(cache_app, [*map(str, arguments), "--features", str(root)], **options)


def printed(root: Path, *arguments: object) -> Any:
    result = invoke(root, *arguments, "--json")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return json.loads(result.stdout)


def test_every_command_shows_an_example_and_takes_features_and_json() -> None:
    for command in ("ls", "info", "head", "stats", "verify", "rm", "gc", "export"):
        text = CliRunner().invoke(cache_app, [command, "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
        for word in ("Example: pgm cache", "--features", "--json", "PGM_FEATURES"):
            assert word in text, (command, word)


def test_ls_lists_what_there_is(root: Path, store: Callable[..., Any]) -> None:
    store(root / "toy" / "vision--clip--00000000", LENGTHS, finish=False)
    rows = {row["modality"] + row["state"]: row for row in printed(root, "ls")}
    assert set(rows) == {"textcomplete", "audiocomplete", "textwriting"}
    text = rows["textcomplete"]
    assert (text["dataset"], text["encoder"], text["samples"], text["tokens"]) == ("toy", "google-t5/t5-base", 8, 36)
    folder = root / "toy" / TEXT.folder
    assert text["bytes"] == sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and p.name != "store.json")
    out = invoke(root, "ls").stdout
    assert "google-t5/t5-base" in out
    assert "writing" in out
    assert len(printed(root, "ls", root / "toy" / TEXT.folder)) == 1
    assert len(printed(root, "ls", f"toy/{TEXT.folder}")) == 1


def test_the_features_folder_may_come_from_the_environment(root: Path) -> None:
    result = CliRunner().invoke(cache_app, ["ls", "--json"], env={"PGM_FEATURES": str(root)})
    assert len(json.loads(result.stdout)) == 2


def test_an_unknown_name_suggests_the_nearest(root: Path) -> None:
    error = invoke(root, "info", "tyo").exception
    assert isinstance(error, NotFound)
    assert "did you mean 'toy'?" in str(error)
    assert list_datasets(root / "nowhere") == []
    assert "Nothing" in invoke(root / "nowhere", "gc").stdout
    assert "pgm extract" in invoke(root / "nowhere", "ls").stdout


def test_info_prints_identity_and_layout(root: Path) -> None:
    (store,) = printed(root, "info", root / "toy" / TEXT.folder)
    assert store["identity"] == TEXT.as_dict()
    assert store["layout"]["shard_tokens"] == 16
    assert store["counts"] == {"ok": 7, "failed": 0, "missing": 1}
    assert "identity.fields.layer" in invoke(root, "info", "toy").stdout


def test_head_shows_labels_norms_and_why_a_sample_has_none(root: Path) -> None:
    rows = printed(root, "head", "toy", "-n", 3)[str(root / "toy" / AUDIO.folder)]
    expected = float(np.linalg.norm(open_features(root / "toy" / AUDIO.folder)[0].astype(np.float32)))
    assert rows[0] == {
        "row": 0, "id": "clip/0", "split": "train", "label": "cat", "S": 3, "norm": expected, "status": "ok"
    }  # fmt: skip
    assert (rows[1]["label"], rows[1]["norm"], rows[1]["status"]) == ("dog", None, "failed")
    assert "missing" in invoke(root, "head", "toy").stdout


def test_stats_agree_with_numpy(root: Path) -> None:
    stats = printed(root, "stats", root / "toy" / TEXT.folder)[str(root / "toy" / TEXT.folder)]
    features = open_features(root / "toy" / TEXT.folder)
    tokens = features.gather(np.flatnonzero(features.available))[0].astype(np.float64)
    np.testing.assert_allclose(stats["mean"], tokens.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(stats["deviation"], tokens.std(axis=0), rtol=1e-12)
    assert (stats["samples"], stats["tokens"], stats["nan"]) == (7, 36, 0)
    assert sum(bar["samples"] for bar in stats["length_histogram"]) == 7
    for bar in stats["length_histogram"]:
        assert bar["samples"] == sum(bar["from"] <= length <= bar["to"] for length in LENGTHS if length)
    assert stats["duplicates"] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert "4 samples repeat" in invoke(root, "stats", "toy").stdout


def test_stats_of_an_unfinished_store_need_to_be_asked_for(root: Path, store: Callable[..., Any]) -> None:
    path = root / "toy" / "vision--clip--00000000"
    store(path, LENGTHS, finish=False)
    assert isinstance(invoke(root, "stats", path).exception, StoreIncomplete)
    assert printed(root, "stats", path, "--allow-partial")[str(path)]["samples"] == 7


def test_verify_exits_1_names_the_samples_and_discard_takes_just_those_back(root: Path) -> None:
    assert invoke(root, "verify").exit_code == 0
    folder = root / "toy" / AUDIO.folder
    part = folder / "features.parts/00001.h5"
    content = bytearray(part.read_bytes())
    content[-5] ^= 4
    part.write_bytes(content)
    result = invoke(root, "verify")
    assert result.exit_code == 1
    assert "shard 1: features.parts/00001.h5 is not as it was written" in result.stdout
    assert "it holds samples 3 to 6 (clip/3 … clip/6)" in result.stdout
    reports = {report["path"]: report for report in printed(root, "verify", "toy")}
    assert reports[str(folder)]["problems"][0]["samples"] == [3, 4, 5, 6]
    assert reports[str(root / "toy" / TEXT.folder)]["sound"]
    assert "took back shards 1" in invoke(root, "verify", "toy", "--discard").stdout
    with pytest.raises(StoreIncomplete):
        open_features(folder)
    layout = open_features(folder, allow_partial=True).layout
    with FeatureWriter(folder, AUDIO, layout, [f"clip/{row}" for row in range(8)]) as writer:
        assert writer.pending() == [1]
        assert writer.failures() == {1: "cut off"}  # sample 5 failed in the shard that was taken back


@pytest.mark.parametrize("name", ["dataset.json", "samples.parquet"])
def test_verify_covers_labels_and_splits(root: Path, name: str) -> None:
    path = root / "toy" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    result = invoke(root, "verify", "toy")
    assert result.exit_code == 1
    assert name in result.stdout


def test_verify_reports_a_store_that_lost_its_description(root: Path) -> None:
    (root / "toy" / TEXT.folder / "store.json").unlink()
    result = invoke(root, "verify", "toy")
    assert result.exit_code == 1
    assert "store.json" in result.stdout
    assert "Nothing to remove" in invoke(root, "gc", "--yes").stdout  # damaged is not left over


def test_rm_asks_and_removes_only_what_was_named(root: Path) -> None:
    folder = root / "toy" / TEXT.folder
    refused = invoke(root, "rm", folder, input="n\n")
    assert isinstance(refused.exception, UserError)
    assert folder.exists()
    assert isinstance(invoke(root, "rm", folder, "--json").exception, UserError)
    assert invoke(root, "rm", folder, input="y\n").exit_code == 0
    assert not folder.exists()
    assert (root / "toy" / AUDIO.folder).exists()
    assert printed(root, "rm", "toy", "--yes")["removed"] == [str(root / "toy")]
    assert not (root / "toy").exists()


def test_rm_and_gc_leave_files_that_are_not_ours(root: Path) -> None:
    note = root / "toy" / TEXT.folder / "notes.txt"
    note.write_text("mine")
    assert isinstance(invoke(root, "rm", "toy", "--yes").exception, UserError)
    assert note.read_text() == "mine"
    assert verify(note.parent).sound


def test_gc_removes_unfinished_stores_and_strays_and_spares_a_live_writer(
    root: Path, store: Callable[..., Any]
) -> None:
    dead, live = root / "toy" / "text--a--00000001", root / "toy" / "text--b--00000002"
    store(dead, LENGTHS, finish=False)
    complete = root / "toy" / TEXT.folder
    (complete / ".writing").mkdir()
    (complete / ".items.parquet.77.tmp").write_bytes(b"half")
    with FeatureWriter(live, TEXT, Layout(np.array([4]), 2, 8), ["x"]):
        result = invoke(root, "gc", "--yes")
        assert "is being written by process" in result.output
        assert live.exists()
    assert not dead.exists()
    assert not (complete / ".writing").exists()
    assert not (complete / ".items.parquet.77.tmp").exists()
    assert verify(complete).sound
    with FeatureWriter(live, TEXT, Layout(np.array([4]), 2, 8), ["x"]):
        assert isinstance(invoke(root, "rm", live, "--yes").exception, StoreLocked)
    assert live.exists()


def test_export_npy_and_safetensors_hold_the_same_numbers(root: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    features = open_features(root / "toy" / TEXT.folder)
    tokens = features.token_rows(0, features.layout.total)
    invoke(root, "export", root / "toy" / TEXT.folder, "--as", "npy", "--to", tmp_path / "n")
    np.testing.assert_array_equal(np.load(tmp_path / "n" / "tokens.npy"), tokens)
    np.testing.assert_array_equal(np.load(tmp_path / "n" / "offsets.npy"), features.layout.offsets)
    assert json.loads((tmp_path / "n" / "store.json").read_text())["ids"][3] == "clip/3"
    written = printed(root, "export", "toy", "--as", "safetensors", "--to", tmp_path / "s")["written"]
    assert len(written) == 2
    with safe_open(tmp_path / "s" / f"{TEXT.folder}.safetensors", "numpy") as file:
        np.testing.assert_array_equal(file.get_tensor("tokens"), tokens)
        np.testing.assert_array_equal(file.get_tensor("offsets"), features.layout.offsets)
        assert json.loads(file.metadata()["identity"]) == TEXT.as_dict()


@pytest.mark.parametrize(("kind", "codec"), [("hdf5", "none"), ("zarr", "zstd")])
def test_export_as_a_store_of_another_format(root: Path, tmp_path: Path, kind: str, codec: str) -> None:
    printed(root, "export", "toy", "--as", kind, "--codec", codec, "--to", tmp_path / "x")
    for identity in (TEXT, AUDIO):
        old, new = open_features(root / "toy" / identity.folder), open_features(tmp_path / "x" / identity.folder)
        assert (new.layout.format, new.layout.codec) == (kind, codec)
        assert new.identity == old.identity
        assert new.items.error == old.items.error
        assert new.token_rows(0, 36).tobytes() == old.token_rows(0, 36).tobytes()
        assert verify(new.path).sound


def test_export_mmsa_is_the_layout_old_tools_read(root: Path, tmp_path: Path) -> None:
    invoke(root, "export", "toy", "--as", "mmsa", "--to", tmp_path / "toy.pkl")
    data = pickle.loads((tmp_path / "toy.pkl").read_bytes())
    assert list(data) == ["train", "valid", "test"]
    assert data["train"]["id"] == ["clip/0", "clip/1", "clip/2", "clip/3"]
    assert data["train"]["text"].shape == (4, 9, 5)
    assert data["train"]["text"].dtype == np.float32
    assert data["train"]["text_lengths"] == [3, 6, 0, 9]
    assert data["train"]["audio_lengths"] == [3, 0, 0, 9]
    assert data["valid"]["classification_labels"].tolist() == [1, 0]
    assert data["test"]["raw_text"] == ["words 6", "words 7"]
    np.testing.assert_array_equal(data["train"]["text"][1, :6], open_features(root / "toy" / TEXT.folder)[1])


def test_export_refuses_to_overwrite_and_to_export_what_is_unfinished(
    root: Path, tmp_path: Path, store: Callable[..., Any]
) -> None:
    (tmp_path / "there").write_text("precious")
    error = invoke(root, "export", "toy", "--as", "mmsa", "--to", tmp_path / "there").exception
    assert isinstance(error, UserError)
    assert (tmp_path / "there").read_text() == "precious"
    path = root / "toy" / "vision--clip--00000000"
    store(path, LENGTHS, finish=False)
    assert isinstance(invoke(root, "export", path, "--as", "npy", "--to", tmp_path / "n").exception, StoreIncomplete)
    assert not (tmp_path / "n").exists()


def test_a_dataset_offers_its_stores_and_says_how_to_choose(root: Path, store: Callable[..., Any]) -> None:
    dataset = open_dataset(root, "toy")
    assert dataset.card.classes == ("cat", "dog")
    assert dataset.samples["split"].to_pylist().count("train") == 4
    assert dataset.features("audio").layout.format == "hdf5"
    other = Identity("text", "tiny", {"layer": 2})
    store(root / "toy" / other.folder, LENGTHS, identity=other)
    with pytest.raises(UserError, match=rf"2 finished text stores(.|\n)*--store text={TEXT.digest}|{other.digest}"):
        dataset.features("text")
    assert dataset.features("text", other.digest[:5]).identity == other
    assert dataset.features("text", TEXT.folder).identity == TEXT
    with pytest.raises(NotFound, match=f"no text store 'zzz'.*{TEXT.digest}"):
        dataset.features("text", "zzz")
    with pytest.raises(NotFound, match="no vision features; it has audio, text"):
        dataset.features("vision")
    with pytest.raises(NotFound, match="did you mean 'text'"):
        dataset.features("txt")
    with pytest.raises(NotFound, match="no dataset 'food'"):
        open_dataset(root, "food")
    with pytest.raises(IdentityMismatch, match=r"fields\.layer: 12 here, -1 asked for"):
        open_features(root / "toy" / AUDIO.folder, identity=TEXT)


def test_a_store_of_another_sample_list_is_refused(root: Path) -> None:
    dataset = open_dataset(root, "toy")
    write_dataset(root / "toy", dataset.card, dataset.samples.slice(0, 7))
    with pytest.raises(UserError, match="another list of samples"):
        open_dataset(root, "toy").features("text")


def test_a_samples_table_is_checked_before_it_is_written(tmp_path: Path) -> None:
    card = DatasetCard("x", "sentiment", (), ("mae",))
    with pytest.raises(UserError, match="split is not there"):
        write_dataset(tmp_path / "x", card, pa.table({"id": ["a"]}))
    with pytest.raises(UserError, match="'a' appears more than once"):
        write_dataset(tmp_path / "x", card, pa.table({"id": ["b", "a", "a"], "split": ["train"] * 3}))
    with pytest.raises(UserError, match="unknown split 'dev'"):
        write_dataset(tmp_path / "x", card, pa.table({"id": ["a"], "split": ["dev"]}))
    with pytest.raises(UserError, match="task 'guessing'"):
        DatasetCard("x", "guessing", (), ())  # type: ignore[arg-type]
    assert not (tmp_path / "x").exists()
