"""`pgm demo`: the main job on the embedded dataset: extract once, train PgM and its plainest rivals, compare on
test."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rich.console import Console

from .console import ExtractionDisplay
from .pipeline import extract, load_dataset
from .trainer import train
from .trainer.display import TrainingDisplay, results_table

METHODS = ("pgm", "concat", "audio", "vision", "text")
DATASET = "digits"


def demo(features: Path, runs: Path, workers: int | None) -> dict[str, Any]:
    """Extract `digits`, train the demo's methods, print the table; returns the results by method."""
    from .pipeline import ExtractOptions

    began = time.perf_counter()
    say = Console(stderr=True, highlight=False, soft_wrap=True)
    say.print("1. Frozen encoders, once (tiny ones with random weights: no download)")
    with ExtractionDisplay() as display:
        extract(load_dataset(DATASET), features, ExtractOptions(workers=workers), display)
    extracted = time.perf_counter() - began
    say.print("\n2. Heads trained from the cache")
    with TrainingDisplay() as shown:
        finished = {method: train(features, DATASET, method, runs=runs, listener=shown) for method in METHODS}
    results: dict[str, Any] = {method: run.result for method, run in finished.items()}
    rows = {method: result["test"] for method, result in results.items()} | results["pgm"]["floors"]
    say.print()
    Console(soft_wrap=True).print(results_table(f"{DATASET}, test split, one seed", rows))
    print(NEXT.format(extracted=extracted, total=time.perf_counter() - began, features=features, runs=runs))
    return results


NEXT = """
Extraction {extracted:.0f} s, all {total:.0f} s. One seed on random encoders: a demonstration, not a comparison.
Look next at
  {runs}/                                   every run: config, metrics per epoch, predictions, weights
  {features}/digits/                        the cache: pgm cache ls, pgm cache verify
  pgm train --cached --method concat --seeds 5
  pgm extract av_mnist --root DIR           real images and sounds (see README.md)"""
