"""A table as text: for a terminal, Markdown, LaTeX, CSV; one builder of cells, five ways to print them.

Tables of another form build their own `Sheet`.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from .plan import ALL
from .results import RowResult, TableResult
from .significance import LEVEL, Comparison, Reach, SeedTest, needed_note, reach_note

SAME = "≈"
UNDEFINED = "undefined"
Record = dict[str, Any]  # a line of a spreadsheet, by column
COMPARED = (
    "difference",
    "deviation",
    "p",
    "p_uncorrected",
    "p_sign_flip",
    "seeds_needed",
    "low",
    "high",
    "significant",
)


def header(result: TableResult) -> list[str]:
    """Column names."""
    paper = [f"paper {name}" for name in paper_metrics(result)]
    flipped = ["p (sign-flip)"] if sign_flipped(result) else []
    compared = [f"Δ {result.primary}", "p (seeds)", *flipped, "95 % (samples)"]
    return [
        "method",
        "parameters",
        "folds x seeds" if result.folds > 1 else "seeds",
        *result.metrics,
        *compared,
        *paper,
    ]


def sign_flipped(result: TableResult) -> bool:
    """Whether a row has enough seeds for a sign-flip test."""
    return any(found.p_sign_flip is not None for found in result.comparisons.values())


def paper_metrics(result: TableResult) -> list[str]:
    """Metrics for which the paper has a number in some row."""
    return list(dict.fromkeys(name for row in result.rows for name in row.paper))


def lines(result: TableResult) -> list[list[str]]:
    """Every row's cells as text, methods then floors."""
    found = [row_cells(result, row) for row in result.rows]
    width = len(header(result))
    for name, scores in result.floors.items():
        cells = [f"{name.replace('_', ' ')} (floor)", "", "", *(percent(scores.get(m)) for m in result.metrics)]
        found.append(cells + [""] * (width - len(cells)))
    return found


def row_cells(result: TableResult, row: RowResult) -> list[str]:
    """One row's cells."""
    count = f"{row.parameters:,}" if row.parameters is not None else ""
    several = f"{result.folds} x {len(row.seeds) // result.folds}" if result.folds > 1 else str(len(row.seeds))
    cells = [row.label, count, several]
    for metric in result.metrics:
        score = row.test.get(metric)
        if score is None:
            cells.append("failed" if row.failures and not row.test else "")
        else:
            cells.append(mean_cell(score))
    cells += comparison_cells(row.comparison, sign_flipped(result))
    return cells + [percent(row.paper.get(name)) for name in paper_metrics(result)]


def comparison_cells(found: Comparison | None, flipped: bool) -> list[str]:
    """The difference with its mark, p over seeds, by sign-flip where the table has it, and the interval."""
    if found is None:
        return [""] * (4 if flipped else 3)
    mark = "" if found.significant else f" {SAME}"
    interval = "" if found.low is None or found.high is None else f"{100 * found.low:+.2f} to {100 * found.high:+.2f}"
    flip = [p_cell(found.p_sign_flip)] if flipped else []
    return [f"{100 * found.difference:+.2f}{mark}", p_cell(found.p), *flip, interval]


def p_cell(p: float | None) -> str:
    """To three places."""
    return "" if p is None else f"{p:.3f}" if p >= 0.001 else "< 0.001"


def mean_cell(score: Mapping[str, Any], digits: int = 2) -> str:
    """Mean ± deviation over seeds, times 100; the number alone for one seed."""
    if math.isnan(score["mean"]):
        return UNDEFINED
    mean, several = f"{100 * score['mean']:.{digits}f}", len(score["values"]) > 1
    return f"{mean} ± {100 * score['std']:.{digits}f}" if several else mean


def percent(value: float | None) -> str:
    """A fraction in per cent."""
    return "" if value is None else UNDEFINED if math.isnan(value) else f"{100 * value:.2f}"


def captions(result: TableResult) -> list[str]:
    """What stands under the table."""
    samples = ", ".join(f"{count:,} {split}" for split, count in result.samples.items())
    over, test = "seeds", "paired t-test over seeds"
    if result.folds > 1:
        over, samples = "folds and seeds", f"{result.folds} folds, the first: {samples}"
        test = "corrected resampled t-test (Nadeau and Bengio 2003), paired by fold and seed"
    notes = [
        f"{result.dataset}, test split ({samples}); all numbers times 100, mean ± standard deviation over {over}.",
        f"Δ {result.primary}: against {result.reference}. p: {test}, Holm-corrected. 95 %: BCa "
        f"bootstrap over test samples. {SAME} not significant (p ≥ {LEVEL:g}, or no p, or the interval holds 0); no p: "
        "one seed, or the same difference at every seed.",
        *seed_notes(result.reach, result.comparisons),
        *budget_notes({row.label: row.budget for row in result.rows}),
        *tuning_notes(result.rows),
    ]
    if sign_flipped(result):
        notes.append(
            "p (sign-flip): paired sign-flip test over seeds, Holm-corrected, from six seeds on; it marks nothing."
        )
    if further := {name for row in result.rows for name in row.test} - set(result.metrics):
        notes.append(f"{len(further)} further metrics are in --json and --format csv: {', '.join(sorted(further))}.")
    if any(row.paper for row in result.rows):
        notes.append(
            "The paper's encoders and protocol are its own: its numbers stand beside ours, nothing is tuned to them."
        )
    notes += [f"note: {note}" for note in result.notes]
    notes += [f"failed: {row.label}, {reason}" for row in result.rows for reason in row.failures]
    return notes


def seed_notes(reach: Reach | None, tests: Mapping[str, SeedTest]) -> list[str]:
    """What the table's number of seeds can show, and from how many on its differences could be significant."""
    return [] if reach is None else [reach_note(reach), *filter(None, [None if reach.overlap else needed_note(tests)])]


def budget_notes(budgets: Mapping[str, Mapping[str, int]]) -> list[str]:
    """How long the rows are trained, and which of them otherwise than the first."""
    lengths = {label: sorted(set(budget.values())) for label, budget in budgets.items()}
    usual = next(iter(lengths.values()))
    other = [f"{label} {' and '.join(map(str, found))}" for label, found in lengths.items() if found != usual]
    besides = [label for label, budget in budgets.items() if ALL in budget and len(budget) > 1]
    text = f"Every network is trained for {' and '.join(map(str, usual))} epochs"
    text += f", UNEQUAL: {', '.join(other)}." if other else "."
    return [text + (f" {', '.join(besides)}: so are its networks of one modality, besides." if besides else "")]


def tuning_notes(rows: Sequence[RowResult]) -> list[str]:
    """How many choices each run tried on validation, and what each row's runs chose."""
    found = {row.label: row.tuned for row in rows if row.tuned}
    if not found:
        return []
    trials = sorted({one["trials"] for tuned in found.values() for one in tuned})
    told = {label: ", ".join(f"{one['lr']:g} x {one['epochs']}" for one in tuned) for label, tuned in found.items()}
    chosen = "; ".join(f"{label} {text}" for label, text in told.items())
    return [
        f"Tuned: every run tried {' or '.join(map(str, trials))} learning rates and epochs on the task, by validation, "
        f"and was trained by the best (epochs above are those of the first). Chosen, lr x epochs: {chosen}."
    ]


@dataclass(frozen=True)
class Sheet:
    """A table as text, whatever it is of. names: of the columns; blocks: groups of rows, ruled apart."""

    title: str
    names: Sequence[str]
    blocks: Sequence[Sequence[Sequence[str]]]
    captions: Sequence[str]


def sheet_of(result: TableResult) -> Sheet:
    """Methods, then floors."""
    rows, count = lines(result), len(result.rows)
    return Sheet(result.title, header(result), [rows[:count], rows[count:]], captions(result))


def as_rich(sheet: Sheet) -> str:
    """For a terminal."""
    table = Table(title=sheet.title, title_justify="left", box=box.SIMPLE)
    for place, name in enumerate(sheet.names):
        table.add_column(name, justify="left" if place == 0 else "right", overflow="fold", no_wrap=place == 0)
    for block in sheet.blocks:
        for cells in block:
            table.add_row(*cells)
        table.add_section()
    console = Console(width=max(160, Console().width), highlight=False)
    with console.capture() as captured:
        console.print(table)
    return captured.get().rstrip() + "\n" + "\n".join(sheet.captions)


def as_markdown(sheet: Sheet) -> str:
    """GitHub's Markdown."""
    rule = ["---"] + ["---:"] * (len(sheet.names) - 1)
    rows = [sheet.names, rule, *(cells for block in sheet.blocks for cells in block)]
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in rows)
    return f"{table}\n\n" + "\n".join(f"{line}  " for line in sheet.captions)


def as_latex(sheet: Sheet) -> str:
    """A booktabs table."""

    def row(cells: Sequence[str]) -> str:
        return " & ".join(latex(cell) for cell in cells) + r" \\"

    body = "\n\\midrule\n".join("\n".join(map(row, block)) for block in sheet.blocks if block)
    caption = latex(f"{sheet.title}. " + " ".join(sheet.captions))
    return (
        "\\begin{table}\n\\centering\n\\begin{tabular}{l" + "r" * (len(sheet.names) - 1) + "}\n\\toprule\n"
        f"{row(sheet.names)}\n\\midrule\n{body}\n\\bottomrule\n\\end{{tabular}}\n"
        f"\\caption{{{caption}}}\n\\end{{table}}"
    )


def latex(text: str) -> str:
    """Text with LaTeX's own characters escaped."""
    for plain, escaped in (
        ("\\", r"\textbackslash{}"), ("_", r"\_"), ("%", r"\%"), ("&", r"\&"), ("#", r"\#"), ("$", r"\$"),
        ("±", r"$\pm$"), ("Δ", r"$\Delta$"), (SAME, r"$\approx$"), ("≥", r"$\geq$"), ("<", r"$<$"),
    ):  # fmt: skip
        text = text.replace(plain, escaped)
    return text


def as_csv(records: Sequence[Record]) -> str:
    """For a spreadsheet."""
    text = io.StringIO()
    names = dict.fromkeys(name for record in records for name in record)
    writer = csv.DictWriter(text, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue().rstrip("\n")


def records_of(result: TableResult) -> list[Record]:
    """One a row and metric, then the floors' metrics: fractions, every seed's value."""
    found: list[Record] = []
    for row in result.rows:
        for metric, score in row.test.items():
            shared = {"dataset": result.dataset, "row": row.label, "method": row.method, "metric": metric}
            more = {"parameters": row.parameters, "paper": row.paper.get(metric), "runs": " ".join(row.runs)}
            compared = row.comparison if metric == result.primary else None
            tested = tested_record(compared, result.reach, row.budget)
            found.append({**shared, **score_record(score, row.seeds), **more, **tested})
    for name, scores in result.floors.items():
        floor = {"dataset": result.dataset, "row": f"{name} (floor)"}
        found += [{**floor, "metric": metric, "mean": value} for metric, value in scores.items()]
    return found


def score_record(score: Mapping[str, Any], seeds: Sequence[int]) -> Record:
    """Mean, deviation, every seed's value, and the seeds."""
    values = " ".join(f"{value:.6f}" for value in score["values"])
    return {"mean": score["mean"], "std": score["std"], "values": values, "seeds": " ".join(map(str, seeds))}


def tested_record(found: SeedTest | None, reach: Reach | None, budget: Mapping[str, int]) -> Record:
    """A comparison's numbers; empty where there is none, and for the interval of a table without a bootstrap."""
    numbers = {name: getattr(found, name, None) for name in COMPARED}
    epochs = " ".join(str(value) for value in sorted(set(budget.values())))
    return {**numbers, "sign_flip_reaches": found and reach and reach.reached, "epochs": epochs}
