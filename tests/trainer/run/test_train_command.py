"""The commands: what they print, what they keep, how they refuse."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import typer
from pgm.cache import open_dataset, publish
from pgm.cache.errors import IdentityMismatch, NotFound, PgMError, UserError
from pgm.trainer import Run, list_runs, open_run
from pgm.trainer.run import commands as trainer_commands
from pgm.trainer.run.advice import below
from pgm.trainer.run.events import BatchFinished, Event, RunFinished
from pgm.trainer.run.inference import evaluate_run, predict
from pgm.trainer.tasks import SentimentRegression
from typer.testing import CliRunner

SMALL = ["--set", "dim=8", "--set", "heads=2", "--set", "feedforward=16", "--epochs", "2", "--pretrain-epochs", "1"]


def app() -> typer.Typer:
    made = typer.Typer()
    made.command("train")(trainer_commands.make_train_command(lambda features, dataset: print("extracting")))
    made.command("evaluate")(trainer_commands.evaluate_command)
    made.command("predict")(trainer_commands.predict_command)
    made.add_typer(trainer_commands.runs_app, name="runs")
    return made


def call(*arguments: object) -> Any:
    """Run a command; its own errors are raised."""
    result = CliRunner().invoke(app(), [str(argument) for argument in arguments])
    if result.exception is not None:
        raise result.exception
    return result


def train_json(features: Path, runs: Path, *more: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        call("train", "--cached", "--features", features, "--runs", runs, "--json", *SMALL, *more).stdout
    )
    return found


def test_json_is_one_object_and_progress_goes_to_stderr(toy: Path, tmp_path: Path) -> None:
    result = call("train", "--cached", "--features", toy, "--runs", tmp_path, "--json", *SMALL, "--method", "concat")
    found = json.loads(result.stdout)
    wanted = {"run", "dataset", "method", "seed", "parameters", "val", "test", "seconds", "samples_per_second"}
    assert wanted <= found.keys()
    assert found["method"] == "concat"
    assert set(found["floors"]) == {"majority", "linear_probe"}
    assert "waiting for data" in result.stderr
    assert "extracting" not in result.output


def test_without_cached_what_is_missing_is_extracted_first(toy: Path, tmp_path: Path) -> None:
    result = call("train", "--features", toy, "--runs", tmp_path, *SMALL, "--method", "text")
    assert result.stdout.startswith("extracting")
    assert "linear_probe" in result.stdout


def test_several_seeds_give_mean_deviation_and_values(toy: Path, tmp_path: Path) -> None:
    found = train_json(toy, tmp_path, "--method", "text", "--seeds", "3")
    accuracy = found["test"]["accuracy"]
    assert len(found["run"]) == len(accuracy["values"]) == 3
    assert found["seed"] == [0, 1, 2]
    assert accuracy["mean"] == pytest.approx(np.mean(accuracy["values"]))
    assert accuracy["std"] == pytest.approx(np.std(accuracy["values"], ddof=1))
    shown = call("train", "--cached", "--features", toy, "--runs", tmp_path, *SMALL, "--method", "text", "--seeds", "3")
    assert "±" in shown.stdout


def test_the_same_command_again_answers_from_the_run_and_force_trains_anew(
    toy: Path, tmp_path: Path, quick: Callable[..., Run]
) -> None:
    first = quick(toy, tmp_path)
    before = first.weights.stat().st_mtime_ns
    seen: list[Event] = []
    assert quick(toy, tmp_path, listener=seen.append) == first
    assert [type(event) for event in seen] == [RunFinished]
    assert seen[0].reused
    weights = first.weights.read_bytes()
    again = quick(toy, tmp_path, force=True, listener=seen.append)
    assert any(isinstance(event, BatchFinished) for event in seen)
    assert again.weights.stat().st_mtime_ns > before
    assert again.weights.read_bytes() == weights


def test_a_run_is_named_by_content_not_by_place(toy: Path, tmp_path: Path, quick: Callable[..., Run]) -> None:
    here = quick(toy, tmp_path / "runs")
    moved = tmp_path / "elsewhere"
    shutil.copytree(toy, moved)
    for file in moved.rglob("*"):
        file.touch()
    assert quick(moved, tmp_path / "runs") == here
    others = [
        quick(toy, tmp_path / "runs", "add"),
        quick(toy, tmp_path / "runs", seed=1),
        quick(toy, tmp_path / "runs", settings={"lr": 1e-3}),
        quick(toy, tmp_path / "runs", settings={"dropout": 0.2}),
    ]
    assert len({here.id, *(run.id for run in others)}) == 5


def test_one_dataset_needs_no_name_several_are_listed_and_none_names_the_remedy(
    toy: Path, tmp_path: Path, make_toy: Callable[..., Path]
) -> None:
    with pytest.raises(NotFound, match="pgm extract digits") as nothing:
        train_json(tmp_path / "empty", tmp_path / "runs")
    assert nothing.value.exit_code == 2
    make_toy(tmp_path / "two", name="first", counts={"train": 32, "val": 8, "test": 8})
    make_toy(tmp_path / "two", name="second", counts={"train": 32, "val": 8, "test": 8})
    with pytest.raises(UserError, match=r"first, second\. Choose one with --dataset") as several:
        train_json(tmp_path / "two", tmp_path / "runs")
    assert several.value.exit_code == 2
    assert train_json(tmp_path / "two", tmp_path / "runs", "--dataset", "second", "--method", "text")["run"]
    with pytest.raises(NotFound, match="Did you mean 'second'"):
        train_json(tmp_path / "two", tmp_path / "runs", "--dataset", "secnd")


def test_runs_can_be_listed_shown_compared_and_removed(toy: Path, tmp_path: Path, quick: Callable[..., Run]) -> None:
    one, other = quick(toy, tmp_path, "add"), quick(toy, tmp_path, "max", seed=3)
    listed = json.loads(call("runs", "ls", "--runs", tmp_path, "--json").stdout)
    assert [record["method"] for record in listed] == ["add", "max"]
    assert one.id in call("runs", "ls", "--runs", tmp_path).stdout
    shown = json.loads(call("runs", "show", one.id[:6], "--runs", tmp_path, "--json").stdout)
    assert shown["result"]["test"] == one.test
    assert "samples/s" in call("runs", "show", one.id, "--runs", tmp_path).stdout
    found = json.loads(call("runs", "diff", one.id, other.id, "--runs", tmp_path, "--json").stdout)
    assert sorted(line.split(":")[0] for line in found["differences"]) == ["method.name", "seed"]
    with pytest.raises(NotFound, match=r"There are 2"):
        call("runs", "rm", one.id, "zzz", "--runs", tmp_path)
    assert len(list_runs(tmp_path)) == 2, "a typo deletes nothing"
    call("runs", "rm", one.id, "--runs", tmp_path)
    assert list_runs(tmp_path) == [other]


def test_evaluate_gives_the_runs_own_numbers_again(finished: Run, toy: Path) -> None:
    for split, expected in (("test", finished.test), ("val", finished.val)):
        assert evaluate_run(finished, split, None, "mapped", "cpu")["metrics"] == expected
    line = call("evaluate", finished.id, "--runs", finished.path.parent).stdout
    assert f"accuracy {finished.test['accuracy']:.3f}" in line
    with pytest.raises(NotFound, match=r"no samples in split 'tset'; it has train, val, test"):
        evaluate_run(finished, "tset", None, "auto", "cpu")


def test_evaluate_refuses_data_that_has_changed(finished: Run, tmp_path: Path, make_toy: Callable[..., Path]) -> None:
    other = make_toy(tmp_path, missing=0.1, seed=9)
    with pytest.raises(IdentityMismatch, match="is not what run"):
        evaluate_run(finished, "test", other, "auto", "cpu")


def test_predict_writes_every_sample_and_agrees_with_the_run(finished: Run, toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "predictions.parquet"
    call("predict", finished.id, "--runs", finished.path.parent, "--features", toy, "--out", out)
    table = pq.read_table(out)
    assert table["id"].to_pylist() == open_dataset(toy, "toy").samples["id"].to_pylist()
    assert "target" not in table.column_names
    everywhere = dict(zip(table["id"].to_pylist(), table["probabilities"].to_pylist(), strict=True))
    test = pq.read_table(finished.predictions_path("test"))
    for name, probabilities in zip(test["id"].to_pylist(), test["probabilities"].to_pylist(), strict=True):
        assert np.allclose(everywhere[name], probabilities, atol=1e-5)


def test_predict_refuses_features_of_another_encoder(
    finished: Run, tmp_path: Path, make_toy: Callable[..., Path], make_store: Callable[..., Path]
) -> None:
    root = make_toy(tmp_path, counts={"train": 4, "test": 4})
    dataset = open_dataset(root, "toy")
    tokens = [np.zeros((2, 6), np.float32)] * 8
    other = make_store(root / "toy", "text", tokens, dataset.samples["id"].to_pylist(), 6, encoder="other")
    publish(dataset.storage, dataset.card, dataset.samples, {other.name: 1})
    with pytest.raises(IdentityMismatch, match=r'encoder: "other" here, "toy" asked for'):
        predict(finished, root, None, tmp_path / "out.parquet", {"text": other.name}, "auto", "cpu")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "epochs"], "--set takes NAME=VALUE"),
        (["--seeds", "0"], "--seeds is 1 or more"),
        (["--feed", "slow"], "auto, resident or mapped"),
    ],
)
def test_wrong_options_are_users_mistakes(toy: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(PgMError, match=message) as refused:
        train_json(toy, tmp_path, *arguments)
    assert refused.value.exit_code == 2


def test_runs_are_found_by_their_beginning(toy: Path, finished: Run) -> None:
    root = finished.path.parent
    assert open_run(root, finished.id[:4]) == finished
    with pytest.raises(NotFound, match="No run 'zz'"):
        open_run(root, "zz")
    assert finished.environment["packages"]["torch"]
    assert finished.config["method"]["head"]["dim"] == 8


def test_it_says_what_is_below_a_floor_and_what_to_run_next(toy: Path, tmp_path: Path) -> None:
    """A network that learns nothing is below the probe; the command it names can be run as it stands."""
    asked = ("train", "--cached", "--features", toy, "--runs", tmp_path, "--method", "concat", *SMALL)
    said = call(*asked, "--set", "lr=1e-9", "--seeds", "2").stderr
    assert re.search(r"concat is below the linear probe \(0\.\d{3} against 0\.\d{3} accuracy\)", said)
    assert "One seed" not in said
    assert f"pgm table fusion --dataset toy --methods pgm,concat --features {toy} --runs {tmp_path}" in said


def test_a_floor_above_is_told_where_less_is_better() -> None:
    result = {"method": "pgm", "test": {"mae": 1.5}, "floors": {"majority": {"mae": 1.2}, "linear_probe": {"mae": 1.9}}}
    task = SentimentRegression()
    task.primary = "mae"
    [line] = below(task, result)
    assert "pgm is below the majority (1.500 against 1.200 mae)" in line
