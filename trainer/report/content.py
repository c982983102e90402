"""What a report says, gathered from the cache and from finished runs; it trains nothing."""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...cache import open_dataset
from ...cache.errors import NotFound, UserError
from ..data.dataset import random_encoders
from ..run.predictions import read_predictions
from ..run.request import Request
from ..studies import studies
from ..studies.confusion import counted
from ..studies.engine.draw import as_svg
from ..studies.engine.options import StudyOptions
from ..studies.engine.plan import Cell, TablePlan, plan_table
from ..studies.engine.render import SAME, Sheet, percent
from ..studies.engine.study import Study

FULL = "pgm"
HARDEST = 12
# Dataset's folder and sample ids to what can be shown of them, objects with `text` and `picture`; the command line
# brings it from the pipeline, as this room never reads raw media.
Look = Callable[[str, Sequence[str]], Mapping[str, Any]]


@dataclass(frozen=True)
class Part:
    """A study of the report: its numbers, its plan, and the command that makes it."""

    study: Study
    plan: TablePlan
    results: Any
    command: str


def content(request: Request, seeds: int, look: Look) -> dict[str, Any]:
    """Everything the page shows. Raises NotFound where no run of any study is finished, saying what makes them."""
    assert request.dataset is not None
    dataset = open_dataset(request.features, request.dataset, request.version)
    parts = parts_of(request, seeds)
    cells = {cell.run.id: cell for part in parts for cell in part.plan.cells if cell.run.finished}
    if not cells:
        raise NotFound(
            f"No finished run of a table on {request.dataset} with preset {request.preset} in {request.runs}. "
            f"Make some first: {command('table 3', request, seeds)}"
        )
    full = [cell for cell in cells.values() if cell.row.method == FULL and not cell.row.settings]
    first = next(iter(cells.values()))
    data = first.resolved.data
    return {
        "dataset": request.dataset,
        "made": datetime.date.today().isoformat(),
        "card": dataset.card,
        "samples": {split: len(rows) for split, rows in data.splits.items()},
        "random": random_encoders(data.features),
        "notes": list(dict.fromkeys(note for cell in cells.values() for note in cell.run.result["notes"])),
        "encoders": [encoder(name, store) for name, store in widest(cells.values()).items()],
        "protocol": protocol(first),
        "tables": [table(part, sheet) for part in parts if part.study.has_table for sheet in sheets(part)],
        "figures": [figure(part) for part in parts if part.study.has_figure],
        "classes": per_class(full),
        "hardest": hardest(list(cells.values()), look, request.dataset),
        "runs": [run(cell) for cell in cells.values()],
        "same": SAME,
    }


def parts_of(request: Request, seeds: int) -> list[Part]:
    """The studies whose runs are there, in part at least; what a dataset cannot have is not in its report."""
    found = []
    for study in studies().values():
        try:
            plan = plan_table(study.spec(request, StudyOptions()), request, seeds)
        except UserError:
            continue
        if study.ready(plan):
            kind = "table" if study.has_table else "figure"
            found.append(Part(study, plan, study.results(plan), command(f"{kind} {study.name}", request, seeds)))
    return found


def command(verb: str, request: Request, seeds: int) -> str:
    """The command line that makes a table of these runs."""
    parts = ["pgm", *verb.split(), "--dataset", str(request.dataset), "--seeds", str(seeds)]
    if request.seed:
        parts += ["--seed", str(request.seed)]
    if request.preset != "small":
        parts += ["--preset", request.preset]
    for name, value in request.settings.items():
        parts += ["--set", f"{name}={value}"]
    for name in request.modalities or ():
        parts += ["--modality", name]
    for name, value in request.stores.items():
        parts += ["--store", f"{name}={value}"]
    if request.folds is not None:
        parts += ["--folds", str(request.folds.of or "own"), *(["--by", request.folds.by] if request.folds.by else [])]
    if request.split is not None:
        parts += ["--split", request.split]
    if request.version is not None:
        parts += ["--version", str(request.version)]
    if str(request.features) != "features":
        parts += ["--features", str(request.features)]
    if str(request.runs) != "runs":
        parts += ["--runs", str(request.runs)]
    return shlex.join(parts)


def widest(cells: Any) -> Mapping[str, Any]:
    """The stores of the run that reads the most modalities."""
    return max((cell.resolved.data.features for cell in cells), key=len)


def encoder(modality: str, store: Any) -> dict[str, Any]:
    """One modality's encoder and store, as the report tells it."""
    fields = store.identity.fields
    random = bool(fields.get("random_weights"))
    weights = str(fields.get("weights", fields.get("digest", "")))[:12]
    return {
        "modality": modality,
        "encoder": store.identity.encoder,
        "revision": fields.get("revision") or ("none: random weights" if random else fields.get("provenance", "local")),
        "weights": weights,
        "random": random,
        "layer": fields.get("layer"),
        "pooling": fields.get("pooling", ""),
        "store": store.identity.digest,
        "dim": store.dim,
        "tokens": int(store.lengths.sum()),
        "longest": int(store.lengths.max(initial=0)),
        "stored": fields.get("stored_dtype", ""),
    }


def protocol(cell: Cell) -> dict[str, Any]:
    """The switches every run had."""
    return cell.resolved.protocol.describe()


def sheets(part: Part) -> list[Sheet]:
    """A study's tables."""
    return part.study.sheets(part.results)


def table(part: Part, sheet: Sheet) -> dict[str, Any]:
    """A table as the page prints it: cells as text, with the run ids behind each row."""
    runs = {row.label: [cell.run.id for cell in part.plan.of(row) if cell.run.finished] for row in part.plan.spec.rows}
    rows = [
        {"cells": cells, "runs": runs.get(cells[0], []), "reference": cells[0] == part.plan.spec.reference}
        for block in sheet.blocks
        for cells in block
    ]
    return {
        "title": sheet.title,
        "header": sheet.names,
        "rows": rows,
        # What the whole page says is not said under every table again.
        "captions": [line for line in sheet.captions if not line.startswith("note:")],
        "command": part.command,
        "missing": len(part.plan.missing),
    }


def figure(part: Part) -> dict[str, str]:
    """Inline SVG with the words that stand for it."""
    drawn = part.study.figure(part.plan, part.results)
    return {
        "title": part.plan.spec.title,
        "text": part.study.alt_text(part.plan, part.results),
        "svg": as_svg(drawn),
    }


def per_class(full: Sequence[Cell]) -> list[dict[str, Any]]:
    """Precision, recall and F1 of every class, PgM's seeds together; empty for tasks that predict no class."""
    task = full[0].resolved.data.task if full else None
    if task is None or task.cross_modal or not task.classes:
        return []
    classes, counts = task.classes, counted(full)
    found = []
    for place, name in enumerate(classes):
        hits, called, there = counts[place, place], counts[:, place].sum(), counts[place].sum()
        precision, recall = hits / max(called, 1), hits / max(there, 1)
        f1 = 2 * precision * recall / max(precision + recall, 1e-12)
        found.append(
            {"name": name, "precision": precision, "recall": recall, "f1": f1, "test": int(there) // len(full)}
        )
    return found


def hardest(cells: Sequence[Cell], look: Look, folder: str) -> list[dict[str, Any]]:
    """The test samples that the fewest runs got right; all runs of all rows count the same."""
    scores: list[Any] = []
    ids: list[str] = []
    targets: list[Any] = []
    guesses: dict[str, dict[str, int]] = {}
    task = cells[0].resolved.data.task
    classes = task.classes
    for cell in cells:
        path = cell.run.predictions_path("test")
        if not path.exists():
            continue
        read = read_predictions(path)
        if ids and read["id"].tolist() != ids:
            continue
        ids, targets = read["id"].tolist(), read["target"].tolist()
        scores.append(task.sample_scores(read).each)
        if "predicted_class" in read:
            for name, guess in zip(ids, read["predicted_class"].tolist(), strict=True):
                guesses.setdefault(name, {})[guess] = guesses.get(name, {}).get(guess, 0) + 1
    if not scores:
        return []
    # A sample that no metric counts has no score, and is not hard.
    mean = np.mean(scores, axis=0)
    order = np.argsort(mean, kind="stable")[: min(HARDEST, int(np.isfinite(mean).sum()))]
    shown = look(folder, [ids[row] for row in order])
    return [
        {
            "id": ids[row],
            "score": float(mean[row]),
            "runs": len(scores),
            "truth": classes[targets[row]] if classes and isinstance(targets[row], int) else f"{targets[row]:g}",
            "guess": max(guesses[ids[row]], key=lambda g: guesses[ids[row]][g]) if ids[row] in guesses else "",
            "text": getattr(shown.get(ids[row]), "text", None),
            "picture": getattr(shown.get(ids[row]), "picture", None),
        }
        for row in order
    ]


def run(cell: Cell) -> dict[str, Any]:
    """One run's line."""
    result = cell.run.result
    return {
        "id": cell.run.id,
        "label": cell.row.label,
        "seed": cell.seed,
        "parameters": result["parameters"],
        "seconds": result["seconds"],
        "test": {name: percent(value) for name, value in result["test"].items()},
    }
