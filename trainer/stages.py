"""Outcomes of stages that several runs share: two runs that differ in the fusion head only train stage 1 once.

A stage says with `shares` what decides its outcome besides data, protocol and seed; its weights and epoch records lie
under runs/stages/<hash>/. Taking one over gives the same final weights as training it, bit for bit, because the next
stage starts with a new optimiser and its own random numbers.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from ..cache.storage.local import settle
from .files import write_json
from .methods import Stage
from .model import Model
from .protocol import Protocol
from .runs import RECIPE, WEIGHTS, content_hash

# Switches of the protocol that a stage without labels never reads.
LATER = ("epochs", "alpha", "beta", "patience", "sentiment", "val_fraction")


class SharedStages:
    """The shared stages of one data set, protocol and seed."""

    def __init__(self, root: Path, data: Mapping[str, Any], protocol: Protocol, seed: int) -> None:
        self.root = root / "stages"
        switches = {k: v for k, v in dataclasses.asdict(protocol).items() if k not in LATER}
        self.common = {"recipe": RECIPE, "data": dict(data), "protocol": switches, "seed": seed}

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
