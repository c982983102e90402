"""One pass over a split without gradients: what the task collects, in the split's order, and its metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..data.feed import Feed
from ..tasks import Forward, Task, Views
from .machine import Machine
from .threads import fitting_threads

BATCH = 128  # fixed, so that a split's outputs do not depend on the training batch


@dataclass(frozen=True)
class Evaluated:
    """views: name -> (N, ...) in the split's order; targets (N,)."""

    views: Views
    targets: NDArray[Any]
    metrics: dict[str, float]


def evaluate(forward: Forward, task: Task, feed: Feed, machine: Machine, modality: str | None = None) -> Evaluated:
    """Run a model over a split; `modality`: show it this one only."""
    views = collect(forward, task, feed, machine, modality)
    targets = feed.targets.cpu().numpy()
    return Evaluated(views, targets, task.scored(views, targets))


def collect(forward: Forward, task: Task, feed: Feed, machine: Machine, modality: str | None = None) -> Views:
    """The task's views of every sample, float32, in the split's order."""
    assert isinstance(forward, torch.nn.Module)
    forward.eval()
    order = feed.evaluation_order(BATCH)
    parts: dict[str, list[torch.Tensor]] = {}
    with fitting_threads(forward, machine.device), torch.inference_mode(), machine.autocast():
        for batch in feed.batches(order):
            for name, value in task.views(forward, batch.inputs.restricted(modality)).items():
                parts.setdefault(name, []).append(value.float())
    back = np.argsort(np.concatenate(order)) if order else np.zeros(0, np.int64)
    return {name: torch.cat(values).cpu().numpy()[back] for name, values in parts.items()}
