"""A table's numbers: means and deviations over seeds, the comparison with the reference row, floors, the paper's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from ...data.dataset import TrainingData, group_names
from ...run.seeds import Statistics, statistics
from ...tasks.scores import Recomputed, SampleScores
from .bootstrap import bootstrap, differences, recomputed
from .paper import paper_numbers
from .plan import Cell, TablePlan
from .rows import Row
from .runner import Failure
from .significance import Comparison, Reach, SeedTest, seed_tests

CellPair = tuple[Cell, Cell]  # a row's and the reference's, of one seed


@dataclass(frozen=True)
class RowResult:
    """One line. budget: epochs over the training split of each of its networks, by the modality it is shown or "all".
    test: metric -> mean, std, values; empty where every run failed. tuned: what each run chose, where runs are tuned.
    """

    label: str
    method: str
    budget: Mapping[str, int]
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    parameters: int | None
    seconds: float
    test: Statistics
    paper: Mapping[str, float]
    comparison: Comparison | None
    failures: tuple[str, ...]
    tuned: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Result(ABC):
    """What every finished table says. primary: the metric comparisons are made on. metrics: the columns, in order.
    notes: what a reader of the numbers must know.
    """

    title: str
    dataset: str
    task: str
    reference: str
    primary: str
    metrics: tuple[str, ...]
    floors: Mapping[str, Mapping[str, float]]
    samples: Mapping[str, int]
    notes: tuple[str, ...]

    @property
    @abstractmethod
    def comparisons(self) -> Mapping[str, SeedTest]:
        """Every comparison once, by the name of what is compared."""

    @property
    def reach(self) -> Reach | None:
        """What so many seeds can show at all."""
        return Reach.of(self.comparisons.values())

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; a comparison holds whether it is significant, `reach` what so many seeds can show at all."""
        return {**plain(self), "reach": plain(self.reach)}


def plain(value: Any) -> Any:
    """Dataclasses as dictionaries all the way down, a comparison with its verdict."""
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if not is_dataclass(value):
        return value
    found = {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    return {**found, "significant": value.significant} if isinstance(value, SeedTest) else found


@dataclass(frozen=True)
class TableResult(Result):
    """A finished table: rows by methods. samples: of the first fold. overlap: of the training sets of folds
    (overlap_of).
    """

    rows: tuple[RowResult, ...]
    commands: tuple[str, ...] = ()
    folds: int = 1
    overlap: float = 0.0

    @property
    def comparisons(self) -> dict[str, Comparison]:
        """Row label -> its comparison with the reference."""
        return {row.label: row.comparison for row in self.rows if row.comparison is not None}

    @property
    def reach(self) -> Reach | None:
        return Reach.of(self.comparisons.values(), self.overlap)


def results_of(plan: TablePlan, failures: Sequence[Failure] = ()) -> TableResult:
    """The numbers of a table's finished runs; rows whose runs are missing stand there empty."""
    first = plan.cells[0]
    lines = {row.label: [cell for cell in plan.of(row) if cell.run.finished] for row in plan.spec.rows}
    finished = [cell for cells in lines.values() for cell in cells]
    results = [cell.run.result for cell in finished]
    primary = first.resolved.data.task.primary
    comparisons = compared(plan, lines, primary)
    card = first.resolved.data.card
    metrics = columns(primary, card.metrics, dict.fromkeys(name for result in results for name in result["test"]))
    rows = tuple(
        row_result(row, lines[row.label], plan, comparisons.get(row.label), failures) for row in plan.spec.rows
    )
    notes = list(dict.fromkeys(note for result in results for note in result["notes"]))
    return TableResult(
        title=plan.spec.title,
        dataset=card.name,
        task=card.task,
        reference=plan.spec.reference,
        primary=primary,
        metrics=metrics,
        rows=rows,
        floors=floors_of(finished, plan.spec.reference),
        samples={split: len(rows) for split, rows in first.resolved.data.splits.items()},
        notes=tuple(dict.fromkeys((*card.notes, *notes, *plan.spec.notes))),
        folds=len(folds_in(plan)),
        overlap=overlap_of(plan),
    )


def columns(primary: str, card: Sequence[str], there: Iterable[str]) -> tuple[str, ...]:
    """The metrics a table prints: what rows are compared on, then the card's; all of a card that names none."""
    known = tuple(there)
    return tuple(name for name in dict.fromkeys((primary, *card)) if name in known) if set(card) & set(known) else known


def floors_of(finished: Sequence[Cell], reference: str) -> Mapping[str, Mapping[str, float]]:
    """The floors of the reference row's data, over its folds: a row on one modality has a probe on that one alone."""
    ordered = sorted(finished, key=lambda cell: (cell.row.label != reference, -len(cell.resolved.data.features)))
    found = [cell.run.result["floors"] for cell in ordered if cell.row is ordered[0].row and cell.run.result["floors"]]
    return {
        name: {metric: float(np.mean([one[name][metric] for one in found])) for metric in found[0][name]}
        for name in (found[0] if found else ())
    }


def overlap_of(plan: TablePlan) -> float:
    """Test samples to all others where folds share training samples, 0 for a single split (Nadeau and Bengio 2003)."""
    if len(folds_in(plan)) < 2:
        return 0.0
    counts = {name: len(rows) for name, rows in plan.cells[0].resolved.data.splits.items()}
    return counts["test"] / (counts["train"] + counts["val"])


def folds_in(plan: TablePlan) -> tuple[str | None, ...]:
    """The splits of a table's runs."""
    return tuple(dict.fromkeys(cell.request.split for cell in plan.cells))


def row_result(
    row: Row, cells: Sequence[Cell], plan: TablePlan, comparison: Comparison | None, failures: Sequence[Failure]
) -> RowResult:
    """One line from its finished cells."""
    results = [cell.run.result for cell in cells]
    return RowResult(
        label=row.label,
        method=row.method,
        budget=plan.of(row)[0].budget,
        runs=tuple(cell.run.id for cell in cells),
        seeds=tuple(cell.seed for cell in cells),
        parameters=results[0]["parameters"] if results else None,
        seconds=round(sum(result["seconds"] for result in results), 3),
        test=statistics([result["test"] for result in results]) if results else {},
        paper=paper_numbers(plan.spec.paper, plan.cells[0].resolved.data.card.name, row.label),
        comparison=comparison,
        failures=tuple(f"seed {f.seed}: {f.reason}" for f in failures if f.label == row.label),
        tuned=tuple(result["tuned"] for result in results if "tuned" in result),
    )


def compared(plan: TablePlan, lines: Mapping[str, Sequence[Cell]], metric: str) -> dict[str, Comparison]:
    """Every row against the one it is held against, on the seeds both have."""
    pairs: dict[str, list[CellPair]] = {}
    for row in plan.spec.rows:
        other = plan.spec.reference if row.against is None else row.against
        reference = {cell.repeat: cell for cell in lines.get(other, [])}
        both = [(cell, reference[cell.repeat]) for cell in lines[row.label] if cell.repeat in reference]
        if row.label != other and both:
            pairs[row.label] = both
    values = [
        ([one.run.test[metric] for one, _ in both], [other.run.test[metric] for _, other in both])
        for both in pairs.values()
    ]
    found = {}
    for label, test in zip(pairs, seed_tests(values, overlap_of(plan)), strict=True):
        low, high = over_samples(pairs[label]) or (None, None)
        found[label] = Comparison(**vars(test), metric=metric, low=low, high=high)
    return found


def over_samples(pairs: Sequence[CellPair]) -> tuple[float, float] | None:
    """The bootstrap's interval of the difference of these runs; None where a run has no test predictions.

    Over folds, the samples of all of them are drawn from, and a run is judged by those of its own.
    """
    found = [(one.scores, other.scores) for one, other in pairs if one.scores is not None and other.scores is not None]
    if len(found) < len(pairs):
        return None
    folds = {one.request.split: one.resolved.data for one, _ in pairs}
    known = [groups_in(data) for data in folds.values()]
    groups = None if known[0] is None else [group for of in known for group in of or ()]
    if len(folds) > 1:
        sizes = [len(data.splits["test"]) for data in folds.values()]
        ends = dict(zip(folds, np.cumsum(sizes).tolist(), strict=True))
        found = [
            (one.among(ends[cell.request.split], sum(sizes)), other.among(ends[cell.request.split], sum(sizes)))
            for (one, other), (cell, _) in zip(found, pairs, strict=True)
        ]
    means = [(one, other) for one, other in found if isinstance(one, SampleScores) and isinstance(other, SampleScores)]
    if len(means) == len(found):
        return bootstrap(differences(means), groups)
    anew = [(one, other) for one, other in found if isinstance(one, Recomputed) and isinstance(other, Recomputed)]
    return recomputed(anew, groups)


def groups_in(data: TrainingData) -> list[str] | None:
    """Each test sample's group, where the dataset has groups."""
    groups = group_names(data.samples)
    return None if groups is None else [groups[row] for row in data.splits["test"]]
