"""Self-MM and MMIM beside the package MMSA's, on the same vectors, split, schedule and number of seeds.

    python -m venv /tmp/mmsa && /tmp/mmsa/bin/pip install MMSA==2.2.1
    .venv/bin/python bench/parity_mmsa.py --peer-python /tmp/mmsa/bin/python --features features-mosi [--seeds 5]

MMSA trains its own models by its own loop (parity_mmsa_peer.py); only its text encoder is replaced, by the cached
vectors both sides read, standardised by the statistics of the training split. Both sides have Adam without weight
decay, one learning rate, the same batch, early stopping after eight epochs without a better validation error, and
MMSA's sizes with one LSTM size for all modalities. What cannot be the same is the order of random numbers; so what is
compared is the mean over seeds: within one standard deviation (of the seeds, the larger side's) is parity.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pgm.trainer import train
from pgm.trainer.run.model import Standardize, measured_statistics
from pgm.trainer.run.request import Request, Resolved, resolve
from pgm.trainer.run.training import feed_of

# Our metric -> MMSA's.
METRICS = {
    "acc2_has0": "Has0_acc_2",
    "acc2_non0": "Non0_acc_2",
    "f1_has0": "Has0_F1_score",
    "f1_non0": "Non0_F1_score",
    "acc5": "Mult_acc_5",
    "acc7": "Mult_acc_7",
    "mae": "MAE",
    "corr": "Corr",
}
COMMON = {"epochs": 200, "pretrain_epochs": 0, "lr": 1e-3, "weight_decay": 0, "patience": 8, "precision": "fp32"}
OURS: Mapping[str, Mapping[str, Any]] = {
    "self_mm": {**COMMON, "batch": 16, "clip": 0},
    "mmim": {**COMMON, "batch": 32, "clip": 1},
}
SELF_MM_SIZES = {
    "a_lstm_hidden_size": 32,
    "v_lstm_hidden_size": 32,
    "audio_out": 32,
    "video_out": 32,
    "post_audio_dim": 32,
}
THEIRS: Mapping[str, Mapping[str, Any]] = {
    "self_mm": {
        **SELF_MM_SIZES,
        "post_video_dropout": 0.1,
        "update_epochs": 1,  # a step a batch
        **{f"learning_rate_{part}": 1e-3 for part in ("bert", "audio", "video", "other")},
        **{f"weight_decay_{part}": 0.0 for part in ("bert", "audio", "video", "other")},
    },
    "mmim": {f"weight_decay_{part}": 0.0 for part in ("bert", "main", "mmilb")},
}


def vectors_of(resolved: Resolved) -> dict[str, np.ndarray]:
    """What our model sees of every split: standardised vectors (N, D) and scores."""
    data = resolved.data
    standardize = Standardize(measured_statistics(data.features, data.splits["train"]))
    found: dict[str, np.ndarray] = {}
    for split, name in {"train": "train", "val": "valid", "test": "test"}.items():
        feed = feed_of(resolved, split, "resident")
        batch = feed.fetch(np.arange(len(feed)))
        shown = standardize(batch.inputs)
        found |= {f"{name}_{m}": x[:, 0].numpy() for m, x in shown.tokens.items()}
        found[f"{name}_labels"] = batch.targets.numpy()
    return found


def theirs(python: str, resolved: Resolved, method: str, seeds: int) -> list[dict[str, Any]]:
    """MMSA's runs: metrics, parameters and seconds of each seed."""
    changes = dict(THEIRS[method])
    if method == "self_mm":
        changes["text_out"] = resolved.data.widths["text"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vectors.npz"
        np.savez(file, **vectors_of(resolved))
        numbers = [str(1111 + i) for i in range(seeds)]
        said = told_by_peer(python, "parity_mmsa_peer.py", str(file), method, json.dumps(changes), *numbers)
    return [json.loads(line) for line in said.splitlines() if line.startswith('{"metrics"')]


def told_by_peer(python: str, script: str, *arguments: str) -> str:
    """What a script beside this one prints in MMSA's environment; ends the bench where it fails."""
    command = [python, "-W", "ignore", str(Path(__file__).with_name(script)), *arguments]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        sys.exit(f"MMSA did not run:\n{made.stderr[-2000:]}")
    return made.stdout


def compared(ours: Sequence[Mapping[str, float]], others: Sequence[Mapping[str, float]]) -> list[tuple[str, ...]]:
    """A line a metric: both means and deviations, and whether they lie within one deviation."""
    lines = []
    for metric, name in METRICS.items():
        a, b = [run[metric] for run in ours], [run[name] for run in others]
        mean = [statistics.mean(x) for x in (a, b)]
        deviation = [statistics.stdev(x) for x in (a, b)]
        near = abs(mean[0] - mean[1]) <= max(deviation)
        told = [f"{100 * m:.2f} ± {100 * s:.2f}" for m, s in zip(mean, deviation, strict=True)]
        lines.append((metric, *told, f"{100 * (mean[0] - mean[1]):+.2f}", "yes" if near else "NO"))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", required=True, help="interpreter of an environment with MMSA")
    parser.add_argument("--features", type=Path, required=True, help="where MOSI's vectors are cached")
    parser.add_argument("--dataset", default="mosi")
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for method, settings in OURS.items():
        with tempfile.TemporaryDirectory() as runs:
            asked = Request(arguments.features, Path(runs), arguments.dataset, method, settings=settings, device="cpu")
            others = theirs(arguments.peer_python, resolve(asked), method, arguments.seeds)
            ours = [
                train(arguments.features, arguments.dataset, method, seed, runs=runs, settings=settings, device="cpu")
                for seed in range(arguments.seeds)
            ]
            print(f"\n{method}, {arguments.seeds} seeds: {ours[0].result['parameters']:,} parameters, ", end="")
            print(f"MMSA {others[0]['parameters']:,}; epochs here {[len(run.metrics) for run in ours]}; ", end="")
            print(f"seconds {sum(run.result['seconds'] for run in ours):.0f}, ", end="")
            print(f"MMSA {sum(run['seconds'] for run in others):.0f}\n")
            print("| metric | here | MMSA | difference | within one deviation |\n|---|---|---|---|---|")
            for line in compared([run.test for run in ours], [run["metrics"] for run in others]):
                print(f"| {' | '.join(line)} |", flush=True)


if __name__ == "__main__":
    main()
