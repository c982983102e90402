"""Every command that takes --features, with features in a bucket: it says what it says of a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pgm import demo
from pgm.cache import open_dataset, open_features, storage_at
from pgm.cache.errors import NotFound, RunFailed, UserError
from pgm.pipeline import Collection, load_dataset

from .conftest import TINY, Places, import_arrays, run, said

TABLE = ["--dataset=toy", "--seeds=1", "--workers=1", *TINY]


def test_extract_writes_what_it_writes_to_a_folder_and_goes_on_from_it(
    places: Places, digits_root: Path, tmp_path: Path
) -> None:
    asked = ["extract", "digits", "--limit=24", "--modality=text", "--executor=serial", "--root", digits_root]
    places_of = (tmp_path / "features", f"{places.bucket}/extracted")
    here, there = (said(*asked, "--features", place)["modalities"] for place in places_of)
    assert open_features(here["text"]["store"]).content == open_features(there["text"]["store"]).content
    assert said(*asked, "--features", places_of[1])["modalities"]["text"]["reused"]
    assert "already there" in run(*asked, "--features", places_of[1], "--dry-run").stdout


def test_an_import_again_writes_nothing(places: Places, arrays: Path) -> None:
    before = [entry.key for entry in storage_at(places.url).entries("toy")]
    import_arrays(arrays, places.url)
    assert [entry.key for entry in storage_at(places.url).entries("toy")] == before


@pytest.mark.parametrize("command", ["ls", "info", "head", "stats", "log", "verify"])
def test_looking(command: str, places: Places) -> None:
    here, there = places.both("cache", command, "toy")
    assert here == there
    assert here


def test_a_split_is_drawn_the_same(places: Places) -> None:
    here, there = places.both("cache", "split", "toy", "--by", "label", "--test", "0.2")
    assert here == there
    assert said("cache", "split", "toy", "--list", "--features", places.url)[0]["name"] == here["name"]


def test_an_export_is_the_same_file(places: Places, tmp_path: Path) -> None:
    for name, place in (("here", places.folder), ("there", places.url)):
        run("cache", "export", "toy", "--as", "safetensors", "--to", tmp_path / name, "--features", place)
    files = sorted((tmp_path / "here").iterdir())
    assert len(files) == 2
    assert all(file.read_bytes() == (tmp_path / "there" / file.name).read_bytes() for file in files)


def test_compacting_sweeping_and_removing(places: Places, arrays: Path, tmp_path: Path) -> None:
    url = f"{places.bucket}/swept"
    import_arrays(arrays, url)
    contents = [one["content"] for one in said("cache", "info", "toy", "--features", url)]
    made = said("cache", "compact", "toy", "--format", "hdf5", "--features", url)
    assert [one["version"] for one in made] == [2, 2]
    assert [one["content"] for one in said("cache", "info", "toy", "--features", url)] == contents
    removed = said("cache", "gc", "toy", "--keep", "1", "--now", "--yes", "--features", url)["removed"]
    assert sum(".zarr" in name for name in removed) >= 2
    assert all(report["sound"] for report in said("cache", "verify", "toy", "--features", url))
    [first, _] = said("cache", "ls", "--features", url)
    run("cache", "rm", first["path"], "--yes", "--features", url)
    assert len(said("cache", "ls", "--features", url)) == 1
    run("cache", "rm", "toy", "--yes", "--features", url)
    assert list(storage_at(url).entries()) == []


@pytest.fixture(scope="module")
def trained(places: Places, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """What `pgm train` says on the bucket, and where the run is; on the folder it says the same."""
    told = {}
    for name, place in (("here", places.folder), ("there", places.url)):
        runs = tmp_path_factory.mktemp(name)
        told[name] = said("train", "--cached", "--method=pgm", "--features", place, "--runs", runs, *TINY), runs
    for field in ("run", "val", "test", "floors", "epochs"):
        assert told["here"][0][field] == told["there"][0][field], field
    return told["there"]


def test_training_evaluating_and_predicting(
    trained: tuple[dict[str, Any], Path], places: Places, tmp_path: Path
) -> None:
    told, runs = trained
    evaluated = said("evaluate", told["run"], "--runs", runs)
    assert evaluated["metrics"] == told["test"]
    out = tmp_path / "predictions.parquet"
    run("predict", told["run"], "--features", places.url, "--runs", runs, "--out", out)
    assert pq.read_table(out).num_rows == 160


def test_tables_ablations_figures_and_the_report(places: Places, tmp_path: Path) -> None:
    where = ["--features", places.url, "--runs", tmp_path / "runs"]
    table = json.loads(run("table", "2", *TABLE, *where, "--format=json").stdout)
    assert len([row for row in table["rows"] if row["runs"]]) >= 8
    ablation = json.loads(run("ablate", "--vary", "iterations=1,2", *TABLE, *where, "--format=json").stdout)
    assert len(ablation["rows"]) >= 2
    masked = ["table", "missing", "--rates=0,0.3", "--methods=concat", *TABLE, *where, "--format=json"]
    assert json.loads(run(*masked).stdout)
    assert [name for name in storage_at(places.url).names("toy/masks") if name.endswith(".mask.json")]
    run("figure", "confusion", "--dataset=toy", "--seeds=1", *TINY, *where, "--out", tmp_path)
    assert (tmp_path / "toy-confusion.svg").exists()
    report = said("report", "--dataset=toy", "--seeds=1", *TINY, *where, "-o", tmp_path / "report.html")
    assert report["runs"] >= 8


def test_the_demo(bucket: str, digits_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def few(name: str) -> Collection:
        return load_dataset(name, digits_root).limited(40).only(["text"])

    monkeypatch.setattr(demo, "load_dataset", few)
    monkeypatch.setattr(demo, "METHODS", ("concat", "text"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "SETTINGS", {"pretrain_epochs": 1, "epochs": 1})
    told = run("demo", "--features", f"{bucket}/demo", "--runs", tmp_path / "runs").stdout
    assert "linear probe" in told
    for suffix in (".html", ".png", ".svg"):
        assert (tmp_path / "figures" / f"digits-demo{suffix}").stat().st_size > 1000
    assert (tmp_path / "figures" / "digits-demo.html").as_uri() in told
    assert len(open_dataset(f"{bucket}/demo", "digits").samples) == 40


def test_a_reader_in_python(places: Places) -> None:
    here, there = (open_dataset(place, "toy").features("text") for place in (places.folder, places.url))
    rows = np.array([5, 3, 150, 3])
    assert all(np.array_equal(a, b) for a, b in zip(here.gather(rows), there.gather(rows), strict=True))
    assert here.content == there.content


@pytest.mark.parametrize(
    "command",
    [
        ["extract", "digits"],
        ["import", "toy", "no-such-file.npz"],
        ["train", "--cached"],
        ["table", "2"],
        ["report"],
        ["cache", "ls"],
        ["cache", "verify", "toy"],
    ],
    ids=lambda words: " ".join(words),
)
def test_what_is_wrong_with_a_place_is_said_first_and_plainly(
    command: list[str], places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(place: str, kind: type[Exception], what: str) -> None:
        with pytest.raises(kind, match=what):
            run(*command, "--features", place)

    refused("s3://no-such-bucket/x", UserError, "the bucket does not exist; check its name")
    refused("s5://bucket/x", UserError, r"s5://bucket/x is no place for features: give a folder, or s3://BUCKET")
    refused("hf://datasets/a/b", UserError, "for `pgm cache push` and `pgm cache pull`")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    refused(places.url, RunFailed, "the endpoint does not answer; check the network")


def test_a_dataset_that_is_not_there_is_told_with_its_place(places: Places) -> None:
    with pytest.raises(NotFound, match=r"no dataset 'toi' in s3://.*/some/features/. Did you mean 'toy'"):
        run("cache", "split", "toi", "--by", "label", "--features", places.url)
