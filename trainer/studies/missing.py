"""Missing modalities: methods by missing rate.

By default the rate holds in training and test, as in MLA's protocol (spec A5); either can stay where it is while the
other moves. A column's mask is one and the same for every method and seed. A run that several columns share (the
training rate stays, or two rates are both above what the data allows) is trained once and tested once a mask.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ...cache.errors import UserError
from ..data.dataset import TrainingData
from ..data.feed import present_lengths
from ..data.missing import TRAINED, Missing, described, mask_of
from ..methods import modalities_of
from ..run.masked_test import MaskedTests, SplitMask, split_mask
from ..run.request import MISSING_NOTE, Request, resolve
from ..run.seeds import Statistics, mean_and_deviation, statistics
from ..tasks import Task
from .engine.options import StudyOptions, methods_named, modalities_and_task
from .engine.plan import Cell, TablePlan, reason_against
from .engine.rates import rates_of
from .engine.render import (
    SAME,
    Record,
    Sheet,
    budget_notes,
    mean_cell,
    percent,
    score_record,
    seed_notes,
    tested_record,
)
from .engine.results import Result
from .engine.runner import Failure
from .engine.significance import LEVEL, Pair, SeedTest, seed_tests
from .engine.study import Row, Study, TableSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REFERENCE = "concat"
DEFAULT_METHODS = "mla,pgm,concat,late,ensemble"
DEFAULT_RATES = "0,0.1,...,0.7"
# Seven colours and eight markers: the first 56 methods differ, and no two neighbours share either.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", ":")
APART = 0.4  # per cent of rate between two methods' points, so that their error bars stand side by side
WHERE = {"both": "training and test", "train": "training", "test": "test"}
Key = tuple[str, float]  # a method and a rate as asked
Scores = Mapping[int, tuple[Cell, Mapping[str, float]]]  # seed -> its cell and its test metrics


@dataclass(frozen=True)
class Column:
    """rate: as asked. train: None for whole samples. achieved: split -> the share of its cells that is missing."""

    rate: float
    train: Missing | None
    test: SplitMask
    achieved: Mapping[str, float]


@dataclass(frozen=True)
class MissingSpec(TableSpec):
    """A row a method and training mask. compared_with: the method others are held against. moved: "both", "train" or
    "test"."""

    methods: tuple[str, ...] = ()
    compared_with: str = ""
    columns: tuple[Column, ...] = ()
    rows_by: Mapping[tuple[str, Missing | None], Row] = field(default_factory=dict)
    moved: str = "both"
    fill: str = "skip"
    mask_seed: int = 0


@dataclass(frozen=True)
class MissingCell:
    """A method at a rate. test: metric -> mean, std, values. change: of the primary metric from rate 0, by seed."""

    rate: float
    test: Statistics
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
class MissingResult(Result):
    """A finished table: methods by rates. rates: asked and achieved, a column each. moved: what the rate of the columns
    is of.
    """

    moved: str
    fill: str
    mask_seed: int
    rates: tuple[Mapping[str, float], ...]
    lines: tuple[MissingLine, ...]

    @property
    def comparisons(self) -> dict[str, SeedTest]:
        """By method and the first rate it stands for."""
        once: dict[int, tuple[str, SeedTest]] = {}
        for line in self.lines:
            for cell in line.cells:
                if cell.comparison is not None:
                    # Columns with one mask share one object.
                    once.setdefault(id(cell.comparison), (f"{line.method} at {cell.rate:g}", cell.comparison))
        return dict(once.values())


class MissingModalities(Study):
    """Every method against concatenation at every rate, and against itself at rate 0."""

    name = "missing"
    has_folds = False
    takes = ("methods", "rates", "train_rate", "test_rate", "fill", "mask_seed")

    def spec(self, request: Request, options: StudyOptions) -> MissingSpec:
        """Columns and runs; its masks are drawn, or read, here. Raises UserError for what cannot be asked."""
        modalities, task = modalities_and_task(request)
        check_dataset(request, modalities, task)
        methods = methods_of(DEFAULT_METHODS if options.methods is None else options.methods, modalities)
        rates = rates_of(DEFAULT_RATES if options.rates is None else options.rates)
        if options.train_rate is not None and options.test_rate is not None:
            raise UserError(
                "--train-rate and --test-rate are both given, so --rates has nothing left to move. Leave one out."
            )
        resolved = resolve(dataclasses.replace(request, method=REFERENCE if options.methods is None else methods[0]))
        data, left_out = resolved.data, {}
        if options.methods is None:
            # Of the methods nobody asked for by name, those that cannot do the task are no error.
            left_out = {
                m: reason for m in methods if (reason := reason_against(m, request, resolved.shape)) is not None
            }
            methods = tuple(m for m in methods if m not in left_out)
        if not len(data.splits["test"]):
            raise UserError(f"{data.card.name} has no test split to take modalities away from.")
        like = Missing(0.0, options.mask_seed or 0, options.fill or "skip")  # type: ignore[arg-type]  # checked there
        columns = tuple(column_of(data, rate, like, options.train_rate, options.test_rate) for rate in rates)
        rows: dict[tuple[str, Missing | None], Row] = {}
        for method in methods:
            for train in dict.fromkeys(column.train for column in columns):
                tests = {column.test.missing: column.test for column in columns if column.train == train}
                label = method if train is None else f"{method}, trained at {train.rate:.3g}"
                rows[method, train] = Row(label, method, missing=train, measurement=MaskedTests(tuple(tests.values())))
        moved = "train" if options.test_rate is not None else "test" if options.train_rate is not None else "both"
        listed = tuple(rows.values())
        return MissingSpec(
            title=f"Missing modalities, {moved_text(moved, options)}",
            rows=listed,
            reference=listed[0].label,
            methods=methods,
            compared_with=REFERENCE if REFERENCE in methods else methods[0],
            columns=columns,
            rows_by=rows,
            moved=moved,
            fill=like.fill,
            mask_seed=like.seed,
            notes=(*notes_on(data, columns), *(f"{name} is left out: {why}" for name, why in left_out.items())),
        )

    def results(self, plan: TablePlan, failures: Sequence[Failure] = ()) -> MissingResult:
        """The numbers of what is there; a cell whose runs failed stands there empty."""
        spec = plan.spec
        assert isinstance(spec, MissingSpec)
        data = plan.cells[0].resolved.data
        found = {(m, column.rate): scores_of(spec, plan, m, column) for m in spec.methods for column in spec.columns}
        results = [cell.run.result for cell in plan.cells if cell.run.finished]
        metrics = tuple(
            dict.fromkeys(name for scores in found.values() for score in scores.values() for name in score[1])
        )
        metric = data.task.primary
        tests = compared(spec, found, metric)
        notes = dict.fromkeys(n for result in results for n in result["notes"] if not n.startswith(MISSING_NOTE))
        lines = tuple(
            MissingLine(
                m,
                plan.of(spec.rows_by[m, spec.columns[0].train])[0].budget,
                tuple(cell_of(spec, found, m, c, metric, tests.get((m, c.rate)), failures) for c in spec.columns),
            )
            for m in spec.methods
        )
        floors: Mapping[str, Mapping[str, float]] = next(
            (result["floors"] for result in results if result["floors"]), {}
        )
        return MissingResult(
            title=spec.title,
            dataset=data.card.name,
            task=data.card.task,
            reference=spec.compared_with,
            moved=spec.moved,
            fill=spec.fill,
            mask_seed=spec.mask_seed,
            primary=metric,
            metrics=metrics,
            rates=tuple({"asked": column.rate, **column.achieved} for column in spec.columns),
            lines=lines,
            floors={name: scores for name, scores in floors.items() if name == "majority"},
            samples={split: len(rows) for split, rows in data.splits.items()},
            notes=tuple(dict.fromkeys((*spec.notes, *data.card.notes, *notes))),
        )

    def sheets(self, results: MissingResult) -> list[Sheet]:
        """Rows are methods, columns rates; one block a question."""
        others = [line for line in results.lines if line.method != results.reference]
        scores = [[line.method, *(scored(cell, results.primary) for cell in line.cells)] for line in results.lines]
        floors = [
            [f"{name} (floor)", *([percent(metrics.get(results.primary))] * len(results.rates))]
            for name, metrics in results.floors.items()
        ]
        changes = [[f"{line.method}, change from 0", *map(changed, line.cells)] for line in results.lines]
        if not any(cell.change for line in results.lines for cell in line.cells):
            changes = []
        against = [[f"{line.method} - {results.reference}", *map(difference, line.cells)] for line in others]
        names = ["method", *(f"{rate['asked']:g} ({achieved(results, rate):.3f})" for rate in results.rates)]
        return [Sheet(results.title, names, [scores, floors, changes, against], captions(results))]

    def records(self, results: MissingResult) -> list[Record]:
        """One a method, rate and metric: fractions, every seed's value."""
        found: list[Record] = []
        for line in results.lines:
            for rate, cell in zip(results.rates, line.cells, strict=True):
                shared = {"dataset": results.dataset, "method": line.method, "rate": cell.rate}
                shared |= {"train_achieved": rate["train"], "test_achieved": rate["test"]}
                for metric, score in cell.test.items():
                    primary = metric == results.primary
                    tested = tested_record(cell.comparison if primary else None, results.reach, line.budget)
                    change = cell.change["mean"] if cell.change and primary else None
                    against = {"change": change, "reference": results.reference, **tested, "runs": " ".join(cell.runs)}
                    found.append({**shared, "metric": metric, **score_record(score, cell.seeds), **against})
        for name, scores in results.floors.items():
            floor = {"dataset": results.dataset, "method": f"{name} (floor)"}
            found += [{**floor, "metric": metric, "mean": value} for metric, value in scores.items()]
        return found

    def alt_text(self, plan: TablePlan, results: MissingResult) -> str:
        """In words."""
        return f"Test {results.primary} over the share of missing modalities, a line a method."

    def figure(self, plan: TablePlan, results: MissingResult) -> Figure:
        """Means with the standard deviation over seeds; rates that stand for the same mask are one point."""
        from .engine.draw import COLOURS, INK, figure_of

        figure, axes = figure_of(5.8, 3.6)
        metric = results.primary
        for place, line in enumerate(results.lines):
            points = {
                100 * achieved(results, rate): cell.test[metric]
                for rate, cell in zip(results.rates, line.cells, strict=True)
                if cell.test
            }
            rates = sorted(points)
            shift = APART * (place - (len(results.lines) - 1) / 2)
            axes.errorbar(
                [rate + shift for rate in rates], [100 * points[rate]["mean"] for rate in rates],
                yerr=[100 * points[rate]["std"] for rate in rates], label=line.method,
                color=COLOURS[place % len(COLOURS)], marker=MARKERS[place % len(MARKERS)],
                linestyle=DASHES[place % len(DASHES)], markersize=5, markeredgecolor=INK, markeredgewidth=0.4,
                linewidth=1.4, elinewidth=0.8, capsize=2,
            )  # fmt: skip
        floor = results.floors.get("majority", {}).get(metric)
        if floor is not None:
            axes.axhline(100 * floor, color=INK, linestyle=(0, (1, 3)), linewidth=1, label="majority (floor)")
        axes.set_xlabel(f"missing (sample, modality) pairs in {WHERE[results.moved]}, %")
        axes.set_ylabel(f"test {metric} times 100")
        how = "skipped" if results.fill == "skip" else "as zeros"
        axes.set_title(f"Missing modalities on {results.dataset}, {how}", loc="left")
        axes.legend(frameon=False, fontsize=8, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.17))
        return figure


def check_dataset(request: Request, modalities: Sequence[str], task: type[Task]) -> None:
    """Raise UserError for a dataset that a modality cannot be taken away from."""
    if task.cross_modal:
        raise UserError(
            f"{request.dataset} is a retrieval dataset: a sample is found in one modality by its other one, so a "
            "sample that lacks either cannot be ranked. table missing is for classification, emotion and sentiment."
        )
    if len(modalities) < 2:
        raise UserError(
            f"table missing takes modalities away, and {', '.join(modalities)} is the only one here: with it a sample "
            "would lose everything. Choose more with --modality, or another dataset."
        )


def methods_of(text: str, modalities: tuple[str, ...]) -> tuple[str, ...]:
    """Methods by name. Raises UserError for none, an unknown one, or one that reads a single modality."""
    names = tuple(methods_named(text, modalities))
    for name in names:
        if len(modalities_of(name, modalities)) < len(modalities):
            raise UserError(
                f"--methods {name}: it reads one modality, and of a sample without it nothing can be predicted. "
                "Choose methods of several modalities; the ensemble holds one such model a modality."
            )
    return names


def column_of(
    data: TrainingData, rate: float, like: Missing, train_rate: float | None, test_rate: float | None
) -> Column:
    """One column, its rates taken down to what the data allows."""
    train, shares = reached(data, rate if train_rate is None else train_rate, like)
    test, tested = reached(data, rate if test_rate is None else test_rate, like)
    taken = described(mask_of(data, train), train, *TRAINED)
    achieved = {"train": shares["train"], "val": shares["val"], "test": tested["test"]}
    return Column(rate, None if taken is None else train, split_mask(data, test), achieved)


def reached(data: TrainingData, rate: float, like: Missing) -> tuple[Missing, Mapping[str, float]]:
    """What can be taken away at this rate, and the share of each split's cells that it is."""
    mask = mask_of(data, dataclasses.replace(like, rate=rate))
    return dataclasses.replace(like, rate=mask.rate), mask.achieved


def moved_text(moved: str, options: StudyOptions) -> str:
    """Where the rate of the columns holds."""
    if moved == "both":
        return "the same rate in training and test"
    if moved == "test":
        return f"rate in test, training at {options.train_rate:g}"
    return f"rate in training, test at {options.test_rate:g}"


def notes_on(data: TrainingData, columns: Sequence[Column]) -> tuple[str, ...]:
    """What a reader must know of the masks."""
    notes = [mask.note for mask in data.masks.values() if mask.note]
    largest = max((mask.rate for (asked, _), mask in data.masks.items() if mask.rate < asked), default=None)
    if largest is not None:
        above = ", ".join(f"{asked:g}" for asked in sorted({a for (a, _), m in data.masks.items() if m.rate < a}))
        notes.append(
            f"Every sample keeps one of its modalities, so at most {largest:.1%} of the pairs can be missing; "
            f"{above} stands for that."
        )
    cells = np.stack([present_lengths(store) > 0 for store in data.features.values()], axis=1)
    lacking = 1 - float(cells[np.concatenate(list(data.splits.values()))].mean())
    if lacking:
        notes.append(f"{lacking:.1%} of the pairs have no features anyway; the rates are shares of the others.")
    return tuple(dict.fromkeys(notes))


def scores_of(spec: MissingSpec, plan: TablePlan, method: str, column: Column) -> Scores:
    """What there is of a method at a rate."""
    found = {}
    for cell in plan.of(spec.rows_by[method, column.train]):
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
            ours, theirs = found[method, column.rate], found[spec.compared_with, column.rate]
            seeds = sorted(ours.keys() & theirs.keys())
            if method == spec.compared_with or not seeds:
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
    label = spec.rows_by[method, column.train].label
    return MissingCell(
        rate=column.rate,
        test=statistics([metrics for _, metrics in scores.values()]) if scores else {},
        seeds=tuple(scores),
        runs=tuple(cell.run.id for cell, _ in scores.values()),
        change=mean_and_deviation([scores[s][1][metric] - whole[s][1][metric] for s in both])
        if both and column.rate
        else None,
        comparison=comparison,
        failures=tuple(f"seed {f.seed}: {f.reason}" for f in failures if f.label == label),
    )


def achieved(result: MissingResult, rate: Mapping[str, float]) -> float:
    """The achieved rate of the split that a column's rate is of; of the test split where it is of both."""
    return rate["train" if result.moved == "train" else "test"]


def scored(cell: MissingCell, metric: str) -> str:
    """Mean and deviation of the primary metric."""
    score = cell.test.get(metric)
    if score is None:
        return "failed" if cell.failures else ""
    return mean_cell(score)


def changed(cell: MissingCell) -> str:
    """How far it is from rate 0."""
    return "" if cell.change is None else f"{100 * cell.change['mean']:+.2f}"


def difference(cell: MissingCell) -> str:
    """The difference to the reference, marked where it is not significant."""
    found = cell.comparison
    return "" if found is None else f"{100 * found.difference:+.2f}" + ("" if found.significant else f" {SAME}")


def captions(result: MissingResult) -> list[str]:
    """What stands under the table."""
    samples = ", ".join(f"{count:,} {split}" for split, count in result.samples.items())
    how = "skipped" if result.fill == "skip" else "replaced by zeros"
    notes = [
        f"{result.dataset}, test split ({samples}); {result.primary} times 100, mean ± standard deviation over seeds.",
        "Columns: the share of the (sample, modality) pairs that is taken away, in brackets as achieved; "
        f"missing ones are {how} (mask seed {result.mask_seed}, the same mask for every method and seed).",
        f"Differences to {result.reference}: paired t-test over seeds, Holm-corrected over the table; {SAME} not "
        f"significant (p ≥ {LEVEL:g}, or no p: one seed, or the same difference at every seed).",
        *seed_notes(result.reach, result.comparisons),
        *budget_notes({line.method: line.budget for line in result.lines}),
    ]
    notes += [f"note: {note}" for note in result.notes]
    failed = {line.method: failure for line in result.lines for cell in line.cells for failure in cell.failures}
    return notes + [f"failed: {method}, {reason}" for method, reason in failed.items()]


STUDY = MissingModalities()
