"""`pgm table` and `pgm ablate`: how their options become a table; nothing heavy is imported before."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...cache.errors import RunFailed, UserError
from .options import MissingOptions, PrintOptions, RunOptions, WorkerOptions, expanded, known_of

if TYPE_CHECKING:
    from ..request import Request
    from .definitions import TableSpec
    from .plan import TablePlan
    from .runner import Failure

TABLE_EXAMPLE = """Example:

    pgm table 3 --dataset digits

    pgm table 2 --dataset mosi --format markdown > table2.md

    pgm table balance --dataset mosi --methods concat,mla,pgm

    pgm table missing --dataset digits --rates 0,0.1,...,0.5 --methods mla,pgm,concat

Five seeds a row unless --seeds says otherwise; under the table stands what so many can show.

Runs that are there are used; the same command again trains nothing, and after Ctrl-C it continues."""

ABLATE_EXAMPLE = """Example:

    pgm ablate --dataset digits --vary iterations=1,2,3,4 --vary mask=feature,channel

    pgm ablate --dataset digits --vary "iterations=1,3 x gate_temperature=0.5,1,2" --plan

Several --vary stand one after another; "A=1,2 x B=3,4" is a grid; without=decoder,uni_learner leaves modules out."""


@expanded
def table_command(
    which: Annotated[
        str,
        typer.Argument(help="2 (methods), 3 (modules), 4 (prior models), 5 (parameters), balance or missing."),
    ],
    chosen: RunOptions,
    crew: WorkerOptions,
    missing: MissingOptions,
    shown: PrintOptions,
) -> None:
    """Regenerate a table of the paper on a cached dataset, training only what has not been trained."""
    base = chosen.request(crew.device)
    if which == "missing":
        missing_table(base, missing, chosen.seeds, crew, shown)
    elif which == "balance":
        missing.only_for("table balance", own=("--methods",))
        balance_table(base, missing.methods, chosen.seeds, crew, shown)
    elif which == "4":
        missing.only_for("table 4")
        prior_table(base, chosen.seeds, crew, shown)
    elif which == "5":
        missing.only_for("table 5")
        parameters(base, shown.form)
    else:
        from .definitions import table_spec

        missing.only_for(f"table {which}")
        make(table_spec(which, *known_of(base)), base, chosen.seeds, crew, shown)


@expanded
def ablate_command(
    vary: Annotated[list[str], typer.Option(help="NAME=VALUE,VALUE,...; 'A=1,2 x B=3,4' is a grid. Repeatable.")],
    chosen: RunOptions,
    crew: WorkerOptions,
    shown: PrintOptions,
    method: Annotated[str, typer.Option(help="The method whose switches are varied.")] = "pgm",
) -> None:
    """Vary any switch of a method or of the protocol, as a list or a grid, and compare with the defaults."""
    from .definitions import ablation

    make(ablation(vary, method), chosen.request(crew.device), chosen.seeds, crew, shown)


def balance_table(base: Request, methods: str | None, seeds: int, crew: WorkerOptions, shown: PrintOptions) -> None:
    """Train and measure what is missing, print; says on stderr which methods cannot do the task."""
    from .balance import balance_of, balance_spec
    from .balance_render import FORMATS

    spec, left_out = balance_spec(base, methods, *known_of(base))
    for note in left_out:
        print(f"note: {note}", file=sys.stderr)

    def told(planned: TablePlan, failures: Sequence[Failure], format: str) -> str:
        return FORMATS[format](balance_of(planned, failures, left_out))

    make(spec, base, seeds, crew, shown, told)


def prior_table(base: Request, seeds: int, crew: WorkerOptions, shown: PrintOptions) -> None:
    """Train the pairs that can do the task, print."""
    from .prior import prior_spec, with_losses
    from .render import FORMATS
    from .results import results_of

    spec, left_out = prior_spec(base)

    def told(planned: TablePlan, failures: Sequence[Failure], format: str) -> str:
        return FORMATS[format](with_losses(results_of(planned, failures), left_out))

    make(spec, base, seeds, crew, shown, told)


def missing_table(base: Request, options: MissingOptions, seeds: int, crew: WorkerOptions, shown: PrintOptions) -> None:
    """Draw or read the masks, train and test what is missing, print."""
    from .missing import missing_spec
    from .missing_render import missing_text
    from .missing_results import missing_results

    spec = missing_spec(base, options, *known_of(base))

    def told(planned: TablePlan, failures: Sequence[Failure], format: str) -> str:
        return missing_text(missing_results(spec, planned, failures), format)

    make(spec.table, base, seeds, crew, shown, told)


def make(
    spec: TableSpec,
    base: Request,
    seeds: int,
    crew: WorkerOptions,
    shown: PrintOptions,
    told: Callable[[TablePlan, Sequence[Failure], str], str] | None = None,
) -> None:
    """Plan, train what is missing, print. Raises RunFailed, after printing the table, where a run failed.

    told: plan, failures and format to the text, of a table of another form.
    """
    from .display import TableDisplay
    from .plan import plan_table
    from .render import FORMATS
    from .results import results_of
    from .runner import run_cells

    check_format(shown.form, FORMATS)
    trainers = crew.crew
    planned = plan_table(spec, base, seeds)
    if shown.plan:
        show_plan(planned, shown.form == "json")
        return
    with TableDisplay() as display:
        missing = planned.missing
        display.announce(spec.title, len({cell.run.path for cell in planned.cells}), missing)
        failures = run_cells(missing, trainers, display)
    print(told(planned, failures, shown.form) if told else FORMATS[shown.form](results_of(planned, failures)))
    if failures:
        raise RunFailed(
            f"{len(failures)} of {len(missing)} runs failed; the others are kept, and the same command tries the "
            "failed ones again."
        )


def check_format(format: str, known: Any) -> None:
    """Raise UserError for a format that is none."""
    if format not in known:
        raise UserError(f"--format {format} is not known: use {', '.join(known)}.")


def show_plan(planned: Any, as_json: bool) -> None:
    """Which runs exist, which would be trained, and how long that takes here."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from .plan import estimate, rows_told

    rows = rows_told(planned, estimate(planned))
    total = sum((row["seconds_a_run"] or 0) * row["to_train"] for row in rows)
    if as_json:
        print(json.dumps({"table": planned.spec.title, "rows": rows, "seconds_in_all": round(total, 1)}, indent=1))
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


def parameters(base: Request, format: str) -> None:
    """Table 5: trainable parameters beside the paper's, for this dataset's modalities at the preset's sizes."""
    from dataclasses import asdict, replace

    from ..pgm.parameters import parameter_table, parameter_text
    from ..request import resolve

    config = resolve(replace(base, method="pgm")).method.config
    table = parameter_table(config.head, config.fusion)  # type: ignore[attr-defined]
    rows = [(line.module, line.paper or "", f"{line.ours:,}", str(line.copies)) for line in table.counted]
    rows += [(line.module, "not counted", f"{line.ours:,}", str(line.copies)) for line in table.uncounted]
    rows.append(("trained in all", "", f"{table.trained:,}", ""))
    names = ("module", "Table 5", "ours", "copies")
    if format == "rich":
        print(parameter_text(table))
    elif format == "json":
        print(json.dumps(asdict(table) | {"difference_percent": round(table.difference, 3)}, indent=1))
    elif format == "markdown":
        print("\n".join("| " + " | ".join(row) + " |" for row in (names, ("---", "---:", "---:", "---:"), *rows)))
    elif format == "csv":
        print("\n".join(",".join(cell.replace(",", "") for cell in row) for row in (names, *rows)))
    elif format == "latex":
        print("\\begin{tabular}{lrrr}\n" + "\n".join(" & ".join(row) + r" \\" for row in (names, *rows)))
        print("\\end{tabular}")
    else:
        check_format(format, ("rich", "markdown", "latex", "csv", "json"))
