"""`pgm demo`: the main job on the embedded dataset: extract once, train PgM and its plainest rivals, compare on
test."""

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
from .trainer import train
from .trainer.run.display import TrainingDisplay

METHODS = ("pgm", "concat", "audio", "vision", "text")
DATASET = "digits"
# Two thirds of the small preset's epochs, for every method alike: two minutes have to do on a busy machine too.
SETTINGS = {"pretrain_epochs": 2, "epochs": 8}


def demo(features: Place, runs: Path | str, workers: int | None) -> dict[str, Any]:
    """Extract `digits`, train the demo's methods, print the table; returns the results by method."""
    began = time.perf_counter()
    say = Console(stderr=True, highlight=False, soft_wrap=True)
    say.print("1. Frozen encoders, once (tiny ones with random weights: no download)")
    with ExtractionDisplay() as display:
        extract(load_dataset(DATASET), features, ExtractOptions(workers=workers), display)
    extracted = time.perf_counter() - began
    say.print("\n2. Heads trained from the cache")
    with TrainingDisplay() as shown:
        finished = {
            method: train(features, DATASET, method, runs=runs, settings=SETTINGS, listener=shown) for method in METHODS
        }
    results: dict[str, Any] = {method: run.result for method, run in finished.items()}
    say.print()
    show(results)
    print(NEXT.format(extracted=extracted, total=time.perf_counter() - began, features=features, runs=runs))
    return results


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
  {runs}/                                   every run: config, metrics per epoch, predictions, weights
  {features}/digits/                        the cache: pgm cache ls, pgm cache verify
  pgm train --cached --method concat --seeds 5
  pgm extract av_mnist --root DIR           real images and sounds (pgm datasets show av_mnist)"""
