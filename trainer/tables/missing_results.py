"""The numbers of `pgm table missing`: every method at every rate, the change from rate 0, tests against a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..request import MISSING_NOTE
from ..seeds import Spread, spread, spread_of
from .missing import Column, MissingSpec
from .plan import Cell, TablePlan
from .runner import Failure
from .significance import Pair, Reach, SeedTest, seed_tests

Key = tuple[str, float]  # a method and a rate as asked


@dataclass(frozen=True)
class MissingCell:
    """A method at a rate. test: metric -> mean, std, values. change: of the primary metric from rate 0, by seed."""

    rate: float
    test: Spread
    seeds: tuple[int, ...]
    runs: tuple[str, ...]
    change: Mapping[str, Any] | None
    comparison: SeedTest | None
    failures: tuple[str, ...]


@dataclass(frozen=True)
class MissingLine:
    """A method at every rate. budget: of its runs, as in other tables."""

    method: str
    budget: Mapping[str, int]
    cells: tuple[MissingCell, ...]


@dataclass(frozen=True)
class MissingResult:
    """A finished table. rates: asked and achieved, a column each. moved: what the rate of the columns is of. primary:
    the metric comparisons are made on.
    """

    title: str
    dataset: str
    task: str
    reference: str
    moved: str
    fill: str
    mask_seed: int
    primary: str
    metrics: tuple[str, ...]
    rates: tuple[Mapping[str, float], ...]
    lines: tuple[MissingLine, ...]
    floors: Mapping[str, Mapping[str, float]]
    samples: Mapping[str, int]
    notes: tuple[str, ...]

    @property
    def comparisons(self) -> dict[str, SeedTest]:
        """Every comparison once, by method and the first rate it stands for."""
        once: dict[int, tuple[str, SeedTest]] = {}
        for line in self.lines:
            for cell in line.cells:
                if cell.comparison is not None:
                    # Columns with one mask share one object.
                    once.setdefault(id(cell.comparison), (f"{line.method} at {cell.rate:g}", cell.comparison))
        return dict(once.values())

    @property
    def reach(self) -> Reach | None:
        """What so many seeds can show at all."""
        return Reach.of(self.comparisons.values())

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; `reach`: what so many seeds can show at all."""
        value = {**asdict(self), "reach": self.reach and asdict(self.reach)}
        for line, told in zip(self.lines, value["lines"], strict=True):
            for cell, cell_told in zip(line.cells, told["cells"], strict=True):
                if cell.comparison is not None:
                    cell_told["comparison"]["significant"] = cell.comparison.significant
        return value


def missing_results(spec: MissingSpec, plan: TablePlan, failures: Sequence[Failure] = ()) -> MissingResult:
    """The numbers of what is there; a cell whose runs failed stands there empty."""
    data = plan.cells[0].resolved.data
    found = {(m, column.rate): scores_of(spec, plan, m, column) for m in spec.methods for column in spec.columns}
    results = [cell.run.result for cell in plan.cells if cell.run.finished]
    metrics = tuple(dict.fromkeys(name for scores in found.values() for score in scores.values() for name in score[1]))
    metric = data.task.primary
    tests = compared(spec, found, metric)
    said = dict.fromkeys(n for result in results for n in result["notes"] if not n.startswith(MISSING_NOTE))
    lines = tuple(
        MissingLine(
            m,
            plan.of(spec.rows[m, spec.columns[0].train])[0].budget,
            tuple(cell_of(spec, found, m, c, metric, tests.get((m, c.rate)), failures) for c in spec.columns),
        )
        for m in spec.methods
    )
    floors: Mapping[str, Mapping[str, float]] = next((result["floors"] for result in results if result["floors"]), {})
    return MissingResult(
        title=spec.table.title,
        dataset=data.card.name,
        task=data.card.task,
        reference=spec.reference,
        moved=spec.moved,
        fill=spec.fill,
        mask_seed=spec.mask_seed,
        primary=metric,
        metrics=metrics,
        rates=tuple({"asked": column.rate, **column.achieved} for column in spec.columns),
        lines=lines,
        floors={name: scores for name, scores in floors.items() if name == "majority"},
        samples={split: len(rows) for split, rows in data.splits.items()},
        notes=tuple(dict.fromkeys((*spec.notes, *data.card.notes, *said))),
    )


Scores = Mapping[int, tuple[Cell, Mapping[str, float]]]  # seed -> its cell and its test metrics


def scores_of(spec: MissingSpec, plan: TablePlan, method: str, column: Column) -> Scores:
    """What there is of a method at a rate."""
    found = {}
    for cell in plan.of(spec.rows[method, column.train]):
        scores = column.test.metrics(cell.run) if cell.run.finished else None
        if scores is not None:
            found[cell.seed] = (cell, scores)
    return found


def compared(spec: MissingSpec, found: Mapping[Key, Scores], metric: str) -> dict[Key, SeedTest]:
    """Every method against the reference at every rate, on the seeds both have.

    Columns whose masks are the same are one test, which is counted once in the correction.
    """
    groups: dict[Any, list[Key]] = {}
    values: list[Pair] = []
    for method in spec.methods:
        for column in spec.columns:
            ours, theirs = found[method, column.rate], found[spec.reference, column.rate]
            seeds = sorted(ours.keys() & theirs.keys())
            if method == spec.reference or not seeds:
                continue
            key = (method, column.train, column.test.missing)
            if key not in groups:
                one, other = ([side[seed][1][metric] for seed in seeds] for side in (ours, theirs))
                values.append((one, other))
            groups.setdefault(key, []).append((method, column.rate))
    tests = seed_tests(values)
    return {key: test for keys, test in zip(groups.values(), tests, strict=True) for key in keys}


def cell_of(
    spec: MissingSpec,
    found: Mapping[Key, Scores],
    method: str,
    column: Column,
    metric: str,
    comparison: SeedTest | None,
    failures: Sequence[Failure],
) -> MissingCell:
    """One cell of the table."""
    scores = found[method, column.rate]
    whole = found.get((method, 0.0), {})
    both = [seed for seed in scores if seed in whole]
    label = spec.rows[method, column.train].label
    return MissingCell(
        rate=column.rate,
        test=spread([metrics for _, metrics in scores.values()]) if scores else {},
        seeds=tuple(scores),
        runs=tuple(cell.run.id for cell, _ in scores.values()),
        change=spread_of([scores[s][1][metric] - whole[s][1][metric] for s in both]) if both and column.rate else None,
        comparison=comparison,
        failures=tuple(f"seed {f.seed}: {f.reason}" for f in failures if f.label == label),
    )
