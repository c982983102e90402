"""Missing modalities: a masked run is the run of a dataset that lacks them, and `pgm table missing` tells the truth."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pgm.cache import open_dataset, publish, storage_at
from pgm.cache.errors import CorruptStore, IdentityMismatch, UserError
from pgm.cli import app
from pgm.trainer import Run
from pgm.trainer.data.missing import Missing, mask_of
from pgm.trainer.run.floors import floors
from pgm.trainer.run.inference import evaluate_run
from pgm.trainer.run.masked_test import MaskedTests, split_mask
from pgm.trainer.run.request import Request, resolve
from pgm.trainer.studies.engine.options import StudyOptions
from pgm.trainer.studies.engine.plan import TablePlan, plan_table
from pgm.trainer.studies.engine.rates import rates_of
from pgm.trainer.studies.engine.runner import Outcome, WorkerPool, run_cells
from pgm.trainer.studies.engine.significance import paired_t
from pgm.trainer.studies.missing import MARKERS, STUDY, MissingResult, compared
from typer.testing import CliRunner, Result

from ..conftest import TINY, WIDTHS, write_features, write_toy
from .test_tables import said, started, wait_for

QUICK = {**TINY, "epochs": 1, "pretrain_epochs": 1}
COUNTS = {"train": 48, "val": 24, "test": 24}
ALONE = WorkerPool(workers=1)
KNOWN = (("text", "vision"), "classification")


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A features root with one small dataset, some modalities missing of its own; masks may be written to it."""
    return write_toy(tmp_path / "features", counts=COUNTS, missing=0.1)


def lacking(whole: Path, root: Path, hidden: Mapping[str, np.ndarray], zeros: bool) -> Path:
    """The same dataset with the hidden samples' tokens really gone, or zeros."""
    dataset = open_dataset(whole, "toy")
    ids = dataset.samples["id"].to_pylist()
    stores = {}
    for modality, dim in WIDTHS.items():
        store = dataset.features(modality)
        nothing = np.zeros((0, dim), np.float32)
        tokens = [np.array(store[row]) if store.available[row] else nothing for row in range(len(store))]
        for row in np.flatnonzero(hidden[modality]):
            tokens[row] = 0 * tokens[row] if zeros else nothing
        folder = write_features(root / "toy", modality, tokens, ids, dim, encoder="another")
        stores[folder.name] = 1
    publish(storage_at(root / "toy"), dataset.card, dataset.samples, stores)
    return root


@pytest.mark.parametrize("method", ["pgm", "mla", "concat", "ensemble", "qmf"])
@pytest.mark.parametrize("fill", ["skip", "zero"])
def test_a_masked_run_has_the_weights_of_a_dataset_that_really_lacks_them(
    whole: Path, tmp_path: Path, quick: Callable[..., Run], method: str, fill: Any
) -> None:
    taken = Missing(0.3, fill=fill)
    data = resolve(Request(whole, tmp_path, method=method, settings=QUICK)).data
    there = lacking(whole, tmp_path / "lacking", mask_of(data, taken).of("train", "val"), fill == "zero")
    run = quick(whole, tmp_path / "runs", method, settings=QUICK, missing=taken)
    twin = quick(there, tmp_path / "runs", method, settings=QUICK)
    ordinary = quick(whole, tmp_path / "runs", method, settings=QUICK)
    assert len({run.id, twin.id, ordinary.id}) == 3
    assert run.weights.read_bytes() == twin.weights.read_bytes()
    assert run.weights.read_bytes() != ordinary.weights.read_bytes()
    assert run.test == twin.test, "the test split is whole in both"
    assert run.val == twin.val
    assert run.result["floors"] == floors(data), "floors are those of whole samples"
    if method == "pgm":
        stages = list((tmp_path / "runs" / "stages").iterdir())
        assert len(stages) == 3, "samples that are whole and samples that are not share no first stage"


@pytest.mark.parametrize("fill", ["skip", "zero"])
@pytest.mark.parametrize("tokens", [0, 2])
def test_a_test_under_a_mask_is_the_test_of_a_dataset_that_really_lacks_them(
    whole: Path, tmp_path: Path, quick: Callable[..., Run], fill: Any, tokens: int
) -> None:
    settings = {**QUICK, "tokens": tokens}
    run = quick(whole, tmp_path / "runs", "late", settings=settings)
    resolved = resolve(Request(whole, tmp_path / "runs", method="late", settings={**TINY, **settings}))
    taken = Missing(0.4, fill=fill)
    mask = split_mask(resolved.data, taken)
    wanted = MaskedTests((mask,))
    assert not wanted.there(run)
    wanted.make(resolved)
    there = lacking(whole, tmp_path / "lacking", mask_of(resolved.data, taken).of("test"), fill == "zero")
    twin = quick(there, tmp_path / "runs", "late", settings=settings)
    assert twin.weights.read_bytes() == run.weights.read_bytes()
    assert mask.metrics(run) == twin.test
    assert pq.read_table(mask.predictions_path(run)).equals(pq.read_table(twin.predictions_path("test")))
    assert pq.read_table(mask.predictions_path(run)) != pq.read_table(run.predictions_path("test"))


@pytest.mark.parametrize("feed", ["resident", "mapped"])
@pytest.mark.parametrize("fill", ["skip", "zero"])
def test_both_feeds_show_the_same(whole: Path, tmp_path: Path, quick: Callable[..., Run], fill: Any, feed: str) -> None:
    taken = Missing(0.3, fill=fill)
    run = quick(whole, tmp_path / "runs", settings=QUICK, missing=taken)
    other = quick(whole, tmp_path / feed, settings=QUICK, missing=taken, feed=feed)
    assert other.weights.read_bytes() == run.weights.read_bytes()


def test_skip_and_zero_are_different_runs(whole: Path, tmp_path: Path, quick: Callable[..., Run]) -> None:
    skip, zero = (quick(whole, tmp_path, settings=QUICK, missing=Missing(0.3, fill=fill)) for fill in ("skip", "zero"))
    assert skip.id != zero.id
    assert skip.weights.read_bytes() != zero.weights.read_bytes()
    share = mask_of(resolve(Request(whole, tmp_path, method="concat")).data, Missing(0.3)).achieved["train"]
    note = f"Trained with {share:.1%} of the (sample, modality) pairs missing, skipped (mask seed 0)."
    assert skip.result["notes"][0] == note
    assert "as zeros" in zero.result["notes"][0]
    with pytest.raises(UserError, match=r"fill is one of skip, zero, not 'zeros'\. Did you mean 'zero'\?"):
        Missing(0.3, fill="zeros")  # type: ignore[arg-type]


def test_rate_0_is_the_ordinary_run_and_a_rate_is_another(whole: Path, tmp_path: Path) -> None:
    base = Request(whole, tmp_path, method="concat", settings=QUICK)
    ordinary = resolve(base).run.id
    for none in (Missing(0.0), Missing(0.0, seed=5, fill="zero"), Missing(0.001)):
        assert resolve(replace(base, missing=none)).run.id == ordinary
    assert len({resolve(replace(base, missing=Missing(r, s))).run.id for r, s in ((0.2, 0), (0.3, 0), (0.3, 1))}) == 3
    one, other = (resolve(replace(base, missing=Missing(rate))).run.id for rate in (0.7, 0.9))
    assert one == other, "both are above what two modalities allow"


def test_evaluate_shows_a_masked_run_what_it_saw(whole: Path, tmp_path: Path, quick: Callable[..., Run]) -> None:
    run = quick(whole, tmp_path, settings=QUICK, missing=Missing(0.3, seed=2))
    assert evaluate_run(run, "val", None, "mapped", "cpu")["metrics"] == run.val
    assert evaluate_run(run, "test", None, "mapped", "cpu")["metrics"] == run.test
    assert run.config["missing"]["rate"] == 0.3
    assert run.config["missing"]["seed"] == 2
    config = json.loads((run.path / "config.json").read_text())
    config["missing"]["hidden"] = "0" * 32
    (run.path / "config.json").write_text(json.dumps(config))
    with pytest.raises(IdentityMismatch, match="trained with other modalities missing"):
        evaluate_run(run, "val", None, "mapped", "cpu")


def test_a_run_on_one_modality_has_none_to_lose(whole: Path, tmp_path: Path, quick: Callable[..., Run]) -> None:
    with pytest.raises(UserError, match="text is all there is"):
        quick(whole, tmp_path, "single:text", settings=QUICK, missing=Missing(0.3))


def test_a_damaged_test_is_evaluated_again(whole: Path, tmp_path: Path, quick: Callable[..., Run]) -> None:
    run = quick(whole, tmp_path, settings=QUICK)
    resolved = resolve(Request(whole, tmp_path, method="concat", settings={**TINY, **QUICK}))
    mask = split_mask(resolved.data, Missing(0.4))
    MaskedTests((mask,)).make(resolved)
    metrics, path = mask.metrics(run), mask.file(run)
    assert metrics is not None
    path.write_text(path.read_text().replace('"rate": 0.4', '"rate": 0.5'))
    assert mask.metrics(run) is None
    MaskedTests((mask,)).make(resolved)
    assert mask.metrics(run) == metrics
    other = replace(mask, cells={**(mask.cells or {}), "hidden": "0" * 32})
    assert other.metrics(run) is None, "kept of other cells"


def test_a_damaged_mask_stops_the_run_and_says_what_to_do(
    whole: Path, tmp_path: Path, quick: Callable[..., Run]
) -> None:
    quick(whole, tmp_path, settings=QUICK, missing=Missing(0.3))
    (path,) = (whole / "toy" / "masks").glob("*.parquet")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CorruptStore, match=r"Delete .* draws the same mask"):
        quick(whole, tmp_path, settings=QUICK, missing=Missing(0.3))


def asked(whole: Path, runs: Path, seeds: int = 2, **options: Any) -> tuple[Any, TablePlan]:
    base = Request(whole, runs, dataset="toy", settings={**QUICK, "dim": 8})
    spec = STUDY.spec(base, StudyOptions(**{"rates": "0,0.2,0.4", "methods": "concat,late", **options}))
    return spec, plan_table(spec, base, seeds)


def trained(plan: TablePlan, pool: WorkerPool = ALONE) -> list[str]:
    """Run what is missing; what was done."""
    done: list[str] = []

    def note(outcome: Outcome, count: int, total: int) -> None:
        done.append(f"{outcome.cell.row.label} {outcome.cell.seed}")

    assert run_cells(plan.missing, pool, note) == []
    return done


def results(whole: Path, runs: Path, seeds: int = 2, **options: Any) -> tuple[MissingResult, TablePlan]:
    _, plan = asked(whole, runs, seeds, **options)
    trained(plan)
    return STUDY.results(plan), plan


def finished(runs: Path) -> set[Path]:
    return set(runs.glob("*/result.json"))


def test_the_table_holds_what_the_runs_say(whole: Path, tmp_path: Path) -> None:
    result, plan = results(whole, tmp_path / "runs", seeds=3)
    assert len(finished(tmp_path / "runs")) == 18
    spec, _ = asked(whole, tmp_path / "runs")
    column, line = spec.columns[2], result.lines[1]
    rows = {"concat": spec.rows_by["concat", column.train], "late": spec.rows_by["late", column.train]}
    runs = {name: [c.run for c in plan.cells if c.row.label == row.label] for name, row in rows.items()}
    values = {name: [column.test.metrics(run)["accuracy"] for run in several] for name, several in runs.items()}
    cell = line.cells[2]
    assert line.method == "late"
    assert cell.runs == tuple(run.id for run in runs["late"])
    assert cell.test["accuracy"]["values"] == values["late"]
    assert cell.test["accuracy"]["mean"] == pytest.approx(np.mean(values["late"]))
    zero = [run.test["accuracy"] for run in (c.run for c in plan.cells if c.row.label == "late")]
    assert line.cells[0].test["accuracy"]["values"] == zero
    assert cell.change is not None
    assert cell.change["values"] == pytest.approx(np.subtract(values["late"], zero))
    assert cell.comparison is not None
    assert cell.comparison.difference == pytest.approx(np.mean(values["late"]) - np.mean(values["concat"]))
    assert cell.comparison.p_uncorrected == paired_t(values["late"], values["concat"])
    assert cell.comparison.p is not None
    assert cell.comparison.p >= cell.comparison.p_uncorrected
    assert result.lines[0].cells[2].comparison is None, "the reference is compared with nothing"
    assert list(result.floors) == ["majority"]
    assert result.rates[2]["test"] == pytest.approx(0.4, abs=0.02)


def test_a_warm_table_trains_and_evaluates_nothing(whole: Path, tmp_path: Path) -> None:
    first, _ = results(whole, tmp_path / "runs")

    def tree(folder: Path) -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}

    before = tree(tmp_path)
    _, plan = asked(whole, tmp_path / "runs")
    assert plan.missing == []
    assert STUDY.results(plan) == first
    assert tree(tmp_path) == before


def test_with_training_fixed_each_method_trains_once_and_rate_0_is_the_ordinary_run(
    whole: Path, tmp_path: Path, quick: Callable[..., Run]
) -> None:
    ordinary = quick(whole, tmp_path, "concat", settings={**QUICK, "dim": 8})
    result, _ = results(whole, tmp_path, train_rate=0.0)
    assert len(finished(tmp_path)) == 4, "two methods, two seeds, whatever the number of rates"
    assert {run for cell in result.lines[0].cells for run in cell.runs[:1]} == {ordinary.id}
    assert len(list(ordinary.path.glob("test-*.json"))) == 2
    assert result.rates[2]["train"] == 0
    moved, _ = results(whole, tmp_path, test_rate=0.4)
    assert moved.rates[0]["test"] == result.rates[2]["test"]
    assert moved.rates[2]["train"] == pytest.approx(0.4, abs=0.02)
    assert moved.lines[0].cells[0].test == result.lines[0].cells[2].test
    assert len(finished(tmp_path)) == 12
    both, _ = results(whole, tmp_path)
    assert len(finished(tmp_path)) == 12, "the runs of the one table are those of the other"
    assert both.lines[0].cells[2].test == moved.lines[0].cells[2].test


def test_only_what_is_missing_is_done(whole: Path, tmp_path: Path) -> None:
    _, plan = asked(whole, tmp_path, seeds=1)
    stopped = plan.missing[:3]
    assert run_cells(stopped, ALONE, lambda *_: None) == []
    _, again = asked(whole, tmp_path, seeds=1)
    assert len(again.missing) == 3
    kept = {path: path.stat().st_mtime_ns for path in finished(tmp_path)}
    # A finished run whose test under the mask is not there needs the test and no training.
    lost = next(tmp_path.glob("*/test-rate0.2*.json"))
    lost.unlink()
    _, more = asked(whole, tmp_path, seeds=1)
    assert len(more.missing) == 4
    trained(more)
    assert lost.exists()
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert all(cell.test for line in STUDY.results(more).lines for cell in line.cells)


@pytest.mark.slow
def test_workers_train_and_test_the_same_numbers(whole: Path, tmp_path: Path) -> None:
    here, _ = results(whole, tmp_path / "here")
    _, plan = asked(whole, tmp_path / "there")
    assert len(trained(plan, WorkerPool(workers=2))) == 12
    assert STUDY.results(plan) == here


def test_a_read_only_cache_is_noted_and_the_numbers_are_the_same(whole: Path, tmp_path: Path) -> None:
    (whole / "toy" / "masks").write_text("in the way")
    kept, _ = results(whole, tmp_path / "a", rates="0,0.3", seeds=1)
    (whole / "toy" / "masks").unlink()
    made, _ = results(whole, tmp_path / "b", rates="0,0.3", seeds=1)
    assert any("masks are not saved" in note for note in kept.notes)
    assert kept.lines == made.lines
    assert not any("masks are not saved" in note for note in made.notes)


@pytest.mark.parametrize(
    ("text", "rates"),
    [
        ("0,0.1,...,0.7", (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)),
        ("0.5, 0,0.25,0.5", (0, 0.25, 0.5)),
        ("0,.2,...,.6,.9", (0, 0.2, 0.4, 0.6, 0.9)),
        ("0.3", (0.3,)),
    ],
)
def test_rates_as_they_are_typed(text: str, rates: tuple[float, ...]) -> None:
    assert rates_of(text) == rates


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no rate"),
        (" , ", "names no rate"),
        ("0,1", "a share from 0 to under 1, and 1 is none"),
        ("-0.1", "and -0.1 is none"),
        ("nan", "and nan is none"),
        ("0,half", "'half' is no number"),
        ("...,0.7", "stands between two rates and the last"),
        ("0,0.1,...", "stands between two rates and the last"),
        ("0,0.2,...,0.7", "steps of 0.2 from 0.2 do not lead to 0.7"),
        ("0.2,0.1,...,0.7", "do not lead to"),
        ("0,0.1,...,...,0.7", "'...' is no number"),
    ],
)
def test_rates_that_are_none(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        rates_of(text)


def invoke(whole: Path, runs: Path, *arguments: str) -> Result:
    switches = [f"--set={name}={value}" for name, value in QUICK.items()]
    fixed = ["--dataset=toy", "--seeds=2", f"--features={whole}", f"--runs={runs}", "--workers=1", *switches]
    return CliRunner().invoke(app, [*arguments, *fixed])


def test_the_command_prints_every_format_and_a_plan(whole: Path, tmp_path: Path) -> None:
    typed = ("table", "missing", "--rates", "0,0.2,...,0.6", "--methods", "late,concat")
    plan = invoke(whole, tmp_path, *typed, "--plan", "--json")
    assert json.loads(plan.stdout)["rows"][1]["to_train"] == 2
    assert not finished(tmp_path)
    rich = invoke(whole, tmp_path, *typed)
    assert rich.exit_code == 0, rich.output
    assert "0.6 (0.4" in rich.stdout, "the achieved rate stands in the header"
    assert re.search(r"\d% of the pairs have no features anyway; the rates are shares of the others", rich.stdout)
    assert "pairs can be missing; 0.6 stands for that" in rich.stdout
    for line in ("late, change from 0", "late - concat", "majority (floor)", "≈"):
        assert line in rich.stdout
    printed = json.loads(invoke(whole, tmp_path, *typed, "--format", "json").stdout)
    assert [rate["asked"] for rate in printed["rates"]] == [0, 0.2, 0.4, 0.6]
    comparison = printed["lines"][0]["cells"][1]["comparison"]
    assert comparison["significant"] == (comparison["p"] is not None and comparison["p"] < 0.05)
    assert printed["reach"]["smallest_p"] == 0.5
    assert set(printed["lines"][0]["cells"][1]["test"]) >= {"accuracy", "weighted_f1", "auroc"}
    rows = list(csv.DictReader(io.StringIO(invoke(whole, tmp_path, *typed, "--format", "csv").stdout)))
    assert len(rows) == 2 * 4 * 5 + 5
    assert rows[0]["method"] == "late"
    mean = printed["lines"][0]["cells"][0]["test"]["accuracy"]["mean"]
    assert f"| {100 * mean:.2f} ±" in invoke(whole, tmp_path, *typed, "--format", "markdown").stdout
    latex = invoke(whole, tmp_path, *typed, "--format", "latex").stdout
    assert latex.count(r"\midrule") == 4
    assert r"\approx" in latex
    done = json.loads(invoke(whole, tmp_path, *typed, "--plan", "--json").stdout)
    assert {(row["to_train"], row["to_evaluate"]) for row in done["rows"]} == {(0, 0)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("missing", "--rates", "0,1.5"), "and 1.5 is none"),
        (("missing", "--rates", ""), "--rates names no rate"),
        (("missing", "--methods", "concta,pgm"), r"No method 'concta' for this dataset\. .* Did you mean 'concat'"),
        (("missing", "--methods", "single:text"), "it reads one modality"),
        (("missing", "--methods", "text"), "it reads one modality"),
        (("missing", "--methods", ","), "takes names with commas"),
        (("missing", "--modality", "text"), "text is the only one here"),
        (("missing", "--train-rate", "0", "--test-rate", "0.1"), "--rates has nothing left to move"),
        (("missing", "--train-rate", "1"), "rate is a number, at least 0 and below 1, not 1"),
        (("missing", "--fill", "zeros"), "Did you mean 'zero'"),
        (("missing", "--mask-seed", "-1"), "seed is a whole number, at least 0, not -1"),
        (("missing", "--seeds", "0"), "--seeds is 1 or more"),
        (("missing", "--format", "html"), "--format html is not known"),
        (("2", "--rates", "0,0.1"), "--rates belongs to missing, not to fusion"),
        (("3", "--mask-seed", "0"), "--mask-seed belongs to missing"),
        (("mising",), "Did you mean 'missing'"),
    ],
)
def test_what_cannot_be_asked_is_refused(whole: Path, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    command = ["table", *arguments, f"--features={whole}", f"--runs={tmp_path / 'runs'}", "--workers=1"]
    error = CliRunner().invoke(app, command).exception
    assert isinstance(error, UserError), error
    with pytest.raises(UserError, match=message):
        raise error
    assert not (tmp_path / "runs").exists()


def test_the_same_difference_at_every_seed_is_not_marked(whole: Path, tmp_path: Path) -> None:
    spec, plan = asked(whole, tmp_path, methods="concat,late")
    scores = {"concat": (0.5, 0.6), "late": (0.7, 0.8)}
    found = {
        (method, column.rate): {seed: (plan.cells[0], {"accuracy": scores[method][seed]}) for seed in (0, 1)}
        for method in spec.methods
        for column in spec.columns
    }
    tests = compared(spec, found, "accuracy")
    assert tests["late", 0.2].difference == pytest.approx(0.2)
    assert tests["late", 0.2].p is None
    assert not tests["late", 0.2].significant


def test_constructed_differences_are_marked_as_they_should_be(whole: Path, tmp_path: Path) -> None:
    spec, plan = asked(whole, tmp_path, seeds=5, rates="0,0.2,0.7,0.8")
    noise = np.random.default_rng(0).normal(size=(2, 5)) * 0.01
    better = {("late", rate): 0.2 for rate in (0.2, 0.7, 0.8)}
    found = {
        (m, c.rate): {
            seed: (plan.cells[0], {"accuracy": 0.5 + noise[place, seed] + better.get((m, c.rate), 0.0)})
            for seed in range(5)
        }
        for place, m in enumerate(spec.methods)
        for c in spec.columns
    }
    tests = compared(spec, found, "accuracy")
    assert set(tests) == {("late", rate) for rate in (0, 0.2, 0.7, 0.8)}
    assert [tests["late", rate].significant for rate in (0, 0.2, 0.7, 0.8)] == [False, True, True, True]
    assert tests["late", 0.7] == tests["late", 0.8], "two rates that stand for one mask are one test"
    smallest = min(test.p_uncorrected or 1 for test in tests.values())
    assert min(test.p or 1 for test in tests.values()) == pytest.approx(3 * smallest), "three tests, not four"


def test_the_figure_is_drawn_from_the_same_runs(whole: Path, tmp_path: Path) -> None:
    typed = ("--rates", "0,0.2,...,0.8", "--methods", "late,concat")
    assert invoke(whole, tmp_path / "runs", "table", "missing", *typed).exit_code == 0
    before = finished(tmp_path / "runs")
    drawn = invoke(whole, tmp_path / "runs", "figure", "missing", *typed, "--out", str(tmp_path / "figures"), "--json")
    assert drawn.exit_code == 0, drawn.output
    assert finished(tmp_path / "runs") == before
    png, svg = map(Path, json.loads(drawn.stdout)["files"])
    assert png.read_bytes().startswith(b"\x89PNG")
    for word in ("late", "concat", "majority (floor)", "in training and test, %", "Missing modalities on toy, skipped"):
        assert word in svg.read_text()
    error = invoke(whole, tmp_path / "runs", "figure", "gates", "--fill", "zero").exception
    assert isinstance(error, UserError)
    assert "--fill belongs to missing, not to gates" in str(error)


def test_sixteen_methods_differ_in_marker_and_colour_taken_together(whole: Path, tmp_path: Path) -> None:
    result, plan = results(whole, tmp_path, rates="0,0.2", seeds=1)
    many = replace(result, lines=tuple(replace(result.lines[0], method=f"m{place}") for place in range(16)))
    lines = STUDY.figure(plan, many).axes[0].get_lines()
    drawn = {(line.get_color(), line.get_marker()) for line in lines if line.get_marker() in MARKERS}
    assert len(drawn) == 16


def test_scores_go_as_well(tmp_path: Path) -> None:
    root = write_toy(tmp_path / "features", task="sentiment", counts=COUNTS)
    typed = ("table", "missing", "--rates=0,0.4", "--json")
    printed = json.loads(invoke(root, tmp_path / "r", *typed, "--methods=pgm,late").stdout)
    assert printed["reference"] == "pgm", "the first, where concat is not there"
    assert "mae" in printed["metrics"]
    assert list(printed["floors"]) == ["majority"]
    by_default = json.loads(invoke(root, tmp_path / "r", *typed).stdout)
    assert [line["method"] for line in by_default["lines"]] == ["pgm", "concat", "late", "ensemble"]
    assert "mla is left out: weighting=entropy needs class probabilities" in by_default["notes"][0]
    by_name = invoke(root, tmp_path / "r", *typed, "--methods=mla").exception
    assert isinstance(by_name, UserError)


@pytest.mark.slow
def test_a_killed_table_continues(whole: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    switches = [f"--set={name}={value}" for name, value in {**QUICK, "epochs": 4}.items()]
    command = ["table", "missing", "--dataset=toy", "--seeds=2", f"--features={whole}", f"--runs={runs}", "--workers=1"]
    typed = [*command, *switches, "--rates=0,0.3", "--methods=concat,late", "--train-rate=0", "--json"]
    process = started(typed, tmp_path)
    wait_for(lambda: len(finished(runs)) >= 2)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    kept = {path: path.stat().st_mtime_ns for path in finished(runs)}
    assert all(len(cell["seeds"]) == 2 for line in said(typed)["lines"] for cell in line["cells"])
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_retrieval_is_refused_with_the_reason(tmp_path: Path, make_toy: Callable[..., Path]) -> None:
    root = make_toy(tmp_path / "features", task="retrieval", counts=COUNTS)
    error = CliRunner().invoke(app, ["table", "missing", f"--features={root}", f"--runs={tmp_path / 'r'}"]).exception
    assert isinstance(error, UserError)
    assert "a sample that lacks either cannot be ranked" in str(error)
