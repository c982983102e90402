"""A modality PgM has never heard of, with its encoder and a dataset: readings of gas sensors, a token a sensor.

Its task is the package's own, too (pgm_gas_task.py).

readings/{smell}-{number}.csv     a row a moment, a column a sensor, no header
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pgm.pipeline.collection import Collection
from pgm.pipeline.datasets import Adapter, Finding, Page
from pgm.pipeline.datasets.assembly import assemble
from pgm.pipeline.datasets.page import require
from pgm.pipeline.datasets.splitting import draw_splits
from pgm.pipeline.decode import DecodeError
from pgm.pipeline.encoders import Builder, EncoderSpec, FrozenEncoder
from pgm.pipeline.encoders.base import Batch
from pgm.pipeline.media import FileMedia, Media


class GasEncoder(FrozenEncoder):
    """(T, sensors) readings -> (sensors, 3) tokens: mean, peak and rise. A real one would run a network in `hidden`."""

    version = 1

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__(replace(spec, compute="float32"), torch.nn.Identity(), "gas", revision=None, random=False)

    @property
    def dim(self) -> int:
        return 3

    def decode(self, media: Media) -> np.ndarray:
        try:
            with warnings.catch_warnings(action="ignore"):  # of an empty file, which is told below
                readings = np.loadtxt(io.BytesIO(media.read()), delimiter=",", ndmin=2)
        except ValueError as error:
            raise DecodeError(f"not readings: {error}") from error
        if not readings.size:
            raise DecodeError("no readings")
        return np.stack([readings.mean(0), readings.max(0), readings[-1] - readings[0]], 1).astype(np.float32)

    def lengths(self, items: Sequence[Any]) -> list[int]:
        return [len(item) for item in items]

    def collate(self, items: Sequence[Any]) -> Batch:
        longest = max(map(len, items))
        tokens = np.stack([np.pad(item, ((0, longest - len(item)), (0, 0))) for item in items])
        mask = np.stack([np.arange(longest) < len(item) for item in items])
        return {"tokens": torch.from_numpy(tokens), "attention_mask": torch.from_numpy(mask)}

    def hidden(self, batch: Batch) -> torch.Tensor:
        return batch["tokens"]

    def processing(self) -> Mapping[str, Any]:
        return {"processor": "mean, peak, rise", "decode": {"delimiter": ","}}


ENCODER = Builder("gas", modalities=("gas",), summary="mean, peak and rise of every gas sensor", build=GasEncoder)

PAGE = Page(
    layout=__doc__ or "",
    splits="70/10/20, drawn with a fixed seed",
    classes="the smells of the file names",
    licence="yours",
    source="your sensors",
    citation="your paper",
)


def look(root: Path) -> list[Finding]:
    """What the folder holds of what is needed."""
    return [Finding("readings/*.csv", len(list(root.glob("readings/*.csv"))))]


def load(root: Path) -> Collection:
    """The readings under `root`. Raises NotFound where there are none."""
    require("gas_readings", root, look(root), PAGE.source)
    files = sorted(root.glob("readings/*.csv"))
    smells = [file.stem.rsplit("-", 1)[0] for file in files]
    classes = sorted(set(smells))
    labels = [classes.index(smell) for smell in smells]
    splits, how = draw_splits(len(files), labels, None)
    columns = {"id": [file.stem for file in files], "split": splits, "label": labels}
    media = {"gas": [FileMedia(str(file)) for file in files]}
    return assemble("gas_readings", "balanced", classes, columns, media, {}, [f"Splits are drawn {how}."])


DATASET = Adapter("gas_readings", "readings of gas sensors", ("gas",), PAGE, look, load)
