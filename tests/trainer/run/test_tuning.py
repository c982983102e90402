"""`--tune N`: the same choices for every row, by validation alone, in the name, the result and the table's footer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pgm.cache.errors import UserError
from pgm.trainer import Run, table
from pgm.trainer.protocol import Protocol
from pgm.trainer.run.request import Request, resolve
from pgm.trainer.run.tuning import TRIALS, trainings, trials, tuned
from pgm.trainer.tasks import Classification

from ..conftest import TINY


def test_the_first_trial_is_the_protocol_itself_and_all_rates_move_together() -> None:
    protocol = Protocol(tune=3, lr_decoder=0.0)
    tried = trials(protocol)
    assert tried[0] == Protocol(lr_decoder=0.0)
    assert [one.lr for one in tried] == pytest.approx([3e-4, 9e-4, 1e-4])
    assert [one.lr_learners for one in tried] == pytest.approx([1e-4, 3e-4, 1e-4 / 3])
    assert {one.lr_decoder for one in tried} == {0.0}
    assert trials(Protocol(tune=4))[3].epochs == 100
    assert len(set(TRIALS)) == 10
    assert trainings(Protocol()) == 1
    with pytest.raises(UserError, match="tune is a whole number, at least 0 and at most 10"):
        Protocol(tune=11)


def test_the_first_of_the_best_is_chosen() -> None:
    task = Classification(("a", "b"))
    scores = iter([0.5, 0.7, 0.7, 0.6])
    found = tuned(Protocol(tune=4), task, lambda protocol: {"accuracy": next(scores)})
    assert found.number == 1
    assert found.as_dict("accuracy")["val"] == [0.5, 0.7, 0.7, 0.6]


def test_a_tuned_run_is_the_best_trial_and_opens_the_test_split_once(
    toy: Path, tmp_path: Path, quick: Callable[..., Run]
) -> None:
    run = quick(toy, tmp_path, settings={"tune": 3})
    told = run.result["tuned"]
    rates = {"lr": told["lr"], "lr_learners": told["lr"] / 3, "lr_decoder": told["lr"] * 10 / 3}
    twin = quick(toy, tmp_path, settings={**rates, "epochs": told["epochs"]})
    assert run.id != twin.id
    assert run.weights.read_bytes() == twin.weights.read_bytes()
    assert run.val["accuracy"] == max(told["val"])
    kept = list((tmp_path / "trials").iterdir())
    assert len(kept) == 3
    assert all(not list(trial.glob("predictions*")) for trial in kept), "no trial opens the test split"
    times = {trial: (trial / "trial.json").stat().st_mtime_ns for trial in kept}
    (run.path / "result.json").unlink()
    again = quick(toy, tmp_path, settings={"tune": 3})
    assert again.result["tuned"] == told
    assert times == {trial: (trial / "trial.json").stat().st_mtime_ns for trial in kept}, "trials are kept"


def test_a_table_says_what_was_tried_and_chosen(toy: Path, tmp_path: Path) -> None:
    found = table(
        "fusion", features=toy, runs=tmp_path, seeds=1, methods="concat,add", settings={**TINY, "epochs": 1, "tune": 2}
    )
    assert "every run tried 2 learning rates and epochs" in found.text()
    assert "Add 0.0" in found.text()
    assert [one["trials"] for one in found.results.rows[0].tuned] == [2]
    assert json.loads(found.text("json"))["rows"][0]["tuned"][0]["trials"] == 2


def test_how_many_are_tried_is_in_the_name(toy: Path, tmp_path: Path) -> None:
    def name(**settings: object) -> str:
        return resolve(Request(toy, tmp_path, method="concat", settings=settings)).run.id

    assert name() == name(tune=0) != name(tune=2) != name(tune=3)
