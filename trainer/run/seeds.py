"""Several seeds of one request, and what they say together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .request import Request, resolve
from .runs import Run
from .training import Execution, carry_out

Statistics = dict[str, dict[str, Any]]


def train_seeds(request: Request, count: int, how: Execution) -> list[Run]:
    """`count` runs a fold with the seeds request.seed, request.seed + 1, ..."""
    seeds = range(request.seed, request.seed + count)
    asked = [dataclasses.replace(fold, seed=seed) for fold in request.each_fold for seed in seeds]
    return [carry_out(resolve(one), how) for one in asked]


def statistics(metrics: Sequence[Mapping[str, float]]) -> Statistics:
    """Per metric its mean, its standard deviation (n - 1; 0 for one value) and its values."""
    names = list(metrics[0])
    return {name: mean_and_deviation([float(m[name]) for m in metrics]) for name in names}


def mean_and_deviation(values: list[float]) -> dict[str, Any]:
    """mean, std and values."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {"mean": float(np.mean(values)), "std": deviation, "values": values}


def summary(runs: Sequence[Run]) -> dict[str, Any]:
    """What `pgm train --json` prints: plain values for one run; for several, lists and {mean, std, values} a metric."""
    results = [run.result for run in runs]
    if len(results) == 1:
        return results[0]
    first = results[0]
    return {
        "run": [result["run"] for result in results],
        "dataset": first["dataset"],
        "method": first["method"],
        "seed": [result["seed"] for result in results],
        "parameters": first["parameters"],
        "val": statistics([result["val"] for result in results]),
        "test": statistics([result["test"] for result in results]),
        "floors": first["floors"],
        "samples": first["samples"],
        "seconds": round(sum(result["seconds"] for result in results), 3),
        "samples_per_second": float(np.median([result["samples_per_second"] for result in results])),
        "notes": first["notes"],
    }
