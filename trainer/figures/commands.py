"""`pgm figure`: its options, and which runs each figure needs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...cache.errors import UserError
from ..commands import JsonOption
from ..switches import nearest
from ..tables.options import MissingOptions, RunOptions, WorkerOptions, expanded, known_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..request import Request
    from ..tables.runner import Crew

NAMES = ("gates", "losses", "tokens", "confusion", "ablation", "balance", "missing")
EXAMPLE = """Example:

    pgm figure gates --dataset digits --out figures

Writes figures/digits-gates.png and .svg, from the runs of the tables; what has not been trained is trained."""


@expanded
def figure_command(
    name: Annotated[
        str, typer.Argument(help="gates (Fig. 4), losses (Fig. 5), tokens, confusion, ablation, balance or missing.")
    ],
    chosen: RunOptions,
    crew: WorkerOptions,
    missing: MissingOptions,
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("figures"),
    method: Annotated[str, typer.Option(help="Of the confusion matrix.")] = "pgm",
    as_json: JsonOption = False,
) -> None:
    """Draw a figure of the paper, or of the data, from finished runs: PNG and SVG."""
    if name not in NAMES:
        raise UserError(f"There is no figure {name!r}. There are: {', '.join(NAMES)}.{nearest(name, list(NAMES))}")
    from .draw import save

    base = chosen.request(crew.device)
    drawn = draw(name, base, chosen.seeds, method, crew.crew, missing)
    written = save(drawn, out / f"{base.dataset}-{name}")
    if as_json:
        print(json.dumps({"figure": name, "dataset": base.dataset, "files": [str(path) for path in written]}))
    else:
        print(f"wrote {' and '.join(map(str, written))}", file=sys.stderr)


def draw(name: str, base: Request, seeds: int, method: str, crew: Crew, options: MissingOptions) -> Figure:
    """The figure `name`, its runs trained first where they are missing."""
    from ..tables.definitions import FULL, Row, TableSpec, table_spec
    from ..tables.plan import plan_table
    from ..tables.results import results_of
    from . import draw as drawing
    from . import values

    if name == "missing":
        return draw_missing(base, seeds, crew, options)
    options.only_for(f"figure {name}", own=("--methods",) if name == "balance" else ())
    if name == "ablation":
        modalities, task = known_of(base)
        plan = filled(plan_table(table_spec("3", modalities, task), base, seeds), crew)
        return drawing.ablation(results_of(plan))
    if name == "balance":
        return draw_balance(base, seeds, crew, options.methods)
    row = Row(FULL if method == "pgm" else method, method)
    plan = plan_table(TableSpec("figure", f"Runs of the figure: {method}", (row,), row.label), base, seeds)
    dataset = plan.cells[0].resolved.data.card.name
    if name == "tokens":
        return drawing.tokens(values.token_values(plan.cells[0]), dataset)
    if name in ("gates", "losses") and method != "pgm":
        raise UserError(f"The {name} are PgM's own: --method is for the confusion matrix.")
    filled(plan, crew)
    if name == "gates":
        return drawing.gates(values.gate_values(plan.cells), dataset)
    if name == "losses":
        return drawing.losses(values.loss_values([cell.run for cell in plan.cells]), dataset)
    return drawing.confusion(values.confusion_values(plan.cells), dataset)


def draw_balance(base: Request, seeds: int, crew: Crew, methods: str | None) -> Figure:
    """What pgm table balance shows, drawn."""
    from ..tables.balance import balance_of, balance_spec
    from ..tables.plan import plan_table
    from .balance import balance

    spec, left_out = balance_spec(base, methods, *known_of(base))
    plan = filled(plan_table(spec, base, seeds), crew)
    return balance(balance_of(plan, (), left_out), plan)


def draw_missing(base: Request, seeds: int, crew: Crew, options: MissingOptions) -> Figure:
    """What pgm table missing shows, drawn."""
    from ..tables.missing import missing_spec
    from ..tables.missing_results import missing_results
    from ..tables.plan import plan_table
    from .missing import missing

    spec = missing_spec(base, options, *known_of(base))
    return missing(missing_results(spec, filled(plan_table(spec.table, base, seeds), crew)))


def filled(plan: Any, crew: Crew) -> Any:
    """The plan with every run there. Raises RunFailed naming the first that failed."""
    from ...cache.errors import RunFailed
    from ..tables.display import TableDisplay
    from ..tables.runner import run_cells

    missing = plan.missing
    if missing:
        with TableDisplay() as display:
            display.announce(plan.spec.title, len({cell.run.path for cell in plan.cells}), missing)
            failures = run_cells(missing, crew, display)
        if failures:
            first = failures[0]
            raise RunFailed(f"{len(failures)} runs failed, the first {first.label}, seed {first.seed}: {first.reason}")
    return plan
