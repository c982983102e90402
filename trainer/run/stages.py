"""Outcomes of stages that several runs share: two runs that differ in the fusion head only train stage 1 once.

A stage says with `shares` what decides its outcome besides data, protocol, machine and seed; its weights and epoch
records lie under runs/stages/<hash>/. The hash is over the rows it trained on, not the switches that chose them, so
that no run takes over a stage that has seen samples which validate here. Taking one over gives the same final weights
as training it, bit for bit, because the next stage starts with a new optimiser and its own random numbers.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save_file

from ...cache.storage.local import settle
from ..methods import Stage
from .files import write_json
from .home import WEIGHTS, folder_of
from .model import Model
from .runs import RECIPE, content_hash

if TYPE_CHECKING:
    from .request import Resolved

# Switches of the protocol that a stage without labels never reads, or reads only as the rows they choose.
LATER = (
    "epochs",
    "alpha",
    "beta",
    "patience",
    "sentiment",
    "class_weights",
    "tune",
    "select_on",
    "val_fraction",
    "split_seed",
)


class SharedStages:
    """The stages that a run shares with others on the same data, with the same protocol and seed."""

    def __init__(self, resolved: Resolved) -> None:
        self.root = folder_of(resolved.request.runs) / "stages"
        switches = {k: v for k, v in resolved.protocol.describe().items() if k not in LATER}
        rows = resolved.data.splits["train"].tobytes()
        self.common = {
            "recipe": RECIPE,
            "data": resolved.data_identity,
            "rows": hashlib.blake2b(rows, digest_size=16).hexdigest(),
            "protocol": switches,
            "machine": resolved.machine,
            "seed": resolved.request.seed,
        }

    def folder(self, stage: Stage) -> Path:
        """Where this stage's outcome lies, there or not."""
        return self.root / content_hash({**self.common, "stage": stage.name, "shares": stage.shares})

    def load(self, stage: Stage, model: Model) -> list[dict[str, Any]] | None:
        """Put the stage's weights into the model and return its epoch records, or None when no run has left any."""
        folder = self.folder(stage)
        if not (folder / "stage.json").exists():
            return None
        part_of(model, stage).load_state_dict(load_file(folder / WEIGHTS))
        records: list[dict[str, Any]] = json.loads((folder / "stage.json").read_text())["epochs"]
        return records

    def save(self, stage: Stage, model: Model, records: Sequence[Mapping[str, Any]]) -> None:
        """Leave the stage's outcome for later runs; the folder appears whole, and only once."""
        folder = self.folder(stage)
        if folder.exists():
            return
        temporary = self.root / f".{folder.name}.{os.getpid()}"
        temporary.mkdir(parents=True, exist_ok=True)
        weights = {
            name: value.detach().cpu().contiguous() for name, value in part_of(model, stage).state_dict().items()
        }
        save_file(weights, temporary / WEIGHTS)
        settle([temporary / WEIGHTS])
        write_json(temporary / "stage.json", {**self.common, "stage": stage.name, "epochs": list(records)}, sync=True)
        try:
            temporary.rename(folder)
        except OSError:
            if not (folder / "stage.json").exists():
                raise
            shutil.rmtree(temporary)


def part_of(model: Model, stage: Stage) -> Any:
    """The submodule a stage trains."""
    return model.method.get_submodule(stage.part) if stage.part else model.method
