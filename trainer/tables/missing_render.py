"""`pgm table missing` as text: scores, their change from rate 0, and the difference to the reference row."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping

from .missing_results import MissingCell, MissingResult
from .render import SAME, TESTED, TEXTS, Sheet, budgets_told, percent, seeds_told, tested_cells
from .significance import LEVEL


def missing_sheet(result: MissingResult) -> Sheet:
    """Rows are methods, columns rates; one block a question."""
    others = [line for line in result.lines if line.method != result.reference]
    scores = [[line.method, *(scored(cell, result.primary) for cell in line.cells)] for line in result.lines]
    floors = [
        [f"{name} (floor)", *([percent(metrics.get(result.primary))] * len(result.rates))]
        for name, metrics in result.floors.items()
    ]
    changes = [[f"{line.method}, change from 0", *map(changed, line.cells)] for line in result.lines]
    if not any(cell.change for line in result.lines for cell in line.cells):
        changes = []
    against = [[f"{line.method} - {result.reference}", *map(compared, line.cells)] for line in others]
    names = ["method", *(f"{rate['asked']:g} ({achieved(result, rate):.3f})" for rate in result.rates)]
    return Sheet(result.title, names, [scores, floors, changes, against], captions(result))


def achieved(result: MissingResult, rate: Mapping[str, float]) -> float:
    """The achieved rate of the split that a column's rate is of; of the test split where it is of both."""
    return rate["train" if result.moved == "train" else "test"]


def scored(cell: MissingCell, metric: str) -> str:
    """Mean and deviation of the primary metric."""
    score = cell.test.get(metric)
    if score is None:
        return "failed" if cell.failures else ""
    several = len(score["values"]) > 1
    return f"{100 * score['mean']:.2f} ± {100 * score['std']:.2f}" if several else percent(score["mean"])


def changed(cell: MissingCell) -> str:
    """How far it is from rate 0."""
    return "" if cell.change is None else f"{100 * cell.change['mean']:+.2f}"


def compared(cell: MissingCell) -> str:
    """The difference to the reference, marked where it is not significant."""
    found = cell.comparison
    return "" if found is None else f"{100 * found.difference:+.2f}" + ("" if found.significant else f" {SAME}")


def captions(result: MissingResult) -> list[str]:
    """What stands under the table."""
    samples = ", ".join(f"{count:,} {split}" for split, count in result.samples.items())
    how = "skipped" if result.fill == "skip" else "replaced by zeros"
    told = [
        f"{result.dataset}, test split ({samples}); {result.primary} times 100, mean ± standard deviation over seeds.",
        "Columns: the share of the (sample, modality) pairs that is taken away, in brackets as achieved; "
        f"missing ones are {how} (mask seed {result.mask_seed}, the same mask for every method and seed).",
        f"Differences to {result.reference}: paired t-test over seeds, Holm-corrected over the table; {SAME} not "
        f"significant (p ≥ {LEVEL:g}, or no p: one seed, or the same difference at every seed).",
        *seeds_told(result.reach, result.comparisons),
        *budgets_told({line.method: line.budget for line in result.lines}),
    ]
    told += [f"note: {note}" for note in result.notes]
    failed = {line.method: failure for line in result.lines for cell in line.cells for failure in cell.failures}
    return told + [f"failed: {method}, {reason}" for method, reason in failed.items()]


def as_csv(result: MissingResult) -> str:
    """Numbers for a spreadsheet: one line a method, rate and metric, fractions, every seed's value."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ["dataset", "method", "rate", "train_achieved", "test_achieved", "metric", "mean", "std", "values", "seeds"]
    writer.writerow([*names, "change", "reference", *TESTED, "runs"])
    for line in result.lines:
        for rate, cell in zip(result.rates, line.cells, strict=True):
            for metric, score in cell.test.items():
                values = " ".join(f"{value:.6f}" for value in score["values"])
                row = [result.dataset, line.method, cell.rate, rate["train"], rate["test"], metric, score["mean"]]
                row += [score["std"], values, " ".join(map(str, cell.seeds))]
                change = cell.change["mean"] if cell.change and metric == result.primary else ""
                found = cell.comparison if metric == result.primary else None
                writer.writerow(
                    [
                        *row,
                        change,
                        result.reference,
                        *tested_cells(found, result.reach, line.budget),
                        " ".join(cell.runs),
                    ]
                )
    for name, scores in result.floors.items():
        for metric, value in scores.items():
            writer.writerow([result.dataset, f"{name} (floor)", "", "", "", metric, value, *[""] * (6 + len(TESTED))])
    return text.getvalue().rstrip("\n")


def as_json(result: MissingResult) -> str:
    """Everything, every value."""
    return json.dumps(result.as_dict(), indent=1)


def missing_text(result: MissingResult, format: str) -> str:
    """The table in one of the five formats."""
    numbers: dict[str, Callable[[MissingResult], str]] = {"csv": as_csv, "json": as_json}
    return numbers[format](result) if format in numbers else TEXTS[format](missing_sheet(result))
