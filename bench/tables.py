"""The table runner: what two workers bring, what it costs, how fast a finished table answers. `make bench-tables`.

    python bench/tables.py              Table 3 on digits with one worker and with two, its overhead, warm
    python bench/tables.py --cold       Table 3 on digits, small preset, 3 seeds, every core: the promise is 6 minutes
    python bench/tables.py --paper      the plan of the paper's sizes on stand-in caches, from measured step times

Overhead is the wall time of `pgm table --workers 1` over the sum of its runs' own times, both with the process started
anew; the import of torch is part of the wall time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from pgm.cache import DatasetCard, publish, storage_at
from random_store import random_store

PGM = [sys.executable, "-c", "import sys; from pgm.cli import main; sys.argv[0] = 'pgm'; main()"]
# What the paper's Table 1 and its encoders give: samples, modalities with tokens a sample, task.
PAPER = {
    "food101": (90_686, {"text": 16, "vision": 50}, "classification", 101),
    "mosi": (2_199, {"text": 50, "audio": 50, "vision": 50}, "sentiment", 0),
}


def pgm(arguments: Sequence[str], folder: Path) -> tuple[float, str]:
    """Seconds of a command as its user types it, and what it printed."""
    begun = time.perf_counter()
    done = subprocess.run([*PGM, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return time.perf_counter() - begun, done.stdout


def runner(folder: Path) -> None:
    """A short Table 3 on digits (1 + 3 epochs, one seed) with one worker, with two, and warm."""
    short = ["table", "3", "--dataset", "digits", "--seeds", "2", "--epochs", "6", "--pretrain-epochs", "2", "--json"]
    walls = {}
    for workers in (1, 2):
        walls[workers], text = pgm([*short, "--workers", str(workers), "--runs", f"runs{workers}"], folder)
        spent = sum(row["seconds"] for row in json.loads(text)["rows"])
        print(
            f"{workers} worker{'s' * (workers > 1)}: {walls[workers]:.1f} s for 10 runs, of their own {spent:.1f} s",
            flush=True,
        )
        if workers == 1:
            print(f"overhead of the runner with one worker: {100 * (walls[1] / spent - 1):.1f} %")
    print(f"two workers over one: {walls[1] / walls[2]:.2f}x")
    warm, _ = pgm([*short, "--runs", "runs1"], folder)
    print(f"the same table again: {warm:.1f} s")


def cold(folder: Path) -> None:
    """The issue's table, from nothing."""
    table = ["table", "3", "--dataset", "digits", "--seeds", "3"]
    seconds, _ = pgm(table, folder)
    warm, text = pgm(table, folder)
    print(text)
    print(f"Table 3 on digits, small preset, 3 seeds: {seconds:.0f} s cold, {warm:.1f} s warm")
    workers = len(os.sched_getaffinity(0))
    spent = sum(row["seconds"] for row in json.loads(pgm([*table, "--json"], folder)[1])["rows"])
    told = f"{workers} workers x {seconds:.0f} s over the runs' own {spent:.0f} s"
    print(f"overhead of the runner, its idle end included: {100 * (workers * seconds / spent - 1):.1f} % ({told})")


def stand_in(root: Path, name: str) -> None:
    """A cache of the paper's size in samples and tokens, of random numbers; segments repeat one block."""
    count, modalities, task, classes = PAPER[name]
    generator = np.random.default_rng(0)
    splits = np.where(np.arange(count) % 10 < 7, "train", np.where(np.arange(count) % 10 < 8, "val", "test"))
    labels = generator.integers(0, classes, count).astype(np.int32) if classes else generator.uniform(-3, 3, count)
    ids = [f"{row:06d}" for row in range(count)]
    metrics = ("accuracy",) if classes else ("mae",)
    card = DatasetCard(name, task, tuple(map(str, range(classes))), metrics)  # type: ignore[arg-type]
    dataset, stores = storage_at(root / name), {}
    for modality, tokens in modalities.items():
        folder, version = random_store(dataset, modality, ids, np.full(count, tokens), 768, "stand-in")
        stores[folder] = version
    publish(dataset, card, pa.table({"id": ids, "split": splits.tolist(), "label": labels}), stores)


def paper(folder: Path) -> None:
    """`pgm table 3 --preset paper --plan`, five seeds, from steps measured here."""
    for name in ("mosi", "food101"):
        stand_in(folder / "features", name)
        plan = ["table", "3", "--dataset", name, "--preset", "paper", "--seeds", "5", "--plan", "--json"]
        seconds, text = pgm(plan, folder)
        told = json.loads(text)
        hours = told["seconds_in_all"] / 3600
        print(
            f"{name}, paper preset, 5 seeds, {torch.get_num_threads()} threads: {hours:,.1f} hours "
            f"(planned in {seconds:.0f} s)"
        )
        for row in told["rows"]:
            print(f"  {row['row']:<26} {row['seconds_a_run'] / 3600:>7.2f} hours a run")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--paper", action="store_true")
    chosen = parser.parse_args()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    print(
        f"{date.today()}, {len(os.sched_getaffinity(0))} cores, {platform.machine()}, {device}, "
        f"torch {torch.__version__}"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if chosen.paper:
            paper(folder)
            return
        pgm(["extract", "digits"], folder)
        cold(folder) if chosen.cold else runner(folder)


if __name__ == "__main__":
    main()
