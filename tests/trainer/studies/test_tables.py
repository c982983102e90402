"""Tables: only what is missing is trained, a first stage once, kills and failures cost one cell, the statistics are
right."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pgm.cache.errors import UserError
from pgm.cli import app
from pgm.trainer.run.request import Request
from pgm.trainer.studies import study_named
from pgm.trainer.studies.ablation import ablation
from pgm.trainer.studies.engine.options import StudyOptions
from pgm.trainer.studies.engine.paper import paper_numbers
from pgm.trainer.studies.engine.plan import TablePlan, estimate, plan_table
from pgm.trainer.studies.engine.results import results_of
from pgm.trainer.studies.engine.rows import Row, TableSpec
from pgm.trainer.studies.engine.runner import Outcome, WorkerPool, chains, run_cells
from pgm.trainer.studies.engine.study import FORMATS
from pgm.trainer.studies.fusion import STUDY as FUSION
from pgm.trainer.studies.modules import STUDY as MODULES
from typer.testing import CliRunner

from ...conftest import dask_workers
from ..conftest import TINY, write_toy

ALONE = WorkerPool(workers=1)
QUICK = {**TINY, "epochs": 1, "pretrain_epochs": 1}


def planned(features: Path, runs: Path, spec: TableSpec, seeds: int = 2, **switches: Any) -> TablePlan:
    return plan_table(spec, Request(features, runs, dataset="toy", settings={**QUICK, **switches}), seeds)


def trained(plan: TablePlan, pool: WorkerPool = ALONE) -> list[str]:
    """Run what is missing; the runs that were trained."""
    done: list[str] = []

    def note(outcome: Outcome, count: int, total: int) -> None:
        done.append(f"{outcome.cell.row.label} {outcome.cell.seed} {outcome.error}")

    assert run_cells(plan.missing, pool, note) == []
    return done


@pytest.fixture(scope="module")
def table3(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> TablePlan:
    """Table 3 on the toy dataset, two seeds, trained."""
    plan = planned(toy, tmp_path_factory.mktemp("table3"), MODULES.spec(Request(toy, Path("unused")), StudyOptions()))
    assert len(trained(plan)) == 10
    return plan


def test_a_finished_table_trains_nothing_and_a_changed_row_only_itself(toy: Path, table3: TablePlan) -> None:
    runs = table3.cells[0].request.runs
    again = planned(toy, runs, table3.spec)
    assert again.missing == []
    rows = (*table3.spec.rows[:-1], Row("another", "pgm", {"without": ("decoder",), "iterations": 1}))
    changed = planned(toy, runs, TableSpec("", rows, "PgM"))
    assert {cell.row.label for cell in changed.missing} == {"another"}


def test_rows_that_share_the_first_stage_train_it_once(toy: Path, tmp_path: Path) -> None:
    rows = (Row("a", "pgm", {"length": 4}), Row("b", "pgm", {"length": 6}), Row("c", "concat"))
    plan = planned(toy, tmp_path, TableSpec("", rows, "a"), seeds=1)
    leaders, followers = chains(plan.cells)
    assert [cell.row.label for cell in leaders] == ["a", "c"]
    assert [cell.row.label for several in followers.values() for cell in several] == ["b"]
    trained(plan)
    assert len(list((tmp_path / "stages").iterdir())) == 1


def test_the_numbers_are_those_of_the_runs(table3: TablePlan) -> None:
    result = results_of(table3)
    full = result.rows[0]
    values = [cell.run.test["accuracy"] for cell in table3.of(table3.spec.rows[0])]
    assert full.test["accuracy"]["values"] == values
    assert full.test["accuracy"]["mean"] == pytest.approx(np.mean(values))
    assert full.test["accuracy"]["std"] == pytest.approx(np.std(values, ddof=1))
    assert full.comparison is None
    assert {"majority", "linear_probe"} <= set(result.floors)
    row = result.rows[1]
    assert row.comparison is not None
    assert row.comparison.difference == pytest.approx(row.test["accuracy"]["mean"] - np.mean(values))
    assert row.comparison.low is not None
    assert row.comparison.high is not None
    # The interval is of accuracy, so that it surrounds the difference it is about.
    assert row.comparison.low - 1e-9 <= row.comparison.difference <= row.comparison.high + 1e-9


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_holds_every_row(table3: TablePlan, format: str) -> None:
    text = MODULES.text(results_of(table3), format)
    for row in table3.spec.rows:
        assert row.label.replace("/", r"/") in text
    if format == "json":
        printed = json.loads(text)
        tested = printed["rows"][1]["comparison"]
        by_seeds = tested["p"] is not None and tested["p"] < 0.05
        assert tested["significant"] == (by_seeds and not tested["low"] <= 0 <= tested["high"])
        assert len(printed["rows"][0]["runs"]) == 2
    if format == "latex":
        assert not re.search(r"(?<!\\)[_%&](?![^\n]*\\\\)", text.split("\\caption")[1])


def test_two_workers_train_the_same_numbers_as_one(toy: Path, table3: TablePlan, tmp_path: Path) -> None:
    plan = planned(toy, tmp_path, table3.spec)
    assert len(trained(plan, WorkerPool(workers=2))) == 10
    for one, two in zip(table3.cells, plan.cells, strict=True):
        assert one.run.id == two.run.id
        assert one.run.test == two.run.test


def test_a_failed_run_marks_its_cell_and_the_rest_goes_on(toy: Path, tmp_path: Path) -> None:
    rows = (Row("fine", "concat"), Row("hopeless", "concat", {"lr": 1e30, "clip": 0.0}), Row("also fine", "add"))
    plan = planned(toy, tmp_path, TableSpec("", rows, "fine"), seeds=1)
    failures = run_cells(plan.missing, ALONE, lambda *_: None)
    result = results_of(plan, failures)
    assert [failure.label for failure in failures] == ["hopeless"]
    assert "failed" in MODULES.text(result, "rich")
    assert [bool(row.test) for row in result.rows] == [True, False, True]


WORKER = """
import sys
from pathlib import Path
from pgm.cli import main
sys.argv = ["pgm", *sys.argv[1:]]
if __name__ == "__main__":
    main()
"""


def started(arguments: list[str], folder: Path) -> subprocess.Popen[str]:
    script = folder / "pgm_table.py"
    script.write_text(WORKER)
    command = [sys.executable, str(script), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def said(words: list[str]) -> Any:
    """The JSON of a command, in this process."""
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def arguments(toy: Path, runs: Path, *more: str) -> list[str]:
    switches = [f"--set={name}={value}" for name, value in {**QUICK, "epochs": 6}.items()]
    return ["table", "3", "--dataset=toy", "--seeds=2", f"--features={toy}", f"--runs={runs}", *switches, *more]


def wait_for(condition: Callable[[], object], seconds: float = 240) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


def finished_runs(runs: Path) -> list[Path]:
    return list(runs.glob("*/result.json"))


@pytest.mark.slow
def test_a_killed_table_continues(toy: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    process = started(arguments(toy, runs, "--workers=1"), tmp_path)
    wait_for(lambda: len(finished_runs(runs)) >= 2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.communicate()
    kept = {path: path.stat().st_mtime_ns for path in finished_runs(runs)}
    told = said(arguments(toy, runs, "--workers=1", "--json"))
    assert [len(row["seeds"]) for row in told["rows"]] == [2] * 5
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


@pytest.mark.slow
def test_a_killed_worker_costs_one_cell_at_most(toy: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    process = started(arguments(toy, runs, "--workers=2", "--json", "--seeds=1"), tmp_path)
    wait_for(lambda: len(finished_runs(runs)) >= 1)
    wait_for(lambda: dask_workers(process.pid))
    dask_workers(process.pid)[0].kill()
    output, errors = process.communicate(timeout=180)
    printed = json.loads(output)
    assert sum(1 - len(row["seeds"]) for row in printed["rows"]) <= 1, errors
    assert process.returncode in (0, 1)


@pytest.mark.slow
def test_a_running_scheduler_trains_the_table(toy: Path, tmp_path: Path) -> None:
    dask, file = str(Path(sys.executable).parent / "dask"), tmp_path / "scheduler.json"
    here = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path}
    with subprocess.Popen([dask, "scheduler", *here], **quiet) as scheduler:
        try:
            wait_for(file.exists)
            options = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--scheduler-file", str(file)]
            with subprocess.Popen([dask, "worker", *options], **quiet) as worker:
                try:
                    runs = tmp_path / "runs"
                    words = [*arguments(toy, runs, f"--scheduler-file={file}", "--json"), "--seeds=1", "--set=epochs=1"]
                    told = said(words)
                finally:
                    worker.kill()
        finally:
            scheduler.kill()
    assert [len(row["seeds"]) for row in told["rows"]] == [1] * 5


def test_the_plan_says_what_is_there_and_how_long_the_rest_takes(toy: Path, table3: TablePlan, tmp_path: Path) -> None:
    assert estimate(table3) == {}
    seconds = estimate(planned(toy, tmp_path, table3.spec, seeds=1))
    assert set(seconds) == {row.label for row in table3.spec.rows}
    assert all(value > 0 for value in seconds.values())
    longer = planned(toy, tmp_path, table3.spec, seeds=1, epochs=100)
    # Fifty times the epochs; the steps it is measured by may take several times as long beside other work.
    assert estimate(longer)["PgM"] > 1.5 * seconds["PgM"]


def test_the_floors_are_those_of_all_modalities(toy: Path, tmp_path: Path) -> None:
    rows = (Row("one modality", "single:text"), Row("full", "concat"))
    plan = planned(toy, tmp_path, TableSpec("", rows, "full"), seeds=1)
    trained(plan)
    assert results_of(plan).floors == plan.of(rows[1])[0].run.result["floors"]
    assert results_of(plan).floors != plan.of(rows[0])[0].run.result["floors"]


# Definitions.


def test_a_list_stands_row_by_row_and_a_grid_in_all_combinations() -> None:
    labels = [row.label for row in ablation(["iterations=1,2", "mask=none x hard=soft,detached"]).rows]
    assert labels == [
        "pgm, defaults",
        "iterations=1",
        "iterations=2",
        "mask=none, hard=soft",
        "mask=none, hard=detached",
    ]
    assert ablation(["without=decoder+uni_learner,none"]).rows[1].settings == {"without": "decoder+uni_learner"}


@pytest.mark.parametrize("text", ["iterations", "=1,2", "iterations=", "a=1 x b"])
def test_a_vary_option_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--vary takes NAME=VALUE"):
        ablation([text])


def test_an_unknown_switch_or_table_suggests_the_nearest(toy: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Did you mean 'iterations'"):
        planned(toy, tmp_path, ablation(["iteratons=1"]))
    with pytest.raises(UserError, match=r"There are: .*fusion \(2\).*modules \(3\)"):
        study_named("6", "table")


def test_retrieval_has_no_single_modality_rows(tmp_path: Path) -> None:
    request = Request(write_toy(tmp_path, task="retrieval"), Path("unused"))
    assert not any("Single" in row.label for row in FUSION.spec(request, StudyOptions()).rows)


def test_the_rows_of_table_2_can_be_named(toy: Path) -> None:
    def asked(methods: str) -> TableSpec:
        return FUSION.spec(Request(toy, Path("unused")), StudyOptions(methods=methods))

    assert [row.label for row in asked("concat, text,pgm,concat").rows] == ["Concatenation", "single:text", "PgM"]
    assert asked("concat,pgm").reference == "PgM"
    assert asked("add,concat").reference == "Add"
    with pytest.raises(UserError, match="Did you mean 'concat'"):
        asked("conct,pgm")


def test_the_papers_numbers_are_fractions_by_metric() -> None:
    assert paper_numbers("2", "mosi", "PgM") == {
        "acc2_has0": 0.8469,
        "acc2_non0": 0.8539,
        "f1_has0": 0.8465,
        "f1_non0": 0.8595,
    }
    assert paper_numbers("2", "digits", "PgM") == {}
    assert paper_numbers("2", "wikipedia", "Single-Modal (Text)") == {}
    assert paper_numbers("ablation", "mosi", "PgM") == {}


# Marks.


def constructed(tmp_path: Path, right: dict[str, list[float]]) -> Any:
    """A table whose runs are written by hand: row -> share of right answers of 400 test samples, seed by seed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    root = write_toy(tmp_path / "features", counts={"train": 40, "val": 40, "test": 400})
    methods = {"full": "concat", "same": "add", "worse": "max"}
    spec = TableSpec("", tuple(Row(label, methods[label]) for label in right), "full")
    plan = planned(root, tmp_path / "runs", spec, seeds=len(right["full"]))
    generator = np.random.default_rng(0)
    targets = generator.integers(0, 4, 400)
    for cell in plan.cells:
        share = right[cell.row.label][cell.seed]
        wrong = np.arange(400) >= round(share * 400)
        guess = np.where(wrong, (targets + 1) % 4, targets)
        cell.run.path.mkdir(parents=True)
        ids = [f"toy/{row + 80}" for row in range(400)]
        pq.write_table(pa.table({"id": ids, "target": targets, "prediction": guess}), cell.run.predictions_path("test"))
        accuracy = float((guess == targets).mean())
        result = {"test": {"accuracy": accuracy}, "parameters": 1, "seconds": 1.0, "floors": {}, "notes": []}
        (cell.run.path / "result.json").write_text(json.dumps(result))
    return results_of(plan)


def test_a_clear_difference_is_marked_and_noise_is_not(tmp_path: Path) -> None:
    found = constructed(
        tmp_path,
        {"full": [0.90, 0.91, 0.89, 0.90], "same": [0.91, 0.89, 0.90, 0.90], "worse": [0.80, 0.815, 0.79, 0.80]},
    ).comparisons
    assert found["worse"].significant
    assert not found["same"].significant
    assert found["worse"].difference == pytest.approx(-0.09875)


def test_with_one_seed_nothing_is_significant(tmp_path: Path) -> None:
    result = constructed(tmp_path, {"full": [0.9], "same": [0.9], "worse": [0.5]})
    found = result.comparisons["worse"]
    assert found.p is None
    assert found.high < 0
    assert not found.significant
    assert "One seed: there is no test over seeds, and nothing can be significant." in MODULES.text(result, "rich")


@pytest.mark.parametrize("format", FORMATS)
def test_three_seeds_say_themselves_what_they_cannot_show(tmp_path: Path, format: str) -> None:
    seeds = {"full": [0.90, 0.91, 0.89], "same": [0.91, 0.89, 0.91], "worse": [0.80, 0.88, 0.72]}
    result = constructed(tmp_path, seeds)
    needed = {label: test.seeds_needed for label, test in result.comparisons.items()}
    text = MODULES.text(result, format)
    assert needed["worse"] is not None
    if format == "csv":
        rows = list(csv.DictReader(io.StringIO(text)))
        printed = {row["row"]: (row["seeds_needed"], row["p_sign_flip"], row["significant"]) for row in rows}
        assert printed["worse"] == (str(needed["worse"]), "", "False")
        assert printed["full"] == ("", "", "")
    elif format == "json":
        printed = json.loads(text)
        assert printed["reach"]["smallest_p"] == 0.25
        assert not printed["reach"]["reached"]
        assert {row["label"]: row["comparison"]["seeds_needed"] for row in printed["rows"][1:]} == needed
    else:
        assert "With 3 seeds significance after Holm over 2 cannot be reached by a test that assumes nothing" in text
        assert f"could be: worse {needed['worse']}, same {needed['same']}." in text


def test_from_six_seeds_on_a_sign_flip_test_stands_beside_t(tmp_path: Path) -> None:
    noise = [0.0, 0.01, -0.01, 0.02, 0.005, -0.005]
    seeds = {"full": [0.9 + n for n in noise], "worse": [0.8 - n for n in noise]}
    result = constructed(tmp_path, seeds)
    comparison = result.comparisons["worse"]
    assert comparison.p_sign_flip == 2 / 2**6
    for format in ("rich", "markdown", "latex"):
        text = MODULES.text(result, format)
        assert "p (sign-flip)" in text
        assert "0.031" in text
        assert "6 seeds, after Holm over one comparison: a sign-flip test can reach p" in text


def test_the_same_difference_at_every_seed_has_no_p_and_is_not_marked(tmp_path: Path) -> None:
    result = constructed(tmp_path, {"full": [0.9, 0.8, 0.85], "worse": [0.8, 0.7, 0.75]})
    comparison = result.comparisons["worse"]
    assert (comparison.p, comparison.p_sign_flip, comparison.seeds_needed) == (None, None, None)
    assert comparison.high < 0
    assert not comparison.significant
    assert "-10.00 ≈" in MODULES.text(result, "rich")


def test_unequal_budgets_are_said_under_the_table(toy: Path, tmp_path: Path) -> None:
    rows = (Row("a", "concat"), Row("b", "umt"), Row("longer", "concat", {"epochs": 3}))
    plan = planned(toy, tmp_path, TableSpec("", rows, "a"), seeds=1)
    printed = MODULES.text(results_of(plan), "markdown")
    assert (
        "Every network is trained for 2 epochs, UNEQUAL: longer 4. b: so are its networks of one modality, " in printed
    )


# The commands as they are typed.


def invoked(toy: Path, runs: Path, *words: str) -> Any:
    switches = [f"--set={name}={value}" for name, value in QUICK.items()]
    return CliRunner().invoke(app, [*words, f"--features={toy}", f"--runs={runs}", *switches])


def test_table_5_counts_parameters_in_every_format(toy: Path, tmp_path: Path) -> None:
    for format in FORMATS:
        done = invoked(toy, tmp_path, "table", "5", "--preset=paper", f"--format={format}")
        assert done.exit_code == 0, done.output
        assert "modal partitioner" in done.output
    printed = json.loads(invoked(toy, tmp_path, "table", "5", "--json").output)
    assert printed["counted"][-1]["module"] == "PgM"


def test_a_plan_trains_nothing(toy: Path, tmp_path: Path) -> None:
    done = invoked(toy, tmp_path / "runs", "ablate", "--vary=iterations=1,2", "--seeds=2", "--plan", "--json")
    printed = json.loads(done.stdout)
    assert [(row["finished"], row["to_train"]) for row in printed["rows"]] == [(0, 2)] * 3
    assert printed["seconds_in_all"] > 0
    assert not list((tmp_path / "runs").glob("*/config.json"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["table", "7"], "fusion (2)"),
        (["table", "3", "--format=html"], "use rich, markdown, latex, csv, json"),
        (["table", "3", "--seeds=0"], "1 or more"),
        (["table", "3", "--workers=0"], "at least one worker"),
        (["table", "3", "--dataset=tyo"], "Did you mean 'toy'"),
        (["ablate", "--vary=iterations"], "--vary takes"),
    ],
)
def test_a_mistake_is_said_before_anything_is_trained(toy: Path, tmp_path: Path, words: list[str], said: str) -> None:
    done = invoked(toy, tmp_path / "runs", *words)
    assert isinstance(done.exception, UserError)
    assert said in str(done.exception)
    assert not (tmp_path / "runs").exists()
