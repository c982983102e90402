"""`pgm demo`: the main job on the embedded dataset: extract once, train PgM and its plainest rivals, compare on test.

It encodes in this process unless workers are asked for: starting one takes longer than encoding these few samples.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from .cache import Place
from .console import ExtractionDisplay, wide_console
from .pipeline import ExtractOptions, extract, load_dataset
from .pipeline.examples import examples
from .trainer import train
from .trainer.report.commands import page
from .trainer.report.content import content
from .trainer.run.display import TrainingDisplay
from .trainer.run.files import write_atomically
from .trainer.run.request import Request
from .trainer.studies.engine.draw import figure_of, save

METHODS = ("pgm", "concat", "audio", "vision", "text")
DATASET = "digits"
# Fewer epochs and larger batches than the small preset's, for every method alike: forty seconds have to do.
SETTINGS = {"pretrain_epochs": 1, "epochs": 5, "batch": 64, "lr": 1.8e-3, "lr_learners": 6e-4, "lr_decoder": 6e-3}
FIGURES = Path("figures")


def demo(features: Place, runs: Path | str, workers: int | None) -> dict[str, Any]:
    """Extract `digits`, train the demo's methods, print the table, draw it, write the report; the results by method."""
    began = time.perf_counter()
    say = Console(stderr=True, highlight=False, soft_wrap=True)
    say.print("1. Frozen encoders, once (tiny ones with random weights: no download)")
    with ExtractionDisplay() as display:
        options = ExtractOptions(workers=workers, executor="dask" if workers else "serial")
        extract(load_dataset(DATASET), features, options, display)
    extracted = time.perf_counter() - began
    say.print("\n2. Heads trained from the cache")
    with TrainingDisplay() as shown:
        finished = {
            method: train(features, DATASET, method, runs=runs, settings=SETTINGS, listener=shown) for method in METHODS
        }
    results: dict[str, Any] = {method: run.result for method, run in finished.items()}
    say.print()
    show(results)
    figure, _ = draw(results)
    report = write_report(Request(features, runs, dataset=DATASET, settings=SETTINGS))
    total = time.perf_counter() - began
    print(
        NEXT.format(extracted=extracted, total=total, features=features, runs=runs, figure=figure, page=report.as_uri())
    )
    return results


def draw(results: Mapping[str, Any]) -> list[Path]:
    """The table as bars, with the linear probe as a line: a PNG and an SVG."""
    figure, axes = figure_of(5.5, 3.0)
    axes.bar(list(results), [result["test"]["accuracy"] for result in results.values()])
    probe = results[METHODS[0]]["floors"]["linear_probe"]["accuracy"]
    axes.axhline(probe, color="black", linestyle="--")
    axes.text(len(results) - 0.5, probe + 0.01, "linear probe", ha="right", va="bottom")
    axes.set(ylabel="test accuracy", ylim=(0, 1), title=f"{DATASET}, one seed, random encoders")
    return save(figure, FIGURES / f"{DATASET}-demo")


def write_report(request: Request) -> Path:
    """`pgm report` of the demo's runs."""
    found = content(request, 1, lambda name, ids: examples(name, None, ids))
    path = (FIGURES / f"{DATASET}-demo.html").absolute()
    write_atomically(path, page(found).encode())
    return path


def show(results: Mapping[str, Any]) -> None:
    """The comparison on the test split, with the floors any method has to beat, on stdout."""
    table = Table(title=f"{DATASET}: test split, one seed, encoders with random weights", box=box.SIMPLE)
    for name in ("method", "accuracy", "weighted F1", "parameters", "seconds"):
        table.add_column(name, justify="left" if name == "method" else "right")
    for method, result in results.items():
        scores = (f"{result['test'][metric]:.3f}" for metric in ("accuracy", "weighted_f1"))
        table.add_row(method, *scores, f"{result['parameters']:,}", f"{result['seconds']:.1f}")
    for floor, scores in results[METHODS[0]]["floors"].items():
        table.add_row(floor.replace("_", " "), f"{scores['accuracy']:.3f}", f"{scores['weighted_f1']:.3f}", "", "")
    wide_console().print(table)


NEXT = """
Extraction {extracted:.0f} s, all {total:.0f} s. One seed on random encoders: a demonstration, not a comparison.
Look next at
  {page}
  {figure}
  {runs}/                                   every run: config, metrics per epoch, predictions, weights
  {features}/digits/                        the cache: pgm cache ls, pgm cache verify
  pgm train --cached --method concat --seeds 5
  pgm extract av_mnist --root DIR           real images and sounds (pgm datasets show av_mnist)"""
