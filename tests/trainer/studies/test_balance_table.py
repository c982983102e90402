"""The balance table: its measures are right on constructed cases, nothing is measured twice, mistakes are said."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import xml.etree.ElementTree as ET
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pgm.cache.errors import UserError
from pgm.trainer.run.laziness import (
    Centres,
    Subset,
    check,
    keep,
    kept,
    measure,
    path_of,
    shapley,
    shapley_shares,
    subsets,
)
from pgm.trainer.run.request import Request, resolve
from pgm.trainer.run.training import Execution, carry_out
from pgm.trainer.studies.balance import METHODS, STUDY
from pgm.trainer.studies.engine.options import StudyOptions
from pgm.trainer.studies.engine.plan import TablePlan, plan_table
from pgm.trainer.studies.engine.runner import WorkerPool, run_cells
from pgm.trainer.studies.engine.study import FORMATS
from pgm.trainer.tasks import Classification
from safetensors.torch import load_file, save_file

from ..conftest import TINY
from .test_tables import finished_runs, said, started, wait_for

QUICK = {**TINY, "epochs": 1, "pretrain_epochs": 1}
SWITCHES = [f"--set={name}={value}" for name, value in QUICK.items()]
BOTH = ("text", "vision")
ALONE = WorkerPool(workers=1)


def planned(features: Path, runs: Path, methods: str | None, seeds: int = 2) -> TablePlan:
    request = Request(features, runs, dataset="toy", settings=QUICK)
    return plan_table(STUDY.spec(request, StudyOptions(methods=methods)), request, seeds)


def done(plan: TablePlan) -> list[str]:
    """Train and measure what is missing; the cells that were taken up."""
    runs: list[str] = []
    assert run_cells(plan.missing, ALONE, lambda outcome, *_: runs.append(outcome.cell.run.id)) == []
    return runs


@pytest.fixture(scope="module")
def table(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> TablePlan:
    """concat, mla and pgm beside the ensemble and the twins, two seeds."""
    plan = planned(toy, tmp_path_factory.mktemp("balance"), "concat,mla,pgm")
    assert len(done(plan)) == 12
    return plan


# Shapley values.


@st.composite
def games(draw: st.DrawFn) -> dict[Subset, float]:
    """v(S) of every non-empty subset of two to four players."""
    names = ["audio", "image", "text", "video"][: draw(st.integers(2, 4))]
    return {shown: draw(st.floats(-1, 1)) for shown in subsets(names)}


@given(games(), st.floats(-1, 1))
@settings(max_examples=60, deadline=None)
def test_shapley_values_are_mean_contributions_over_all_orders(game: dict[Subset, float], nothing: float) -> None:
    names = sorted(max(game, key=len))
    worth = {frozenset(): nothing, **game}
    expected = dict.fromkeys(names, 0.0)
    for order in permutations(names):
        for place, name in enumerate(order):
            before = frozenset(order[:place])
            expected[name] += (worth[before | {name}] - worth[before]) / math.factorial(len(names))
    found = shapley(game, nothing)
    assert found == pytest.approx(expected, abs=1e-12)
    assert sum(found.values()) == pytest.approx(worth[frozenset(names)] - nothing, abs=1e-12), "efficiency"


@given(games(), st.floats(-1, 1))
@settings(max_examples=40, deadline=None)
def test_shapley_values_are_symmetric_and_nothing_for_a_dummy(game: dict[Subset, float], nothing: float) -> None:
    names = sorted(max(game, key=len))
    swap = {names[0]: names[1], names[1]: names[0]}
    alike = {s: game[s] + game[frozenset(swap.get(m, m) for m in s)] for s in game}
    found = shapley(alike, nothing)
    assert found[names[0]] == pytest.approx(found[names[1]], abs=1e-12)
    worth = {frozenset(): nothing, **game}
    dummy = {s: worth[s - {names[0]}] for s in game}
    assert shapley(dummy, nothing)[names[0]] == pytest.approx(0, abs=1e-12)


def test_shares_sum_to_one_and_are_blank_for_a_model_that_adds_nothing() -> None:
    both = frozenset(BOTH)
    game = {frozenset({"text"}): 0.6, frozenset({"vision"}): 0.3, both: 0.8}
    assert shapley_shares(game, 0.2) == pytest.approx({"text": 0.75, "vision": 0.25})
    assert shapley_shares({**game, both: 0.2}, 0.2) is None


# The modality gap.


def test_the_gap_is_the_distance_of_the_centres_of_unit_vectors() -> None:
    centres = Centres()
    centres.add("text", torch.tensor([[3.0, 0.0]]))
    centres.add("text", torch.tensor([[0.0, 4.0]]))
    assert centres.gap() is None
    centres.add("vision", torch.tensor([[-2.0, 0.0], [-7.0, 0.0]]))
    first = math.hypot(1.5, 0.5)
    assert centres.gap() == pytest.approx(first)
    centres.add("audio", torch.tensor([[0.0, -1.0]]))
    assert centres.gap() == pytest.approx((first + math.hypot(0.5, 1.5) + math.sqrt(2)) / 3)
    centres.add("wide", torch.ones(1, 3))
    assert centres.gap() is None, "vectors of different widths share no space"


def test_only_members_trained_apart_have_no_gap(table: TablePlan) -> None:
    gaps = {cell.row.label: found.gap for cell in table.cells if (found := kept(cell.run)) is not None}
    assert gaps.pop("ensemble") is None
    assert set(gaps) == {"concat", "mla", "pgm"}
    assert all(0 < gap <= 2 for gap in gaps.values())


# Inside the joint model.


def test_all_modalities_score_what_the_run_scored(table: TablePlan) -> None:
    for cell in table.cells:
        if not cell.row.method.startswith("single:"):
            found = kept(cell.run)
            assert found is not None
            assert found.scores[frozenset(BOTH)] == cell.run.test
            assert len(found.scores) == 3


def test_a_modality_the_model_ignores_scores_the_floor_and_contributes_nothing(toy: Path, tmp_path: Path) -> None:
    learned = {**QUICK, "epochs": 20, "lr": 1e-2}
    resolved = resolve(Request(toy, tmp_path, dataset="toy", method="concat", settings=learned))
    run = carry_out(resolved, Execution())
    weights = load_file(run.weights)
    weights["method.fuse.0.weight"][:, 8:] = 0.0  # vision's half
    # Without text only the biases answer; let them say the majority guess, which is what the floor says.
    most = int(np.bincount(resolved.data.targets[resolved.data.splits["train"]]).argmax())
    weights["method.fuse.0.bias"].zero_()
    weights["method.head.bias"].zero_()[most] = 1e-3
    save_file(weights, run.weights)
    found = measure(resolved)
    scores, floor = found.of("accuracy"), run.result["floors"]["majority"]["accuracy"]
    assert scores[frozenset({"vision"})] == floor
    assert scores[frozenset({"text"})] == scores[frozenset(BOTH)] > floor
    shares = shapley_shares(scores, floor)
    assert shares == {"text": pytest.approx(1), "vision": pytest.approx(0)}


# What is done again, and what is not.


def stamps(runs: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in runs.rglob("*") if path.is_file()}


def test_a_finished_run_needs_just_its_measures(toy: Path, tmp_path: Path) -> None:
    plan = planned(toy, tmp_path, "concat", seeds=1)
    for cell in plan.cells:
        carry_out(cell.resolved, Execution())
    before = stamps(tmp_path)
    assert {cell.row.label for cell in plan.missing} == {"concat", "ensemble"}, "twins have nothing to measure"
    done(plan)
    after = stamps(tmp_path)
    assert {path: after[path] for path in before} == before
    assert {path.name for path in set(after) - set(before)} == {"laziness-1.json"}
    damaged = path_of(plan.cells[0].run)
    damaged.write_text(damaged.read_text().replace('"gap": ', '"gap": 1'))
    assert kept(plan.cells[0].run) is None
    assert done(plan) == [plan.cells[0].run.id]


def test_measures_survive_their_file_to_the_bit(table: TablePlan) -> None:
    cell = table.cells[0]
    found = measure(cell.resolved)
    assert found == kept(cell.run)
    keep(cell.run, found)
    assert found == kept(cell.run)


def test_training_anew_drops_the_measures(toy: Path, tmp_path: Path) -> None:
    plan = planned(toy, tmp_path, "concat", seeds=1)
    done(plan)
    carry_out(plan.cells[0].resolved, Execution(force=True))
    assert [cell.run.id for cell in plan.missing] == [plan.cells[0].run.id]


@pytest.mark.slow
def test_a_killed_table_continues(toy: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    where = [f"--features={toy}", f"--runs={runs}", "--dataset=toy", "--seeds=2", "--workers=1"]
    words = ["table", "balance", "--methods=concat,pgm", *where, *SWITCHES, "--set=epochs=6"]
    process = started(words, tmp_path)
    wait_for(lambda: len(list(runs.glob("*/laziness-1.json"))) >= 2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.communicate()
    there = {path.parent for path in finished_runs(runs)}
    kept = {path: stamp for path, stamp in stamps(runs).items() if path.parent in there}
    assert [len(row["seeds"]) for row in said([*words, "--json"])["laziness"]] == [2, 2, 2]
    now = stamps(runs)
    assert {path: now[path] for path in kept} == kept


@pytest.mark.slow
def test_two_workers_measure_what_one_does(toy: Path, table: TablePlan, tmp_path: Path) -> None:
    plan = planned(toy, tmp_path, "concat,mla,pgm")
    assert run_cells(plan.missing, WorkerPool(workers=2), lambda *_: None) == []
    for one, two in zip(table.cells, plan.cells, strict=True):
        assert kept(one.run) == kept(two.run)


# The table.


def test_under_use_is_the_twin_minus_the_modality_inside(table: TablePlan) -> None:
    result = STUDY.results(table)
    assert result.table.reference == "ensemble"
    row = result.rows[0]
    twins = {cell.seed: cell.run.test["accuracy"] for cell in table.cells if cell.row.label == "single:vision"}
    inside = [kept(cell.run).of("accuracy")[frozenset({"vision"})] for cell in table.of(table.spec.rows[0])]  # type: ignore[union-attr]
    assert row.inside["vision"]["values"] == inside
    assert row.underuse["vision"]["values"] == pytest.approx([twins[seed] - own for seed, own in enumerate(inside)])
    assert result.twins["vision"]["values"] == list(twins.values())
    for shares in (row.gradients, row.shapley):
        assert not shares or sum(score["mean"] for score in shares.values()) == pytest.approx(1)
    assert row.ratio is not None
    assert row.ratio["mean"] >= 1


def test_runs_older_than_the_record_have_blank_norms_and_a_note(toy: Path, tmp_path: Path) -> None:
    plan = planned(toy, tmp_path, "concat", seeds=1)
    for cell in plan.cells:
        carry_out(cell.resolved, Execution(watch_gradients=cell.row.label != "concat"))
    done(plan)
    result = STUDY.results(plan)
    assert result.rows[0].gradients == {}
    assert result.rows[1].gradients
    assert any("No gradient norms of concat:" in note for note in result.table.notes)
    assert "pgm train --force" in STUDY.text(result, "markdown")


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_holds_every_row_and_measure(table: TablePlan, format: str) -> None:
    text = STUDY.text(STUDY.results(table), format)
    for row in table.spec.rows:
        assert row.label.replace("_", r"\_" if format == "latex" else "_") in text
    if format == "json":
        printed = json.loads(text)
        assert [row["label"] for row in printed["laziness"]] == ["concat", "mla", "pgm", "ensemble"]
        assert printed["modalities"] == ["text", "vision"]
        assert printed["rows"][0]["comparison"]["metric"] == "accuracy"
    elif format == "csv":
        rows = list(csv.DictReader(text.splitlines()))
        named = {row["metric"] for row in rows if row["row"] == "concat"}
        assert {"accuracy", "inside:text", "underuse:vision", "gradients:text", "gap", "gradient_ratio"} <= named
    else:
        assert "vision under-use" in text
    if format == "rich":
        lines = [line for line in text.splitlines() if line.startswith("  ")]
        assert max(map(len, lines)) <= 140


# The commands as they are typed.


def invoked(toy: Path, runs: Path, *words: str) -> Any:
    from pgm.cli import app
    from typer.testing import CliRunner

    return CliRunner().invoke(app, [*words, f"--features={toy}", f"--runs={runs}", *SWITCHES])


def test_a_warm_table_trains_and_measures_nothing(toy: Path, table: TablePlan) -> None:
    runs = table.cells[0].request.runs
    before = stamps(runs)
    printed = invoked(toy, runs, "table", "balance", "--methods=concat,mla,pgm", "--seeds=2", "--json")
    assert printed.exit_code == 0, printed.output
    assert "12 of 12 runs are there\n" in printed.stderr
    assert [len(row["seeds"]) for row in json.loads(printed.stdout)["laziness"]] == [2] * 4
    assert stamps(runs) == before


def test_the_plan_tells_training_from_measuring(toy: Path, tmp_path: Path) -> None:
    plan = planned(toy, tmp_path, "concat", seeds=1)
    carry_out(plan.cells[0].resolved, Execution())
    printed = invoked(toy, tmp_path, "table", "balance", "--methods=concat", "--seeds=1", "--plan", "--json")
    rows = {row["row"]: (row["to_train"], row["to_evaluate"]) for row in json.loads(printed.stdout)["rows"]}
    assert rows == {"concat": (0, 1), "ensemble": (1, 0), "single:text": (1, 0), "single:vision": (1, 0)}


def test_a_figure_is_a_png_and_an_svg_with_words(toy: Path, table: TablePlan, tmp_path: Path) -> None:
    words = ["figure", "balance", "--methods=concat,mla,pgm", "--seeds=2", f"--out={tmp_path}"]
    printed = invoked(toy, table.cells[0].request.runs, *words)
    assert printed.exit_code == 0, printed.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["toy-balance.png", "toy-balance.svg"]
    words = "".join(ET.fromstring((tmp_path / "toy-balance.svg").read_text()).itertext())
    for name in ("concat", "ensemble", "text, inside", "vision, twin alone", "epoch on labels"):
        assert name in words


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["table", "balance", "--methods=concat,reconbost"], "Did you mean 'reconboost'"),
        (["table", "balance", "--methods= , "], "--methods takes names with commas"),
        (["table", "balance", "--modality=text"], "needs at least two modalities, and text is the only one"),
        (["table", "balance", "--rates=0,0.1"], "--rates belongs to missing"),
        (["table", "3", "--methods=concat"], "--methods belongs to balance"),
        (["table", "balanc"], "Did you mean 'balance'"),
        (["figure", "confusion", "--methods=concat"], "--methods"),
    ],
)
def test_a_mistake_is_said_before_anything_is_trained(toy: Path, tmp_path: Path, words: list[str], said: str) -> None:
    printed = invoked(toy, tmp_path / "runs", *words)
    assert isinstance(printed.exception, UserError)
    assert said in str(printed.exception)
    assert not (tmp_path / "runs").exists()


def test_retrieval_is_refused(make_toy: Callable[..., Path], tmp_path: Path) -> None:
    root = make_toy(tmp_path / "features", task="retrieval")
    printed = invoked(root, tmp_path / "runs", "table", "balance")
    assert isinstance(printed.exception, UserError)
    assert "query and gallery" in str(printed.exception)


def test_too_many_modalities_and_no_test_split_are_refused(make_toy: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at most 4 with --modality"):
        check([f"m{i}" for i in range(5)], Classification)
    root = make_toy(tmp_path / "features", counts={"train": 40, "val": 20})
    printed = invoked(root, tmp_path / "runs", "table", "balance")
    assert "no test samples" in str(printed.exception)


def test_scores_are_predicted_by_the_methods_that_can(make_toy: Callable[..., Path], tmp_path: Path) -> None:
    root = make_toy(tmp_path / "features", task="sentiment")
    request = Request(root, tmp_path / "runs", dataset="toy", settings=QUICK)
    spec = STUDY.spec(request, StudyOptions())
    left_out = spec.notes
    rows = [row.label for row in spec.rows]
    assert {name.split()[0] for name in left_out} == {"ogm_ge", "pmr", "qmf", "reconboost", "mla"}
    assert {*METHODS, "single:text", "single:vision"} - set(rows) == {name.split()[0] for name in left_out}
    printed = invoked(root, tmp_path / "runs", "table", "balance", "--seeds=1", "--methods=concat", "--workers=1")
    assert printed.exit_code == 0, printed.output
    refused = invoked(root, tmp_path / "runs", "table", "balance", "--methods=mla")
    assert "this task predicts a score" in str(refused.exception)
    # The notes come before anything else, so that the plan has them too; refused workers stop it right after.
    assert "note: qmf is left out" in invoked(root, tmp_path / "runs", "table", "balance", "--workers=0").stderr
