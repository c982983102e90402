"""The balance table as text: three stacked tables for people, one long one for programs."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Callable, Sequence
from typing import Any

from .balance import BalanceResult, RowLaziness, Score
from .render import TESTED, Sheet, as_csv, as_latex, as_markdown, as_rich, sheet_of, spread_cell


def sheets(result: BalanceResult) -> list[Sheet]:
    """Scores with all modalities; each modality alone beside its twin; how score and gradients are shared."""
    table = result.table
    short = dataclasses.replace(table, metrics=(table.primary,))
    return [sheet_of(short), alone_sheet(result), share_sheet(result)]


def alone_sheet(result: BalanceResult) -> Sheet:
    """Per modality the joint model's score with it alone, and how far its twin is above."""
    names = ["method", *(name for m in result.modalities for name in (f"{m} inside", f"{m} under-use"))]
    rows = [
        [row.label, *(cell(of.get(m)) for m in result.modalities for of in (row.inside, row.underuse))]
        for row in result.rows
    ]
    twins = ["uni-modal twin", *(text for m in result.modalities for text in (cell(result.twins.get(m)), ""))]
    captions = [
        f"inside: test {result.table.primary} of the joint model shown this modality alone, the others missing "
        "(skipped, not zero-filled); times 100.",
        "under-use: the modality's uni-modally trained twin (single:NAME, same seed) minus inside; above 0, joint "
        "training has left it behind.",
        "A fusion that was never trained on incomplete samples also loses by their being new to it; modality_dropout "
        "is trained on them.",
    ]
    return Sheet("Each modality inside the joint model", names, [rows, [twins]], captions)


def share_sheet(result: BalanceResult) -> Sheet:
    """Modality gap, Shapley shares and gradient shares."""
    names = ["method", "gap", *(f"{kind} {m}" for kind in ("Shapley", "gradient") for m in result.modalities), "ratio"]
    captions = [
        "gap: distance between the centres of the modalities' vectors of length 1 (trunk outputs; PgM: fused "
        "vectors of one modality).",
        "It is blank for the ensemble, whose members, trained apart, share no space, and a mean over pairs for three "
        "and more.",
        "Shapley: share in % of what the model adds to the majority guess, negative where a modality takes from it; "
        "blank where nothing is added.",
        "gradient: share in % of the mean gradient norms of each modality's own parameters, before clipping; ratio: "
        "largest over smallest norm.",
    ]
    return Sheet(
        "What the modalities contribute", names, [[shares(row, result.modalities) for row in result.rows]], captions
    )


def shares(row: RowLaziness, modalities: Sequence[str]) -> list[str]:
    """One method's cells of the third table."""
    parts = [cell(of.get(m), 1) for of in (row.shapley, row.gradients) for m in modalities]
    return [row.label, plain(row.gap, 3), *parts, plain(row.ratio, 1)]


def cell(score: Score | None, digits: int = 2) -> str:
    """Times 100; blank for None."""
    return "" if score is None else spread_cell(score, digits)


def plain(score: Score | None, digits: int) -> str:
    """As it is; blank for None."""
    if score is None:
        return ""
    mean = f"{score['mean']:.{digits}f}"
    return f"{mean} ± {score['std']:.{digits}f}" if len(score["values"]) > 1 else mean


def stacked(form: Callable[[Sheet], str]) -> Callable[[BalanceResult], str]:
    """The three tables one under another."""
    return lambda result: "\n\n".join(form(sheet) for sheet in sheets(result))


def as_long_csv(result: BalanceResult) -> str:
    """The table's own lines, then one a method and measure: inside:NAME, underuse:NAME, gap, shapley:NAME, ..."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    told = {row.label: row for row in result.table.rows}
    for row in result.rows:
        own = told[row.label]
        seeds, runs = " ".join(map(str, row.seeds)), " ".join(own.runs)
        for name, score in measures(row):
            values = " ".join(f"{value:.6f}" for value in score["values"])
            numbers = [score["mean"], score["std"], values, seeds, own.parameters, "", runs]
            writer.writerow([result.table.dataset, row.label, own.method, name, *numbers, *[""] * len(TESTED)])
    return (as_csv(result.table) + "\n" + text.getvalue()).rstrip("\n")


def measures(row: RowLaziness) -> list[tuple[str, dict[str, Any]]]:
    """Every measure of a method that has a value, by name."""
    kinds = {"inside": row.inside, "underuse": row.underuse, "shapley": row.shapley, "gradients": row.gradients}
    found = [(f"{kind}:{m}", score) for kind, scores in kinds.items() for m, score in scores.items()]
    return found + [(name, s) for name, s in (("gap", row.gap), ("gradient_ratio", row.ratio)) if s is not None]


def as_json(result: BalanceResult) -> str:
    """Everything, every value."""
    return json.dumps(result.as_dict(), indent=1)


FORMATS: dict[str, Callable[[BalanceResult], str]] = {
    "rich": stacked(as_rich),
    "markdown": stacked(as_markdown),
    "latex": stacked(as_latex),
    "csv": as_long_csv,
    "json": as_json,
}
