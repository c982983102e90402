"""Runs on named splits: recorded, found again, refused clearly; and what a run says of its data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import typer
from pgm.cache import (
    DatasetCard,
    Identity,
    ids_digest,
    make_split,
    open_dataset,
    open_split,
    publish,
    storage_at,
    write_features,
)
from pgm.cache.errors import IdentityMismatch, NotFound, UserError
from pgm.trainer import Run
from pgm.trainer.data.dataset import load_data
from pgm.trainer.protocol import Protocol
from pgm.trainer.run import commands as trainer_commands
from pgm.trainer.run.events import Event, Note
from pgm.trainer.run.inference import evaluate_run, predict
from pgm.trainer.run.request import Request, resolve
from pgm.trainer.run.runs import content_hash
from typer.testing import CliRunner

KEYS = {
    "recipe", "floors", "dataset", "digest", "stores", "task", "classes", "widths", "encoders", "method", "protocol",
    "machine", "seed",
}  # fmt: skip


@pytest.fixture
def grouped(tmp_path: Path, make_toy: Callable[..., Path]) -> Path:
    """A features root with a dataset of 160 samples in 20 videos, which its own split tears apart."""
    return make_toy(tmp_path / "features", missing=0.1, groups=20)


def split_of(root: Path, name: str) -> np.ndarray:
    return np.array(open_split(open_dataset(root, "toy"), name)[1].to_pylist())


def test_without_a_named_split_the_configuration_has_the_keys_it_always_had(toy: Path, tmp_path: Path) -> None:
    resolved = resolve(Request(toy, tmp_path, method="concat"))
    assert set(resolved.config) == KEYS
    # Columns that say who has what, and named splits that nobody asked for, are no part of what is learned.
    copy = tmp_path / "features"
    shutil.copytree(toy, copy)
    dataset = open_dataset(copy, "toy")
    present = np.ones(len(dataset.samples), bool)
    publish(dataset.storage, dataset.card, dataset.samples, {}, {"text": present, "vision": ~present})
    make_split(open_dataset(copy, "toy"), "random", name="mine")
    again = resolve(Request(copy, tmp_path, method="concat"))
    assert content_hash(again.config) == content_hash(resolved.config)
    named = resolve(Request(copy, tmp_path, method="concat", split="mine")).config
    assert set(named) == KEYS | {"split"}
    assert named["split"] == "mine"
    assert named["digest"] != resolved.config["digest"]


def test_a_run_trains_on_the_split_it_names_and_says_so(
    grouped: Path, tmp_path: Path, quick: Callable[..., Run]
) -> None:
    make_split(open_dataset(grouped, "toy"), "group", 0.2, 0.2, name="videos")
    parts = split_of(grouped, "videos")
    heard: list[Event] = []
    run = quick(grouped, tmp_path / "runs", split="videos", listener=heard.append)
    assert run.config["split"] == "videos"
    assert run.result["samples"]["test"] == (parts == "test").sum()
    ids = open_dataset(grouped, "toy").samples["id"].to_pylist()
    import pyarrow.parquet as pq

    tested = pq.read_table(run.predictions_path("test"))["id"].to_pylist()
    assert tested == [name for name, part in zip(ids, parts, strict=True) if part == "test"]
    told = "Split videos, drawn by: pgm cache split toy --by group --val 0.2 --test 0.2 --seed 0 --name videos"
    assert told in run.result["notes"]
    assert told in [event.text for event in heard if isinstance(event, Note)]
    own = quick(grouped, tmp_path / "runs")
    assert own.id != run.id
    assert "split" not in own.config
    assert own.result["samples"]["test"] == 32


def test_floors_and_shared_stages_are_those_of_the_split(
    grouped: Path, tmp_path: Path, quick: Callable[..., Run]
) -> None:
    dataset = open_dataset(grouped, "toy")
    for seed in (0, 1):
        make_split(dataset, "random", 0.2, 0.2, seed, f"s{seed}")
        quick(grouped, tmp_path, "pgm", split=f"s{seed}")
    assert len(list((tmp_path / "floors").glob("*.json"))) == 2
    assert len({path.name for path in (tmp_path / "stages").iterdir()}) == 2


def test_evaluate_finds_the_split_again_and_says_when_it_is_gone(
    grouped: Path, tmp_path: Path, quick: Callable[..., Run]
) -> None:
    dataset = open_dataset(grouped, "toy")
    make_split(dataset, "label", 0.2, 0.3, 4, "mine")
    run = quick(grouped, tmp_path / "runs", split="mine")
    assert evaluate_run(run, "test", None, "mapped", "cpu")["metrics"] == run.test
    for path in (grouped / "toy" / "splits").iterdir():
        path.unlink()
    with pytest.raises(
        NotFound, match=r"trained on the split 'mine' of toy, .* --val 0\.2 --test 0\.3 --seed 4 --name"
    ):
        evaluate_run(run, "test", None, "mapped", "cpu")
    assert predict(run, grouped, "toy", tmp_path / "p.parquet", {}, "auto", "cpu") == 160, "predicting needs no split"
    make_split(dataset, "label", 0.2, 0.3, 5, "mine")
    with pytest.raises(IdentityMismatch, match="splits or stores have changed"):
        evaluate_run(run, "test", None, "mapped", "cpu")


def test_the_command_takes_a_split_and_refuses_a_typo(grouped: Path, tmp_path: Path) -> None:
    make_split(open_dataset(grouped, "toy"), "random", name="mine")
    app = typer.Typer()
    app.command("train")(trainer_commands.make_train_command(lambda features, dataset: None))

    def train(*more: str) -> Any:
        options = ["--cached", "--features", grouped, "--runs", tmp_path / "runs", "--json", "--method", "concat"]
        options += ["--set", "dim=8", "--set", "heads=2", "--epochs", "1", "--pretrain-epochs", "0", *more]
        result = CliRunner().invoke(app, [str(option) for option in options])
        if result.exception is not None:
            raise result.exception
        return json.loads(result.stdout)

    assert train("--split", "mine")["samples"] == {"train": 115, "val": 13, "test": 32}
    with pytest.raises(NotFound, match=r"no split named 'mien'; it has mine. Did you mean 'mine'\?") as typo:
        train("--split", "mien")
    assert typo.value.exit_code == 2


def test_a_named_split_replaces_a_missing_validation(tmp_path: Path, make_toy: Callable[..., Path]) -> None:
    root = make_toy(tmp_path, counts={"train": 80, "test": 20})
    make_split(open_dataset(root, "toy"), "random", 0.25, name="mine")
    data = load_data(open_dataset(root, "toy"), ["text"], {}, Protocol(), "mine")
    assert len(data.splits["val"]) == 20
    assert not any("no validation split" in note for note in data.notes)


def duplicated(root: Path, shared: int, notes: tuple[str, ...] = ()) -> Path:
    """Forty samples; the first `shared` of the ten test samples have a training sample's source."""
    ids, splits = [f"s{row}" for row in range(40)], ["train"] * 20 + ["val"] * 10 + ["test"] * 10
    card = DatasetCard("twins", "classification", ("a", "b"), ("accuracy",), notes=notes)
    labels = pa.array([row % 2 for row in range(40)], pa.int32())
    dataset, stores = storage_at(root / "twins"), {}
    for modality in ("text", "vision"):
        identity = Identity(modality, "toy", {})
        tokens = np.random.default_rng(0).normal(size=(40, 2, 3))
        if modality == "vision":
            tokens[30 : 30 + shared] = tokens[:shared]
        written = write_features(dataset, identity, ids, ids_digest(ids), [2] * 40, tokens.reshape(80, 3), "float32")
        stores[identity.folder] = written.number
    publish(dataset, card, pa.table({"id": ids, "split": splits, "label": labels}), stores)
    return root


@pytest.mark.parametrize(("shared", "told"), [(3, "3 of 10 test samples have"), (1, "1 of 10 test samples has")])
def test_known_duplicates_are_a_note_of_the_run(
    tmp_path: Path, quick: Callable[..., Run], shared: int, told: str
) -> None:
    run = quick(duplicated(tmp_path / "features", shared), tmp_path / "runs")
    assert run.result["notes"] == [f"{told} the same vision source as a training sample."]
    assert run.environment["notes"] == run.result["notes"]


def test_without_duplicates_there_is_no_note(tmp_path: Path) -> None:
    root = duplicated(tmp_path, 0)
    assert load_data(open_dataset(root, "twins"), ["text", "vision"], {}, Protocol()).notes == ()


def test_duplicates_are_those_of_the_split_that_is_used(tmp_path: Path) -> None:
    root = duplicated(tmp_path, 10)
    dataset = open_dataset(root, "twins")
    make_split(dataset, "random", 0.1, 0.5, 1, "mine")
    parts = np.array(open_split(dataset, "mine")[1].to_pylist())
    twins = {row: row - 30 if row >= 30 else row + 30 for row in (*range(10), *range(30, 40))}
    tested = [row for row in twins if parts[row] == "test"]
    train = sum(parts[twins[row]] == "train" for row in tested)
    notes = load_data(open_dataset(root, "twins"), ["vision"], {}, Protocol(), "mine").notes
    assert train > 0
    assert any(note.startswith(f"{train} of 20 test samples") for note in notes)


def test_what_the_datasets_card_warns_of_is_said_by_training(tmp_path: Path) -> None:
    trap = "12.5 % of the titles (1 of 8) contain the name of their class."
    root = duplicated(tmp_path, 2, (trap,))
    notes = load_data(open_dataset(root, "twins"), ["vision"], {}, Protocol()).notes
    assert notes == ("2 of 10 test samples have the same vision source as a training sample.", trap)


def test_a_split_of_other_samples_is_refused(grouped: Path, tmp_path: Path) -> None:
    dataset = open_dataset(grouped, "toy")
    make_split(dataset, "random", name="mine")
    table = dataset.samples
    publish(dataset.storage, dataset.card, table.set_column(0, "id", [[f"x{row}" for row in range(160)]]), {})
    with pytest.raises(UserError):
        resolve(Request(grouped, tmp_path, method="concat", split="mine"))
