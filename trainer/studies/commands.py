"""`pgm table`, `pgm ablate` and `pgm figure`: how their options become a study; nothing heavy is imported before."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...cache.errors import RunFailed
from ..run.files import json_text
from ..run.options import JsonOption, expanded
from . import described, study_named
from .engine.options import PrintOptions, RunOptions, StudyOptions, WorkerOptions

if TYPE_CHECKING:
    from ..run.request import Request
    from .engine.make import Table
    from .engine.plan import Cell, TablePlan
    from .engine.rows import TableSpec
    from .engine.study import Study

TABLE_EXAMPLE = f"""Example:

    pgm table 3 --dataset digits

    pgm table fusion --dataset mosi --format markdown > table2.md

    pgm table balance --dataset mosi --methods concat,mla,pgm

    pgm table missing --dataset digits --rates 0,0.1,...,0.5 --methods mla,pgm,concat

    pgm table fusion --methods concat,pgm,my.module:MyConfig --callback my.module:Patience

Five seeds a row unless --seeds says otherwise; under the table stands what so many can show.

Runs that are there are used; the same command again trains nothing, and after Ctrl-C it continues.

Tables and figures:

{described()}"""

ABLATE_EXAMPLE = """Example:

    pgm ablate --dataset digits --vary iterations=1,2,3,4 --vary mask=feature,channel

    pgm ablate --dataset digits --vary "iterations=1,3 x gate_temperature=0.5,1,2" --plan

Several --vary stand one after another; "A=1,2 x B=3,4" is a grid; without=decoder,uni_learner leaves modules out."""

FIGURE_EXAMPLE = """Example:

    pgm figure gates --dataset digits --out figures

Writes figures/digits-gates.png and .svg, from the runs of the tables; what has not been trained is trained.

`pgm table --help` lists them all."""


@expanded
def table_command(
    which: Annotated[str, typer.Argument(help="A study's name or the paper's number of the table; see below.")],
    chosen: RunOptions,
    workers: WorkerOptions,
    options: StudyOptions,
    shown: PrintOptions,
) -> None:
    """Regenerate a table of the paper on a cached dataset, training only what has not been trained."""
    make_table(study_named(which, "table"), chosen, workers, options, shown)


@expanded
def ablate_command(
    vary: Annotated[list[str], typer.Option(help="NAME=VALUE,VALUE,...; 'A=1,2 x B=3,4' is a grid. Repeatable.")],
    chosen: RunOptions,
    workers: WorkerOptions,
    shown: PrintOptions,
    method: Annotated[str, typer.Option(help="The method whose switches are varied.")] = "pgm",
) -> None:
    """Vary any switch of a method or of the protocol, as a list or a grid, and compare with the defaults."""
    make_table(study_named("ablation", "table"), chosen, workers, StudyOptions(vary=vary, method=method), shown)


@expanded
def figure_command(
    which: Annotated[str, typer.Argument(help="A study's name: gates (Fig. 4), losses (Fig. 5), modules, ...")],
    chosen: RunOptions,
    workers: WorkerOptions,
    options: StudyOptions,
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("figures"),
    as_json: JsonOption = False,
) -> None:
    """Draw a figure of the paper, or of the data, from finished runs: PNG and SVG."""
    study = study_named(which, "figure")
    from .engine.draw import save

    found = made(study, chosen, workers, options)
    if found.failures:
        first = found.failures[0]
        raise RunFailed(
            f"{len(found.failures)} runs failed, the first {first.label}, seed {first.seed}: {first.reason}"
        )
    dataset = chosen.request(workers.device).dataset
    written = save(found.figure(), out / f"{dataset}-{study.name}")
    if as_json:
        print(json.dumps({"figure": study.name, "dataset": dataset, "files": [str(path) for path in written]}))
    else:
        print(f"wrote {' and '.join(map(str, written))}", file=sys.stderr)


def make_table(
    study: Study, chosen: RunOptions, workers: WorkerOptions, options: StudyOptions, shown: PrintOptions
) -> None:
    """Plan, train what is missing, print. Raises RunFailed, after printing the table, where a run failed."""
    from .engine.study import check_format

    check_format(shown.form)
    if shown.plan:
        from .engine.plan import plan_table

        base = chosen.request(workers.device)
        show_plan(plan_table(spec_of(study, base, options), base, chosen.seeds), shown.form == "json")
        return
    found = made(study, chosen, workers, options)
    print(found.text(shown.form))
    if found.failures:
        raise RunFailed(
            f"{len(found.failures)} runs failed; the others are kept, and the same command tries the failed ones again."
        )


def spec_of(study: Study, base: Request, options: StudyOptions) -> TableSpec:
    """The study's rows on a dataset, and its notes on stderr. Raises UserError for what it cannot be asked."""
    from .engine.study import check_folds

    options.only_for(study)
    check_folds(study, base)
    spec = study.spec(base, options)
    for note in spec.notes:
        print(f"note: {note}", file=sys.stderr)
    return spec


def made(study: Study, chosen: RunOptions, workers: WorkerOptions, options: StudyOptions) -> Table:
    """The study with its runs, trained where they are missing."""
    from .engine.display import TableDisplay
    from .engine.make import make

    base = chosen.request(workers.device)
    with TableDisplay() as display:

        def announced(plan: TablePlan, missing: Sequence[Cell]) -> None:
            display.announce(plan.spec.title, len({cell.run.path for cell in plan.cells}), missing)

        return make(study, spec_of(study, base, options), base, chosen.seeds, workers.pool, announced, display)


def show_plan(planned: Any, as_json: bool) -> None:
    """Which runs exist, which would be trained, and how long that takes here."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from .engine.plan import estimate, planned_rows

    rows = planned_rows(planned, estimate(planned))
    total = sum((row["seconds_a_run"] or 0) * row["to_train"] for row in rows)
    if as_json:
        print(json_text({"table": planned.spec.title, "rows": rows, "seconds_in_all": round(total, 1)}))
        return
    table = Table(title=planned.spec.title, title_justify="left", box=box.SIMPLE)
    for name in ("row", "there", "to train", "to evaluate", "s a run", "runs"):
        table.add_column(name, justify="left" if name in ("row", "runs") else "right", overflow="fold")
    for row in rows:
        seconds = "" if row["seconds_a_run"] is None else f"{row['seconds_a_run']:,.1f}"
        table.add_row(
            row["row"],
            *(str(row[name]) for name in ("finished", "to_train", "to_evaluate")),
            seconds,
            " ".join(row["runs"]),
        )
    Console(width=max(140, Console().width), highlight=False).print(table)
    print(
        f"about {total:,.0f} s on one worker, from measured step times on this machine; shared first stages are "
        "trained once, so it may be less",
        file=sys.stderr,
    )
