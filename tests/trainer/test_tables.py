"""Tables: only what is missing is trained, a first stage once, kills and failures cost one cell, the statistics are
right."""

from __future__ import annotations

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
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pgm.cache.errors import UserError
from pgm.trainer.request import Request
from pgm.trainer.tables.definitions import Row, TableSpec, ablation, table_spec
from pgm.trainer.tables.paper import paper_numbers
from pgm.trainer.tables.plan import TablePlan, estimate, plan_table
from pgm.trainer.tables.render import FORMATS
from pgm.trainer.tables.results import results_of
from pgm.trainer.tables.runner import Crew, Outcome, chains, run_cells
from pgm.trainer.tables.significance import bootstrap, holm, paired_t
from scipy import stats

from .conftest import TINY, write_toy

ALONE = Crew(workers=1)
QUICK = {**TINY, "epochs": 1, "pretrain_epochs": 1}


def planned(features: Path, runs: Path, spec: TableSpec, seeds: int = 2, **switches: Any) -> TablePlan:
    return plan_table(spec, Request(features, runs, dataset="toy", settings={**QUICK, **switches}), seeds)


def trained(plan: TablePlan, crew: Crew = ALONE) -> list[str]:
    """Run what is missing; the runs that were trained."""
    done: list[str] = []

    def note(outcome: Outcome, count: int, total: int) -> None:
        done.append(f"{outcome.cell.row.label} {outcome.cell.seed} {outcome.error}")

    assert run_cells(plan.missing, crew, note) == []
    return done


@pytest.fixture(scope="module")
def table3(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> TablePlan:
    """Table 3 on the toy dataset, two seeds, trained."""
    plan = planned(toy, tmp_path_factory.mktemp("table3"), table_spec("3", ("text", "vision"), "classification"))
    assert len(trained(plan)) == 10
    return plan


def test_a_finished_table_trains_nothing_and_a_changed_row_only_itself(toy: Path, table3: TablePlan) -> None:
    runs = table3.cells[0].request.runs
    again = planned(toy, runs, table3.spec)
    assert again.missing == []
    rows = (*table3.spec.rows[:-1], Row("another", "pgm", {"without": ("decoder",), "iterations": 1}))
    changed = planned(toy, runs, TableSpec("3", "", rows, "PgM"))
    assert {cell.row.label for cell in changed.missing} == {"another"}


def test_rows_that_share_the_first_stage_train_it_once(toy: Path, tmp_path: Path) -> None:
    rows = (Row("a", "pgm", {"length": 4}), Row("b", "pgm", {"length": 6}), Row("c", "concat"))
    plan = planned(toy, tmp_path, TableSpec("ablation", "", rows, "a"), seeds=1)
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


@pytest.mark.parametrize("format", list(FORMATS))
def test_every_format_holds_every_row(table3: TablePlan, format: str) -> None:
    text = FORMATS[format](results_of(table3))
    for row in table3.spec.rows:
        assert row.label.replace("/", r"/") in text
    if format == "json":
        told = json.loads(text)
        assert told["rows"][1]["comparison"]["significant"] in (True, False)
        assert len(told["rows"][0]["runs"]) == 2
    if format == "latex":
        assert not re.search(r"(?<!\\)[_%&](?![^\n]*\\\\)", text.split("\\caption")[1])


def test_two_workers_train_the_same_numbers_as_one(toy: Path, table3: TablePlan, tmp_path: Path) -> None:
    plan = planned(toy, tmp_path, table3.spec)
    assert len(trained(plan, Crew(workers=2))) == 10
    for one, two in zip(table3.cells, plan.cells, strict=True):
        assert one.run.id == two.run.id
        assert one.run.test == two.run.test


def test_a_failed_run_marks_its_cell_and_the_rest_goes_on(toy: Path, tmp_path: Path) -> None:
    rows = (Row("fine", "concat"), Row("hopeless", "concat", {"lr": 1e30, "clip": 0.0}), Row("also fine", "add"))
    plan = planned(toy, tmp_path, TableSpec("ablation", "", rows, "fine"), seeds=1)
    failures = run_cells(plan.missing, ALONE, lambda *_: None)
    result = results_of(plan, failures)
    assert [failure.label for failure in failures] == ["hopeless"]
    assert "failed" in FORMATS["rich"](result)
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


def arguments(toy: Path, runs: Path, *more: str) -> list[str]:
    switches = [f"--set={name}={value}" for name, value in {**QUICK, "epochs": 6}.items()]
    return ["table", "3", "--dataset=toy", "--seeds=2", f"--features={toy}", f"--runs={runs}", *switches, *more]


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
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
    done = started(arguments(toy, runs, "--workers=1", "--json"), tmp_path)
    output, errors = done.communicate(timeout=120)
    assert done.returncode == 0, errors
    assert [len(row["seeds"]) for row in json.loads(output)["rows"]] == [2] * 5
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


@pytest.mark.slow
def test_a_killed_worker_costs_one_cell_at_most(toy: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    process = started(arguments(toy, runs, "--workers=2", "--json"), tmp_path)
    wait_for(lambda: len(finished_runs(runs)) >= 1)
    wait_for(lambda: workers_of(process.pid))
    os.kill(workers_of(process.pid)[0], signal.SIGKILL)
    output, errors = process.communicate(timeout=180)
    told = json.loads(output)
    assert sum(2 - len(row["seeds"]) for row in told["rows"]) <= 1, errors
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
                    done = started(words, tmp_path)
                    output, errors = done.communicate(timeout=120)
                finally:
                    worker.kill()
        finally:
            scheduler.kill()
    assert done.returncode == 0, errors
    assert [len(row["seeds"]) for row in json.loads(output)["rows"]] == [1] * 5


def workers_of(pid: int) -> list[int]:
    """Dask's worker processes below a process, which are spawned Pythons."""
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        try:
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child.pid)
        except psutil.NoSuchProcess:
            continue
    return found


def test_the_plan_says_what_is_there_and_how_long_the_rest_takes(toy: Path, table3: TablePlan, tmp_path: Path) -> None:
    assert estimate(table3) == {}
    seconds = estimate(planned(toy, tmp_path, table3.spec, seeds=1))
    assert set(seconds) == {row.label for row in table3.spec.rows}
    assert all(value > 0 for value in seconds.values())
    longer = planned(toy, tmp_path, table3.spec, seeds=1, epochs=100)
    assert estimate(longer)["PgM"] > 5 * seconds["PgM"]


def test_the_floors_are_those_of_all_modalities(toy: Path, tmp_path: Path) -> None:
    rows = (Row("one modality", "single:text"), Row("full", "concat"))
    plan = planned(toy, tmp_path, TableSpec("2", "", rows, "full"), seeds=1)
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
    assert ablation(["without=decoder+uni_learner,none"]).rows[1].settings == {"without": ("decoder", "uni_learner")}


@pytest.mark.parametrize("text", ["iterations", "=1,2", "iterations=", "a=1 x b"])
def test_a_vary_option_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--vary takes NAME=VALUE"):
        ablation([text])


def test_an_unknown_switch_or_table_suggests_the_nearest(toy: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Did you mean iterations"):
        planned(toy, tmp_path, ablation(["iteratons=1"]))
    with pytest.raises(UserError, match="There are: 2, 3, 5"):
        table_spec("4", ("text",), "classification")


def test_retrieval_has_no_single_modality_rows() -> None:
    assert not any("Single" in row.label for row in table_spec("2", ("image", "text"), "retrieval").rows)


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


# Statistics.


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=8))
@settings(max_examples=60, deadline=None)
def test_the_paired_test_is_scipys(pairs: list[tuple[float, float]]) -> None:
    ours, theirs = (np.array(side) for side in zip(*pairs, strict=True))
    if np.ptp(ours - theirs) > 1e-6:
        assert paired_t(ours, theirs) == pytest.approx(stats.ttest_rel(ours, theirs).pvalue, rel=1e-9, abs=1e-12)


def test_the_paired_test_without_variance_or_seeds() -> None:
    assert paired_t([0.5], [0.4]) is None
    assert paired_t([0.5, 0.6], [0.5, 0.6]) == 1.0
    assert paired_t([0.5, 0.75], [0.25, 0.5]) is None
    assert paired_t([0.1 + 0.2, 0.5], [0.2, 0.4]) is None, "a difference of rounding is no variance"


def test_holms_correction() -> None:
    assert holm([0.01, 0.04, None, 0.03]) == pytest.approx([0.03, 0.06, None, 0.06])
    assert holm([0.5, 0.6]) == [1.0, 1.0]


def test_the_bootstrap_covers_the_mean_and_respects_groups() -> None:
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(100):
        low, high = bootstrap(generator.normal(0.1, 1, 200))
        held += low <= 0.1 <= high
    assert 88 <= held <= 100
    # Twenty groups of ten equal values: drawing samples one by one would make the interval three times too narrow.
    values = np.repeat(generator.normal(0, 1, 20), 10)
    groups = [str(row // 10) for row in range(200)]
    (low, high), (grouped_low, grouped_high) = bootstrap(values), bootstrap(values, groups)
    assert (grouped_high - grouped_low) > 2 * (high - low)


def constructed(tmp_path: Path, right: dict[str, list[float]]) -> Any:
    """A table whose runs are written by hand: row -> share of right answers of 400 test samples, seed by seed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from .conftest import write_toy

    root = write_toy(tmp_path / "features", counts={"train": 40, "val": 40, "test": 400})
    methods = {"full": "concat", "same": "add", "worse": "max"}
    spec = TableSpec("ablation", "", tuple(Row(label, methods[label]) for label in right), "full")
    plan = planned(root, tmp_path / "runs", spec, seeds=len(right["full"]))
    generator = np.random.default_rng(0)
    targets = generator.integers(0, 4, 400)
    for cell in plan.cells:
        share = right[cell.row.label][cell.seed]
        wrong = np.arange(400) >= round(share * 400)
        guess = np.where(wrong, (targets + 1) % 4, targets)
        cell.run.path.mkdir(parents=True)
        ids = [f"toy/{row + 80}" for row in range(400)]
        pq.write_table(pa.table({"id": ids, "target": targets, "prediction": guess}), cell.run.predictions("test"))
        accuracy = float((guess == targets).mean())
        result = {"test": {"accuracy": accuracy}, "parameters": 1, "seconds": 1.0, "floors": {}, "notes": []}
        (cell.run.path / "result.json").write_text(json.dumps(result))
    return {row.label: row.comparison for row in results_of(plan).rows}


def test_a_clear_difference_is_marked_and_noise_is_not(tmp_path: Path) -> None:
    found = constructed(
        tmp_path,
        {"full": [0.90, 0.91, 0.89, 0.90], "same": [0.91, 0.89, 0.90, 0.90], "worse": [0.80, 0.815, 0.79, 0.80]},
    )
    assert found["worse"].significant
    assert not found["same"].significant
    assert found["worse"].difference == pytest.approx(-0.09875)


def test_with_one_seed_nothing_is_significant(tmp_path: Path) -> None:
    found = constructed(tmp_path, {"full": [0.9], "same": [0.9], "worse": [0.5]})
    assert found["worse"].p is None
    assert found["worse"].high < 0
    assert not found["worse"].significant


# The commands as they are typed.


def invoked(toy: Path, runs: Path, *words: str) -> Any:
    from pgm.cli import app
    from typer.testing import CliRunner

    switches = [f"--set={name}={value}" for name, value in QUICK.items()]
    return CliRunner().invoke(app, [*words, f"--features={toy}", f"--runs={runs}", *switches])


def test_table_5_counts_parameters_in_every_format(toy: Path, tmp_path: Path) -> None:
    for format in FORMATS:
        done = invoked(toy, tmp_path, "table", "5", "--preset=paper", f"--format={format}")
        assert done.exit_code == 0, done.output
        assert "modal partitioner" in done.output
    told = json.loads(invoked(toy, tmp_path, "table", "5", "--json").output)
    assert told["counted"][-1]["module"] == "PgM"


def test_a_plan_trains_nothing(toy: Path, tmp_path: Path) -> None:
    done = invoked(toy, tmp_path / "runs", "ablate", "--vary=iterations=1,2", "--seeds=2", "--plan", "--json")
    told = json.loads(done.stdout)
    assert [(row["finished"], row["to_train"]) for row in told["rows"]] == [(0, 2)] * 3
    assert told["seconds_in_all"] > 0
    assert not list((tmp_path / "runs").glob("*/config.json"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["table", "7"], "There are: 2, 3, 5"),
        (["table", "3", "--format=html"], "use rich, markdown, latex, csv, json"),
        (["table", "3", "--seeds=0"], "1 or more"),
        (["table", "3", "--workers=0"], "at least one worker"),
        (["table", "3", "--dataset=tyo"], "did you mean 'toy'"),
        (["ablate", "--vary=iterations"], "--vary takes"),
    ],
)
def test_a_mistake_is_said_before_anything_is_trained(toy: Path, tmp_path: Path, words: list[str], said: str) -> None:
    done = invoked(toy, tmp_path / "runs", *words)
    assert isinstance(done.exception, UserError)
    assert said in str(done.exception)
    assert not (tmp_path / "runs").exists()


def test_counting_values_and_drawing_samples_give_the_same_interval() -> None:
    generator = np.random.default_rng(0)
    values = generator.choice([-1.0, 0.0, 1.0], 800, p=[0.1, 0.7, 0.2])
    # The same differences, each a different number: these are drawn sample by sample.
    apart = values + generator.uniform(-1e-9, 1e-9, len(values))
    assert bootstrap(values) == pytest.approx(bootstrap(apart), abs=0.004)
    groups = [str(place // 2) for place in range(len(values))]
    assert bootstrap(values, groups) == pytest.approx(bootstrap(apart, groups), abs=0.004)


@pytest.mark.parametrize(
    ("task", "switches", "metric"),
    [
        ("classification", {}, "accuracy"),
        ("sentiment", {}, "acc2_has0"),
        ("sentiment", {"sentiment": "classes"}, "acc3"),
        ("retrieval", {}, "map"),
    ],
)
def test_both_tests_of_a_difference_are_on_the_same_metric(
    tmp_path: Path, task: str, switches: dict[str, str], metric: str
) -> None:
    features = write_toy(tmp_path / "features", task=task)
    plan = planned(
        features, tmp_path / "runs", TableSpec("2", "", (Row("a", "concat"), Row("b", "late")), "a"), **switches
    )
    trained(plan)
    comparison = results_of(plan).rows[1].comparison
    assert comparison is not None
    assert comparison.metric == comparison.per_sample == metric
    assert comparison.low is not None
    assert comparison.high is not None
    assert comparison.low <= comparison.difference <= comparison.high
