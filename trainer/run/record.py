"""What a run leaves besides its numbers: its journal, its environment, its weights, and the floors beside it."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ...cache.storage import absolute_url
from ...cache.storage.local import settle
from ..data.feed import Feed
from ..tasks import Task
from .files import read_json, write_json
from .floors import VERSION, floors
from .home import folder_of
from .model import Model
from .request import Resolved
from .runs import content_hash

PACKAGES = ("torch", "numpy", "pyarrow", "zarr", "h5py", "scikit-learn", "safetensors")


class Journal:
    """metrics.jsonl: one line an epoch. It starts empty; a run that continues writes its earlier epochs again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_text("")

    def __call__(self, entry: Mapping[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(entry) + "\n")


def environment(resolved: Resolved, feeds: Mapping[str, Feed]) -> dict[str, Any]:
    """environment.json: where the run was made; nothing here enters its hash."""
    device = resolved.device
    return {
        "features": absolute_url(resolved.request.features),
        "dataset_folder": resolved.folder,
        "dataset_version": resolved.data.version,
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "feeds": {split: f"{feed.kind}: {feed.reason}" for split, feed in feeds.items()},
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "command": sys.argv,
        "notes": list(resolved.notes),
    }


def save_weights(path: Path, model: Model) -> None:
    """The model's state as safetensors, whole or not there; without what its method needs for training alone."""
    temporary = path.with_name(f".{path.name}.tmp")
    left = tuple(f"method.{part}." for part in model.method.training_only)
    kept = {name: value for name, value in model.state_dict().items() if not name.startswith(left)}
    save_file({name: value.detach().cpu().contiguous() for name, value in kept.items()}, temporary)
    settle([temporary])
    temporary.replace(path)


def floors_of(resolved: Resolved) -> dict[str, dict[str, float]]:
    """The floors of this data, computed once for all runs on it and kept under runs/floors/: those of whole samples."""
    protocol = resolved.protocol
    asked = {
        **{name: value for name, value in resolved.data_identity.items() if name != "missing"},
        "split": [protocol.val_fraction, protocol.split_seed],
        "task": protocol.sentiment,
        "code": [VERSION, resolved.data.task.code],
        "balanced": resolved.data.task.balanced,
        "judge": resolved.data.task.judge,
    }
    path = folder_of(resolved.request.runs) / "floors" / f"{content_hash(asked)}.json"
    if not path.exists():
        if not len(resolved.data.splits["test"]):
            return {}
        found = floors(resolved.data)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {**asked, "floors": found})
    known: dict[str, dict[str, float]] = read_json(path)["floors"]
    return known


def selected_epochs(history: Sequence[Mapping[str, Any]], task: Task) -> dict[str, int]:
    """Stage -> the epoch whose weights it left."""
    chosen: dict[str, Mapping[str, Any]] = {}
    for entry in history:
        stage = str(entry["stage"])
        judge = task if task.monitor in entry.get("val", {}) else task.alone()
        before = chosen.get(stage)
        if before is None or "val" not in entry or judge.better(entry["val"], before["val"]):
            chosen[stage] = entry
    return {stage: int(entry["epoch"]) for stage, entry in chosen.items()}
