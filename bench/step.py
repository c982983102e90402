"""A training step of every method, operation by operation: what a GPU would have to launch, and where it would wait.

    .venv/bin/python bench/step.py [--methods pgm concat] [--top] [--against CHECKOUT]

Small preset, batch 32, three modalities of 1 to 16 tokens, resident feed. leaves: operations that reach a device, below
autograd, each counted once, optimiser included; views among them launch nothing. reads: operations whose result the
host must see, hence a wait on a GPU. --top: what the leaves are. --against: training speed here and in another checkout
of this project, epoch by epoch in turns, and the ratio of the medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from pgm.trainer.methods.registry import known_methods
from pgm.trainer.run.events import BatchFinished
from pgm.trainer.run.request import Request, resolve
from pgm.trainer.run.training import Execution, carry_out
from torch.utils._python_dispatch import TorchDispatchMode
from train import make_dataset

SHAPES = {"text": (16, 768), "vision": (16, 768), "audio": (16, 128)}
SCORES = ("self_mm", "mmim")  # methods that predict scores only
SAMPLES, BATCH, EPOCHS = 356, 32, 12
# What hands the host a number of the device's, or a size that follows from one.
READS = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "_unique2", "unique_consecutive"}
STEP = f"""
import sys, tempfile, torch
from pgm.trainer.run.events import EpochFinished
from pgm.trainer.run.request import Request, resolve
from pgm.trainer.run.training import Execution, carry_out

def turn(event):
    if isinstance(event, EpochFinished):
        print(event.stage, 1000 * {BATCH} / event.samples_per_second, flush=True)
        sys.stdin.readline()

with tempfile.TemporaryDirectory() as runs:
    settings = {{"batch": {BATCH}, "pretrain_epochs": {EPOCHS}, "epochs": {EPOCHS}}}
    carry_out(resolve(Request(sys.argv[1], runs, method=sys.argv[2], settings=settings)), Execution(listener=turn))
"""


class Leaves(TorchDispatchMode):
    """Counts operations, and keeps the counts at the end of every step of a stage."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()
        self.views = self.reads = 0
        self.steps: dict[str, list[tuple[int, int, int]]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.names[name] += 1
        self.views += func.is_view
        # Indexing by a mask counts its true elements first.
        masked = name in ("index", "index_put", "index_put_") and any(
            x is not None and x.dtype == torch.bool for x in args[1]
        )
        self.reads += name in READS or masked
        return func(*args, **(kwargs or {}))

    def note(self, event: object) -> None:
        if isinstance(event, BatchFinished):
            self.steps.setdefault(event.stage, []).append((self.names.total(), self.views, self.reads))

    def a_step(self, stage: str) -> list[float]:
        """Leaves, views and reads of a step, averaged over all but the first, which sets the optimiser up."""
        first, last = self.steps[stage][0], self.steps[stage][-1]
        return [(b - a) / (len(self.steps[stage]) - 1) for a, b in zip(first, last, strict=True)]


def counted(root: Path, runs: Path, method: str) -> Leaves:
    """An epoch of each of the method's stages under the count."""
    settings = {"batch": BATCH, "pretrain_epochs": 1, "epochs": 1}
    resolved = resolve(Request(root, runs, method=method, settings=settings))
    with Leaves() as leaves:
        carry_out(resolved, Execution(feed="resident", force=True, listener=leaves.note))
    return leaves


def milliseconds(root: Path, method: str, checkouts: list[Path]) -> list[dict[str, float]]:
    """Stage -> median milliseconds of a step in each checkout; their processes train one epoch each, in turns."""
    with tempfile.TemporaryDirectory() as folder:
        running = []
        for number, checkout in enumerate(checkouts):
            place = Path(folder) / str(number)
            place.mkdir()
            (place / "pgm").symlink_to(checkout.resolve())
            command = [sys.executable, "-c", STEP, str(root), method]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            running.append(subprocess.Popen(command, cwd=place, env={**os.environ, "PYTHONPATH": str(place)}, **pipes))
        times: list[dict[str, list[float]]] = [{} for _ in checkouts]
        lines = [process.stdout.readline() for process in running]
        while all(lines):
            for kept, line in zip(times, lines, strict=True):
                stage, value = line.split()
                kept.setdefault(stage, []).append(float(value))
            lines = []
            for process in running:
                process.stdin.write("\n")
                process.stdin.flush()
                lines.append(process.stdout.readline())
        for process in running:
            process.communicate()
    return [{stage: statistics.median(values[1:]) for stage, values in kept.items()} for kept in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=list(known_methods(("text",))))
    parser.add_argument("--top", action="store_true")
    parser.add_argument("--against", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root, runs = Path(folder), Path(folder) / "runs"
        for task in ("classification", "sentiment"):
            make_dataset(root / task, SAMPLES, SHAPES, ragged=True, task=task)
        print(f"{'method':18} {'stage':14} {'leaves':>8} {'views':>8} {'reads':>8}   a step")
        for method in given.methods:
            data = root / ("sentiment" if method.startswith(SCORES) else "classification")
            if given.against:
                ours, theirs = milliseconds(data, method, [Path(__file__).parents[1], given.against])
                for stage, value in ours.items():
                    ratio = theirs[stage] / value
                    print(f"{method:18} {stage:14} {value:8.2f} ms, there {theirs[stage]:8.2f} ms: {ratio:.2f} times")
                continue
            leaves = counted(data, runs, method)
            for stage in leaves.steps:
                print(f"{method:18} {stage:14}", *(f"{value:8,.1f}" for value in leaves.a_step(stage)))
            if given.top:
                print(*(f"    {name:36} {count:8,}" for name, count in leaves.names.most_common(30)), sep="\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
