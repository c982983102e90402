"""`pgm cache …` as a user types it: what it prints, what it exits with, what it refuses to delete."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from pgm.cache import Identity, list_datasets, open_dataset, open_features, publish
from pgm.cache.commands import cache_app, make_push_command
from pgm.cache.errors import IdentityMismatch, NotFound, UserError
from typer import Typer
from typer.testing import CliRunner, Result

from .conftest import CARD, flip, make_store, published, samples_table

LENGTHS = [3, 6, 0, 9, 2, 7, 5, 4]
TEXT = Identity("text", "google-t5/t5-base", {"layer": -1, "stored_dtype": "float16"})
AUDIO = Identity("audio", "MIT/ast", {"layer": 12, "stored_dtype": "int8"})
FAILURES = {1: "cut off", 5: "silent"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """features/toy with a Zarr text store and an int8 HDF5 audio store; two audio samples failed."""
    root = tmp_path / "ordner mit ö"
    text = make_store(root / "toy", LENGTHS, identity=TEXT)
    audio = make_store(
        root / "toy", LENGTHS, 3, identity=AUDIO, format="hdf5", stored="int8", failures=FAILURES, per_segment=3
    )
    published(text, audio, table=samples_table(text.ids, text=[f"words {row}" for row in range(8)]))
    return root


def invoke(root: Path, *arguments: object, **options: Any) -> Result:
    return CliRunner().invoke(cache_app, [*map(str, arguments), "--features", str(root)], **options)


def printed(root: Path, *arguments: object) -> Any:
    result = invoke(root, *arguments, "--json")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return json.loads(result.stdout)


def test_every_command_shows_an_example_and_takes_features_and_json() -> None:
    for command in ("ls", "info", "head", "stats", "log", "verify", "rm", "gc", "compact", "export"):
        text = CliRunner().invoke(cache_app, [command, "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
        for word in ("Example: pgm cache", "--features", "--json", "PGM_FEATURES"):
            assert word in text, (command, word)


def test_ls_lists_what_there_is_finished_or_not(root: Path) -> None:
    make_store(root / "toy", LENGTHS, identity=Identity("vision", "clip"), version=False)
    make_store(root / "other", LENGTHS, identity=TEXT, version=False)
    rows = {(row["dataset"], row["modality"], row["state"]): row for row in printed(root, "ls")}
    assert set(rows) == {
        ("toy", "text", "complete"), ("toy", "audio", "complete"),
        ("toy", "vision", "unfinished"), ("other", "text", "unfinished"),
    }  # fmt: skip
    text = rows["toy", "text", "complete"]
    assert (text["encoder"], text["samples"], text["tokens"]) == ("google-t5/t5-base", 8, 36)
    folder = root / "toy" / TEXT.folder
    assert text["bytes"] == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    out = invoke(root, "ls").stdout
    assert "google-t5/t5-base" in out
    assert "unfinished" in out
    assert len(printed(root, "ls", folder)) == 1
    assert len(printed(root, "ls", f"toy/{TEXT.folder}")) == 1


def test_the_features_folder_may_come_from_the_environment(root: Path) -> None:
    result = CliRunner().invoke(cache_app, ["ls", "--json"], env={"PGM_FEATURES": str(root)})
    assert len(json.loads(result.stdout)) == 2


def test_an_unknown_name_suggests_the_nearest(root: Path) -> None:
    error = invoke(root, "info", "tyo").exception
    assert isinstance(error, NotFound)
    assert "Did you mean 'toy'?" in str(error)
    assert list_datasets(root / "nowhere") == []
    assert "Nothing" in invoke(root / "nowhere", "gc").stdout
    assert "pgm extract" in invoke(root / "nowhere", "ls").stdout


def test_what_an_earlier_release_wrote_is_refused_with_what_to_do(root: Path) -> None:
    (root / "old").mkdir()
    (root / "old/dataset.json").write_text("{}")
    for command in (["info", "old"], ["verify", "old"], ["log", "old"]):
        error = invoke(root, *command).exception
        assert isinstance(error, UserError)
        assert "remove the folder and extract again" in str(error)
    with pytest.raises(UserError, match="format of an earlier PgM"):
        open_dataset(root, "old")


def test_info_prints_identity_and_version(root: Path) -> None:
    (store,) = printed(root, "info", root / "toy" / AUDIO.folder)
    assert store["identity"] == AUDIO.as_dict()
    assert store["counts"] == {"ok": 5, "failed": 2, "missing": 1}
    assert (store["version"], store["samples"], store["segments"]) == (1, 8, 3)
    assert 0 < store["int8_error"]["relative_error_mean"] < 0.01
    assert "identity.fields.layer" in invoke(root, "info", "toy").stdout


def test_log_tells_what_every_version_cost(root: Path) -> None:
    grown = make_store(root / "toy", [*LENGTHS, 4, 4], identity=TEXT)
    published(grown)
    first, second = printed(root, "log", "toy")
    assert (first["samples"], first["new"], first["reused"]) == (8, 5, 0)
    assert (second["samples"], second["new"], second["reused"]) == (10, 2, 1)
    assert 0 < second["bytes"] < first["bytes"]
    out = invoke(root, "log", "toy").stdout
    assert "segments new" in out
    assert [row["version"] for row in printed(root, "log", root / "toy" / TEXT.folder)] == [1, 2]


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
    # Row 2 is missing: there is nothing that it was made from.
    assert stats["duplicates"] == [[0, 1], [4, 5], [6, 7]]
    assert "3 samples repeat" in invoke(root, "stats", "toy").stdout


def test_verify_exits_1_names_the_samples_and_discard_lets_them_be_made_again(root: Path) -> None:
    assert invoke(root, "verify").exit_code == 0
    made = open_features(root / "toy" / TEXT.folder)
    path = Path(made.url) / "segments" / made.version.segments[0] / "tokens/c/0/0"
    flip(path, 3 * 5 * 2 + 1)
    result = invoke(root, "verify")
    assert result.exit_code == 1
    assert f"segments/{made.version.segments[0]} is not what its name says; it costs clip/1" in result.stdout
    assert "--discard" in result.stdout
    reports = {report["path"]: report for report in printed(root, "verify", "toy")}
    assert reports[made.url]["problems"][0]["samples"] == ["clip/1"]
    assert reports[str(root / "toy" / AUDIO.folder)]["sound"]
    assert f"Removed {made.url}/segments/{made.version.segments[0]}" in invoke(root, "verify", "--discard").stdout
    make_store(root / "toy", LENGTHS, identity=TEXT)
    assert invoke(root, "verify").exit_code == 0


def test_rm_asks_and_removes_only_what_was_named(root: Path) -> None:
    folder = root / "toy" / TEXT.folder
    refused = invoke(root, "rm", folder, input="n\n")
    assert isinstance(refused.exception, UserError)
    assert folder.exists()
    assert isinstance(invoke(root, "rm", folder, "--json").exception, UserError)
    assert invoke(root, "rm", folder, input="y\n").exit_code == 0
    assert not folder.exists()
    assert open_dataset(root, "toy").modalities == ["audio"]
    assert invoke(root, "verify").exit_code == 0
    assert printed(root, "rm", "toy", "--yes")["removed"] == [str(root / "toy")]
    assert not (root / "toy").exists()


def test_rm_leaves_a_folder_that_holds_other_files(root: Path) -> None:
    note = root / "toy" / TEXT.folder / "notes.txt"
    note.write_text("mine")
    for target in ("toy", f"toy/{TEXT.folder}"):
        error = invoke(root, "rm", target, "--yes").exception
        assert isinstance(error, UserError)
        assert "notes.txt" in str(error)
    assert invoke(root, "verify").exit_code == 0


def test_gc_says_what_it_removes_and_asks(root: Path) -> None:
    assert printed(root, "gc", "--now", "--yes") == {"removed": [], "bytes": 0}
    make_store(root / "toy", LENGTHS, identity=TEXT, seed=1, version=False)
    before = len(os.listdir(root / "toy" / TEXT.folder / "segments"))
    assert "Nothing" in invoke(root, "gc", "toy").stdout, "an extraction may be about to commit them"
    assert isinstance(invoke(root, "gc", "toy", "--now", input="n\n").exception, UserError)
    assert isinstance(invoke(root, "gc", root / "toy" / TEXT.folder, "--yes").exception, UserError)
    result = invoke(root, "gc", "toy", "--now", input="y\n")
    assert "a segment no version lists" in result.stdout
    assert "Removed 2" in result.stdout
    assert len(os.listdir(root / "toy" / TEXT.folder / "segments")) == before - 2
    assert invoke(root, "verify").exit_code == 0


def test_compact_says_what_it_wrote_and_changes_no_contents(root: Path) -> None:
    before = {name: open_dataset(root, "toy").features(name).content for name in ("text", "audio")}
    out = invoke(root, "compact", "toy").stdout
    assert "version 2, 1 segments" in out
    assert "pgm cache gc --keep 1" in out
    assert {name: open_dataset(root, "toy").features(name).content for name in before} == before
    assert [row["version"] for row in printed(root, "compact", "toy")] == [None, None]
    assert invoke(root, "verify").exit_code == 0
    last, now = printed(root, "log", "toy")[-1], open_dataset(root, "toy").version
    assert last["version"] == now.number
    assert set(now.stores.values()) == {2}


def test_export_npy_and_safetensors_hold_the_same_numbers(root: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    features = open_features(root / "toy" / TEXT.folder)
    tokens, lengths = features.gather(range(8), unavailable="empty")
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    invoke(root, "export", root / "toy" / TEXT.folder, "--as", "npy", "--to", tmp_path / "n")
    np.testing.assert_array_equal(np.load(tmp_path / "n" / "tokens.npy"), tokens)
    np.testing.assert_array_equal(np.load(tmp_path / "n" / "offsets.npy"), offsets)
    assert json.loads((tmp_path / "n" / "store.json").read_text())["ids"][3] == "clip/3"
    written = printed(root, "export", "toy", "--as", "safetensors", "--to", tmp_path / "s")["written"]
    assert len(written) == 2
    with safe_open(tmp_path / "s" / f"{TEXT.folder}.safetensors", "numpy") as file:
        np.testing.assert_array_equal(file.get_tensor("tokens"), tokens)
        np.testing.assert_array_equal(file.get_tensor("offsets"), offsets)
        assert json.loads(file.metadata()["identity"]) == TEXT.as_dict()


def test_int8_leaves_as_float16_and_its_identity_says_so(root: Path, tmp_path: Path) -> None:
    invoke(root, "export", root / "toy" / AUDIO.folder, "--as", "npy", "--to", tmp_path / "n")
    assert np.load(tmp_path / "n/tokens.npy").dtype == np.float16
    fields = json.loads((tmp_path / "n/store.json").read_text())["identity"]["fields"]
    assert (fields["stored_dtype"], fields["exported_from"]) == ("float16", "int8")


@pytest.mark.parametrize(("kind", "codec"), [("hdf5", "none"), ("zarr", "none"), ("zarr", "zstd")])
def test_export_one_dense_array_of_a_store(root: Path, tmp_path: Path, kind: str, codec: str) -> None:
    written = printed(root, "export", "toy", "--as", kind, "--codec", codec, "--to", tmp_path / "x")["written"]
    for identity in (TEXT, AUDIO):
        [place] = [path for path in written if identity.folder in path]
        old = open_features(root / "toy" / identity.folder)
        plain: Any = zarr.open_group(place, mode="r") if kind == "zarr" else h5py.File(place, "r")
        tokens, mask = old.padded(range(8), unavailable="empty")
        assert plain["tokens"].dtype == np.float16
        assert np.array_equal(plain["tokens"][:], tokens)
        assert np.array_equal(plain["mask"][:], mask)
        assert plain["lengths"][:].tolist() == old.lengths.tolist()
        told = plain.attrs["identity"] if kind == "zarr" else json.loads(plain.attrs["identity"])
        assert told["fields"]["stored_dtype"] == "float16"
        assert ("exported_from" in told["fields"]) == (identity is AUDIO)
        texts = {name: plain[name] if kind == "zarr" else plain[name].asstr() for name in ("ids", "status", "errors")}
        assert texts["ids"][:].tolist() == [f"clip/{row}" for row in range(8)]
        assert texts["status"][:].tolist() == old.status.tolist()
        assert {row: why for row, why in enumerate(texts["errors"][:]) if why} == old.errors()
        assert mask.shape == (8, 9)
        assert len(old.version.segments) > 1
        assert identity is TEXT or {"failed", "missing"} <= {*old.status}
        if kind == "hdf5":
            plain.close()


def test_a_dataset_s_version_is_not_taken_for_its_stores(root: Path, tmp_path: Path) -> None:
    grown = make_store(root / "toy", [*LENGTHS, 2], identity=TEXT)
    published(grown)
    published(make_store(root / "toy", [*LENGTHS, 3], identity=TEXT, seed=1))
    dataset = open_dataset(root, "toy", 2)
    assert dataset.version.stores == {TEXT.folder: 2}
    [told] = printed(root, "info", "toy", "--version", "2")
    assert (told["version"], told["samples"]) == (2, 9)
    assert {one["version"] for one in printed(root, "info", "toy", "--version", "1")} == {1}
    [written] = printed(root, "export", "toy", "--version", "2", "--as", "npy", "--to", tmp_path / "x")["written"]
    assert np.array_equal(np.load(f"{written}/tokens.npy"), np.concatenate(grown.oracle))


def test_a_store_s_place_takes_the_store_s_versions(root: Path) -> None:
    """They are numbered apart from the dataset's: of the store's first version no dataset version is the first."""
    place = root / "other" / TEXT.folder
    before = make_store(root / "other", LENGTHS, identity=TEXT)
    publish(before.dataset, CARD, samples_table(before.ids), {})
    published(before)
    grown = make_store(root / "other", [*LENGTHS, 3], identity=TEXT, seed=1)
    published(grown)
    assert open_dataset(root, "other", 2).version.stores == {TEXT.folder: 1}
    for version, made in (("1", before), ("2", grown)):
        [rows] = printed(root, "head", place, "--version", version, "-n", 20).values()
        assert [row["id"] for row in rows] == made.ids
        [stats] = printed(root, "stats", place, "--version", version).values()
        assert stats["tokens"] == sum(map(len, made.oracle))


def test_only_the_latest_version_of_a_store_is_compacted(root: Path) -> None:
    published(make_store(root / "toy", [*LENGTHS, 2], identity=TEXT))
    result = invoke(root, "compact", root / "toy" / TEXT.folder, "--version", "1")
    assert isinstance(result.exception, UserError)
    assert "has version 2 by now" in str(result.exception)


def test_a_dense_array_that_does_not_fit_is_refused_before_it_is_written(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    error = invoke(root, "export", root / "toy" / TEXT.folder, "--as", "hdf5", "--to", tmp_path / "x.h5").exception
    assert isinstance(error, UserError)
    assert "room of the longest, 9 tokens where the mean is 5.1. --as npy" in str(error)
    assert not list(tmp_path.glob("*x.h5*"))


def test_export_mmsa_is_the_layout_old_tools_read(root: Path, tmp_path: Path) -> None:
    invoke(root, "export", "toy", "--as", "mmsa", "--to", tmp_path / "toy.pkl")
    data = pickle.loads((tmp_path / "toy.pkl").read_bytes())
    assert list(data) == ["train", "valid", "test"]
    assert data["train"]["id"] == ["clip/0", "clip/1", "clip/4", "clip/7"]
    assert data["train"]["text"].shape == (4, 6, 5)
    assert data["train"]["text"].dtype == np.float32
    assert data["train"]["text_lengths"] == [3, 6, 2, 4]
    assert data["train"]["audio_lengths"] == [3, 0, 2, 4]
    assert data["valid"]["classification_labels"].tolist() == [0, 1]
    assert data["test"]["raw_text"] == ["words 3", "words 6"]
    np.testing.assert_array_equal(data["train"]["text"][1, :6], open_features(root / "toy" / TEXT.folder)[1])


def test_export_refuses_to_overwrite_and_to_export_what_is_unfinished(root: Path, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("precious")
    error = invoke(root, "export", "toy", "--as", "mmsa", "--to", tmp_path / "there").exception
    assert isinstance(error, UserError)
    assert (tmp_path / "there").read_text() == "precious"
    made = make_store(root / "toy", LENGTHS, identity=Identity("vision", "clip"), version=False)
    error = invoke(root, "export", made.path, "--as", "npy", "--to", tmp_path / "n").exception
    assert isinstance(error, NotFound)
    assert not (tmp_path / "n").exists()


def test_a_dataset_offers_its_stores_and_says_how_to_choose(root: Path) -> None:
    dataset = open_dataset(root, "toy")
    assert dataset.card == CARD
    assert dataset.samples["split"].to_pylist().count("train") == 4
    other = make_store(root / "toy", LENGTHS, identity=Identity("text", "tiny", {"layer": 2}))
    assert dataset.features("text").identity == TEXT, "not published yet"
    dataset = published(other, table=dataset.samples)
    identity = other.store.identity
    with pytest.raises(UserError, match=rf"2 text stores(.|\n)*--store text={TEXT.digest}|{identity.digest}"):
        dataset.features("text")
    assert dataset.features("text", identity.digest[:5]).identity == identity
    assert dataset.features("text", TEXT.folder).identity == TEXT
    with pytest.raises(NotFound, match=f"no text store 'zzz'.*{TEXT.digest}"):
        dataset.features("text", "zzz")
    with pytest.raises(NotFound, match="no vision features; it has audio, text"):
        dataset.features("vision")
    with pytest.raises(NotFound, match="Did you mean 'text'"):
        dataset.features("txt")
    with pytest.raises(NotFound, match="no dataset 'food'"):
        open_dataset(root, "food")
    with pytest.raises(IdentityMismatch, match=r"fields\.layer: 12 here, -1 asked for"):
        open_features(root / "toy" / AUDIO.folder, identity=TEXT)


def test_a_version_by_number_or_name_and_what_there_is_otherwise(root: Path) -> None:
    published(make_store(root / "toy", LENGTHS[:4], identity=TEXT), name="limit-4")
    assert len(open_dataset(root, "toy").features("text")) == 8, "a limited version shadows nothing"
    assert len(open_dataset(root, "toy", "limit-4").features("text")) == 4
    assert len(open_dataset(root, "toy", 2).features("text")) == 4
    with pytest.raises(NotFound, match=r"no version 'limt-4'; it has .*limit-4. Did you mean 'limit-4'"):
        open_dataset(root, "toy", "limt-4")
    with pytest.raises(NotFound, match="no version 9; it has 1, 2"):
        open_dataset(root, "toy", 9)


def test_a_push_that_meets_a_later_version_says_so(root: Path, tmp_path: Path) -> None:
    """A dataset's version of one modality, where the one of both has been pushed before."""
    text, vision = (Identity(name, "clip", {}) for name in ("text", "vision"))
    one = make_store(root / "both", LENGTHS, identity=text)
    published(one)
    published(make_store(root / "both", LENGTHS, identity=vision))
    push = ("push", "both", tmp_path / "elsewhere")
    app = Typer()
    app.command("push")(make_push_command(lambda name, modality: "none"))
    app.command("other")(lambda: None)

    def said(*more: str) -> str:
        return CliRunner().invoke(app, [*map(str, push), *more, "--features", str(root)]).stdout

    assert "version 1, 4 segments copied" in said()
    assert "version 1 (a later one, which has this and more), 0 segments copied" in said("--version", "1")
