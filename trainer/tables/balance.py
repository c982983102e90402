"""`pgm table balance`: methods side by side, and what each makes of its modalities (measures: ../laziness.py).

Every method is held against the ensemble of uni-modally trained members, and every modality inside a joint model
against its uni-modally trained twin, the row single:NAME at the same seed; both always stand in the table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...cache.errors import UserError
from ..laziness import Measure, check, gradient_means, known, shapley_shares
from ..methods import Shape, choose, modalities_of
from ..protocol import Protocol
from ..request import Request, resolve
from ..seeds import spread_of
from ..switches import changed
from .definitions import Row, TableSpec
from .plan import Cell, TablePlan
from .results import TableResult, results_of
from .runner import Failure

REFERENCE = "ensemble"
METHODS = (
    *("concat", "late", REFERENCE, "joint", "modality_dropout", "ogm_ge", "gblend", "umt", "mmpareto", "pmr", "qmf"),
    *("reconboost", "mla", "pgm", "pgm+mla"),
)
TITLE = "Balance: methods, and what each makes of its modalities"
Score = dict[str, Any]  # mean, std and values over seeds


@dataclass(frozen=True)
class RowLaziness:
    """One method. By modality, each a mean, std and values over seeds: inside, the score of the joint model shown it
    alone; underuse, its twin's score minus that; shapley, its share of what the model adds to the majority guess;
    gradients, its share of the modalities' mean gradient norms. ratio: of the largest to the smallest of these norms.
    Empty or None where there is nothing to say.
    """

    label: str
    seeds: tuple[int, ...]
    inside: Mapping[str, Score]
    underuse: Mapping[str, Score]
    gap: Score | None
    shapley: Mapping[str, Score]
    gradients: Mapping[str, Score]
    ratio: Score | None


@dataclass(frozen=True)
class BalanceResult:
    """table: the scores with all modalities, as in any table. twins: modality -> its twin's score."""

    table: TableResult
    modalities: tuple[str, ...]
    twins: Mapping[str, Score]
    rows: tuple[RowLaziness, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able: the table's own fields, and the laziness beside them."""
        own = {"modalities": list(self.modalities), "twins": dict(self.twins)}
        return {**self.table.as_dict(), **own, "laziness": [dataclasses.asdict(row) for row in self.rows]}


def balance_spec(
    request: Request, methods: str | None, modalities: tuple[str, ...], task: str
) -> tuple[TableSpec, list[str]]:
    """The methods asked for (or all that can do the task), the ensemble and every modality's twin; who is left out.

    methods: names with commas. Raises UserError for a task, modalities or names that cannot be balanced.
    """
    check(modalities, task)
    shared = resolve(dataclasses.replace(request, method=REFERENCE))
    check(modalities, task, len(shared.data.splits["test"]))
    reasons: dict[str, str | None] = {}
    if methods is None:
        reasons = {name: reason_against(name, request, shared.shape) for name in METHODS}
        names = [name for name, reason in reasons.items() if reason is None]
    else:
        names = named(methods, modalities)
    twins = [f"single:{m}" for m in modalities]
    rows = [name for name in dict.fromkeys([*names, REFERENCE]) if name not in twins]
    spec = TableSpec("balance", TITLE, tuple(Row(name, name, sequel=Measure()) for name in [*rows, *twins]), REFERENCE)
    return spec, [f"{name} is left out: {reason}" for name, reason in reasons.items() if reason is not None]


def named(methods: str, modalities: tuple[str, ...]) -> list[str]:
    """The names in `a,b,c`, a modality's own name read as its single:NAME."""
    names = [name.strip() for name in methods.split(",") if name.strip()]
    if not names:
        raise UserError(f"--methods takes names with commas, like concat,mla,pgm, not {methods!r}.")
    for name in names:
        modalities_of(name, modalities)
    return [f"single:{name}" if name in modalities else name for name in names]


def reason_against(name: str, request: Request, shape: Shape) -> str | None:
    """Why a method cannot do this task, in its own words; None where it can.

    The settings are the table's, which the reference row has accepted, so that a refusal is about the task alone.
    """
    rest = changed(Protocol.preset(request.preset), request.settings)[1]
    try:
        choose(name, request.preset, shape, rest)
    except UserError as error:
        return str(error)
    return None


def balance_of(plan: TablePlan, failures: Sequence[Failure] = (), notes: Sequence[str] = ()) -> BalanceResult:
    """The numbers of a table's finished and measured runs; rows whose runs are missing stand there empty."""
    table = results_of(plan, failures)
    modalities = tuple(plan.of(next(r for r in plan.spec.rows if r.method == REFERENCE))[0].resolved.data.features)
    metric = table.primary
    alone: dict[str, dict[int, float]] = {}
    for modality in modalities:
        cells = [cell for row in plan.spec.rows if row.method == f"single:{modality}" for cell in plan.of(row)]
        alone[modality] = {cell.seed: cell.run.test[metric] for cell in cells if cell.run.finished}
    nothing = table.floors.get("majority", {}).get(metric)
    joint = [row for row in plan.spec.rows if not row.method.startswith("single:")]
    rows = tuple(row_laziness(row.label, plan.of(row), modalities, metric, nothing, alone) for row in joint)
    old = [row.label for row in rows if row.seeds and not row.gradients]
    if old:
        notes = [
            *notes,
            f"No gradient norms of {', '.join(old)}: their runs were trained before norms were recorded; "
            "pgm train --force trains them anew.",
        ]
    twins = {m: spread_of(list(values.values())) for m, values in alone.items() if values}
    return BalanceResult(dataclasses.replace(table, notes=(*table.notes, *notes)), modalities, twins, rows)


def row_laziness(
    label: str,
    cells: Sequence[Cell],
    modalities: Sequence[str],
    metric: str,
    nothing: float | None,
    alone: Mapping[str, Mapping[int, float]],
) -> RowLaziness:
    """One method from its measured runs. nothing: the majority guess's score; alone: modality, seed to twin's score."""
    measured = [(cell, found) for cell in cells if cell.run.finished and (found := known(cell.run)) is not None]
    scores = [found.of(metric) for _, found in measured]
    seeds = tuple(cell.seed for cell, _ in measured)
    inside = {m: [score[frozenset({m})] for score in scores] for m in modalities}
    paired = {m: all(seed in alone[m] for seed in seeds) for m in modalities}
    underuse = {
        m: [alone[m][seed] - own for seed, own in zip(seeds, inside[m], strict=True)] for m in modalities if paired[m]
    }
    shares = [shapley_shares(score, nothing) if nothing is not None else None for score in scores]
    norms = [gradient_means(cell.run) for cell, _ in measured]
    gradients = [
        {m: norm[m] / sum(norm.values()) for m in modalities} if len(norm) == len(modalities) else None
        for norm in norms
    ]
    ratios = [max(share.values()) / max(min(share.values()), 1e-12) if share else None for share in gradients]
    return RowLaziness(
        label=label,
        seeds=seeds,
        inside=by_modality([{m: inside[m][i] for m in modalities} for i in range(len(seeds))]),
        underuse={m: spread_of(values) for m, values in underuse.items() if values},
        gap=over_seeds([found.gap for _, found in measured]),
        shapley=by_modality(shares),
        gradients=by_modality(gradients),
        ratio=over_seeds(ratios),
    )


def over_seeds(values: Sequence[float | None]) -> Score | None:
    """Mean, deviation and values; None where any is missing, as a mean over other seeds could not be compared."""
    there = [value for value in values if value is not None]
    return spread_of(there) if there and len(there) == len(values) else None


def by_modality(values: Sequence[Mapping[str, float] | None]) -> dict[str, Score]:
    """The same of every modality; empty where a seed has none."""
    there = [value for value in values if value is not None]
    if not there or len(there) < len(values):
        return {}
    return {m: spread_of([value[m] for value in there]) for m in there[0]}
