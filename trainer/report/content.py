"""What a report says, gathered from the cache and from finished runs; it trains nothing."""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...cache import open_dataset
from ...cache.errors import NotFound
from ..data import random_encoders
from ..figures import draw
from ..figures import values as figure_values
from ..predictions import read_predictions
from ..request import Request
from ..tables.definitions import table_spec
from ..tables.plan import Cell, TablePlan, plan_table
from ..tables.render import SAME, captions, header, percent, row_cells
from ..tables.results import TableResult, results_of

TABLES = ("2", "3")
HARDEST = 12
# Dataset's folder and sample ids to what can be shown of them, objects with `text` and `picture`; the command line
# brings it from the pipeline, as this room never reads raw media.
Look = Callable[[str, Sequence[str]], Mapping[str, Any]]


@dataclass(frozen=True)
class Part:
    """A table of the report: its numbers, its plan, and the command that makes it."""

    result: TableResult
    plan: TablePlan
    command: str


def content(request: Request, seeds: int, look: Look) -> dict[str, Any]:
    """Everything the page shows. Raises NotFound where no run of any table is finished, saying what makes them."""
    assert request.dataset is not None
    dataset = open_dataset(request.features, request.dataset, request.version)
    parts = tables(request, seeds, dataset.card.task)
    if not parts:
        raise NotFound(
            f"No finished run of tables 2 or 3 on {request.dataset} with preset {request.preset} in {request.runs}. "
            f"Make some first: {command('table 3', request, seeds)}"
        )
    cells = {cell.run.id: cell for part in parts for cell in part.plan.cells if cell.run.finished}
    full = [cell for cell in parts[-1].plan.cells if cell.row.label == "PgM" and cell.run.finished]
    first = next(iter(cells.values()))
    features = first.resolved.data.features
    return {
        "dataset": request.dataset,
        "made": datetime.date.today().isoformat(),
        "card": dataset.card,
        "samples": parts[0].result.samples,
        "random": random_encoders(features),
        "notes": list(dict.fromkeys(note for part in parts for note in part.result.notes)),
        "encoders": [encoder(name, store) for name, store in widest(cells.values()).items()],
        "protocol": protocol(first),
        "tables": [table(part) for part in parts],
        "figures": figures(parts, full),
        "classes": per_class(full),
        "hardest": hardest(list(cells.values()), look, request.dataset),
        "runs": [run(cell) for cell in cells.values()],
        "same": SAME,
    }


def tables(request: Request, seeds: int, task: str) -> list[Part]:
    """The tables that have a finished run."""
    dataset = open_dataset(request.features, request.dataset or "", request.version)
    from ..data import modalities_in

    modalities = modalities_in(dataset, request.modalities)
    found = []
    for name in TABLES:
        plan = plan_table(table_spec(name, modalities, task), request, seeds)
        if any(cell.run.finished for cell in plan.cells):
            found.append(Part(results_of(plan), plan, command(f"table {name}", request, seeds)))
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
    from dataclasses import asdict

    return asdict(cell.resolved.protocol)


def table(part: Part) -> dict[str, Any]:
    """A table as the page prints it: cells as text, with the run ids behind each row."""
    result = part.result
    rows = [
        {"cells": row_cells(result, row), "runs": list(row.runs), "reference": row.label == result.reference}
        for row in result.rows
    ]
    width = len(header(result))
    for name, scores in result.floors.items():
        cells = [f"{name.replace('_', ' ')} (floor)", "", "", *(percent(scores.get(m)) for m in result.metrics)]
        rows.append({"cells": cells + [""] * (width - len(cells)), "runs": [], "reference": False})
    missing = len(part.plan.missing)
    return {
        "title": result.title,
        "header": header(result),
        "rows": rows,
        # What the whole page says is not said under every table again.
        "captions": [line for line in captions(result) if not line.startswith("note:")],
        "command": part.command,
        "missing": missing,
    }


def figures(parts: Sequence[Part], full: Sequence[Cell]) -> list[dict[str, str]]:
    """Inline SVGs with the words that stand for them."""
    dataset = parts[0].result.dataset
    found = []
    for part in parts:
        if part.plan.spec.name == "3" and len([row for row in part.result.rows if row.test]) > 1:
            text = "Test results of PgM and of PgM without each module; the numbers are those of Table 3."
            found.append(("Ablation", text, draw.ablation(part.result)))
    if full:
        gates = figure_values.gate_values(full)
        told = "; ".join(
            f"{name}: " + ", ".join(f"{share} {np.mean(several):.0f} %" for share, several in shares.items())
            for name, shares in gates.shares.items()
        )
        found.append(
            (
                "Gates (Figure 4)",
                f"Shares of features by the partitioner's gates. {told}. In our study on tasks with known information "
                "(docs/gates-study.md) these shares did not follow what a modality knows: read them as what the model "
                "uses, not as what the data hold.",
                draw.gates(gates, dataset),
            )
        )
        losses = figure_values.loss_values([cell.run for cell in full])
        text = "Training losses of the second stage over its epochs, mean and range over seeds."
        found.append(("Losses (Figure 5)", text, draw.losses(losses, dataset)))
        if getattr(full[0].resolved.data.task, "classes", ()) and full[0].resolved.data.card.task != "retrieval":
            matrix = figure_values.confusion_values(full)
            text = "Confusion of PgM on the test split, all seeds together; the per-class table below has its diagonal."
            found.append(("Confusion", text, draw.confusion(matrix, dataset)))
        tokens = figure_values.token_values(full[0])
        found.append(("Tokens", "Tokens a sample, by modality.", draw.tokens(tokens, dataset)))
    return [{"title": title, "text": text, "svg": draw.as_svg(figure)} for title, text, figure in found]


def per_class(full: Sequence[Cell]) -> list[dict[str, Any]]:
    """Precision, recall and F1 of every class, PgM's seeds together; empty for tasks without classes."""
    if not full or full[0].resolved.data.card.task == "retrieval":
        return []
    classes = getattr(full[0].resolved.data.task, "classes", ())
    if not classes:
        return []
    counts = figure_values.confusion_values(full).counts
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
    classes = getattr(task, "classes", ())
    for cell in cells:
        path = cell.run.predictions("test")
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
