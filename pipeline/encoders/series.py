"""`patch`: a numeric series cut into windows, a token each: statistics of every channel, or its values, and where in
time.

A source reads `patch`, or with settings `patch:window=50,hop=25,values=raw`. Without a window the first series decides:
about `TOKENS` of them. Nothing is learned and nothing is scaled: the trainer standardises every feature by its training
split. What was not measured (NaN) counts as zero, and a feature a channel says how much of the window was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from ...cache.errors import UserError
from ..decode import DecodeError, decode_series
from ..media import Media
from .base import Batch, FrozenEncoder
from .builders import Builder
from .spec import EncoderSpec

TOKENS = 32
# Turns of the position's circles over a series; the last tells neighbours of 32 windows apart.
TURNS = (1, 2, 4, 8, 16)
STATISTICS = ("mean", "deviation", "least", "greatest", "slope")


@dataclass(frozen=True)
class Patch:
    """How a series is cut: `window` samples every `hop`, of `channels` channels; `values` "stats" or "raw"."""

    window: int
    hop: int
    channels: int
    values: str = "stats"

    @property
    def dim(self) -> int:
        """Width of a token: a channel's features and the share of it that was measured; then the position."""
        each = self.window if self.values == "raw" else len(STATISTICS)
        return self.channels * (each + 1) + 1 + 2 * len(TURNS)

    def windows(self, samples: int) -> int:
        """Windows of a series of so many samples; the last may reach past its end."""
        return 1 + max(0, -(-(samples - self.window) // self.hop))

    def tokens(self, series: np.ndarray) -> np.ndarray:
        """(T, C) -> (S, D) float32."""
        count = self.windows(len(series))
        padded = np.full((self.hop * (count - 1) + self.window, self.channels), np.nan, np.float32)
        padded[: len(series)] = series[: len(padded)]
        cut = np.lib.stride_tricks.sliding_window_view(padded, self.window, 0)[:: self.hop]  # (S, C, W)
        measured = np.asarray(~np.isnan(cut))
        zeroed = np.where(measured, cut, 0.0).astype(np.float64)
        features = zeroed if self.values == "raw" else statistics(zeroed, measured)
        share = measured.mean(2, keepdims=True)
        told = np.concatenate([features, share], 2).reshape(count, -1)
        centres = np.minimum((np.arange(count) * self.hop + self.window / 2) / len(series), 1.0)
        return np.concatenate([told, positions(centres)], 1).astype(np.float32)


def statistics(values: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """(S, C, 5): mean, deviation, least, greatest and slope (per window length) of what was measured; else zero."""
    count = np.maximum(measured.sum(2), 1)
    mean = values.sum(2) / count
    centred = np.where(measured, values - mean[..., None], 0.0)
    deviation = np.sqrt((centred**2).sum(2) / count)
    least = np.where(measured, values, np.inf).min(2)
    greatest = np.where(measured, values, -np.inf).max(2)
    time = np.linspace(-0.5, 0.5, values.shape[2])
    middle = np.where(measured, time, 0.0).sum(2) / count
    spread = np.where(measured, time - middle[..., None], 0.0)
    slope = (spread * centred).sum(2) / np.maximum((spread**2).sum(2), 1e-12)
    found = np.stack([mean, deviation, least, greatest, slope], 2)
    return np.where(measured.any(2, keepdims=True), found, 0.0)


def positions(share: np.ndarray) -> np.ndarray:
    """(S, 11): the place in time, 0 to 1 of the series, and its angle on circles of 1 to 16 turns."""
    angles = 2 * np.pi * share[:, None] * np.array(TURNS)
    return np.concatenate([share[:, None], np.sin(angles), np.cos(angles)], 1)


class SeriesEncoder(FrozenEncoder):
    """Series (T, C) -> (S, D); all of the work is on the item, none in the batch."""

    version = 1
    medium = "series"

    def __init__(self, spec: EncoderSpec, patch: Patch) -> None:
        self.patch = patch
        # Never rounded: there is nothing to multiply.
        super().__init__(replace(spec, compute="float32"), nn.Identity(), "patch", None, False)

    @property
    def dim(self) -> int:
        """Width D of a token."""
        return self.patch.dim

    def decode(self, media: Media) -> np.ndarray:
        """(S, D) float32. Raises DecodeError where the series has other channels than the first."""
        series = decode_series(media.read())
        if series.shape[1] != self.patch.channels:
            raise DecodeError(f"a series of {series.shape[1]} channels; the others have {self.patch.channels}")
        return self.patch.tokens(series)

    def lengths(self, items: Sequence[Any]) -> list[int]:
        return [len(item) for item in items]

    def collate(self, items: Sequence[Any]) -> Batch:
        tokens = torch.zeros(len(items), max(map(len, items)), self.dim)
        mask = torch.zeros(tokens.shape[:2], dtype=torch.long)
        for row, item in enumerate(items):
            tokens[row, : len(item)] = torch.from_numpy(item)
            mask[row, : len(item)] = 1
        return {"tokens": tokens, "attention_mask": mask}

    def hidden(self, batch: Batch) -> torch.Tensor:
        return batch["tokens"]

    def processing(self) -> Mapping[str, Any]:
        return {"processor": "patch", "processor_config": vars(self.patch), "decode": {}}


def parse_patch(source: str) -> dict[str, Any]:
    """The settings of `patch:window=50,hop=25,values=raw`. Raises UserError naming what is known."""
    found: dict[str, Any] = {}
    for setting in filter(None, source.partition(":")[2].split(",")):
        key, _, value = setting.partition("=")
        if key in ("window", "hop", "channels") and value.isdecimal() and int(value):
            found[key] = int(value)
        elif key == "values" and value in ("stats", "raw"):
            found[key] = value
        else:
            raise UserError(
                f"{source}: {setting!r} is not a setting of patch. Known: window=SAMPLES, hop=SAMPLES, "
                "values=stats or values=raw; for example patch:window=50,hop=25,values=raw"
            )
    return found


def settle_patch(spec: EncoderSpec, media: Sequence[Media | None]) -> EncoderSpec:
    """What the source leaves open, from the first series that can be read: channels, window, hop."""
    asked = parse_patch(spec.source)
    if {"window", "channels"} - asked.keys():
        samples, channels = _first_shape(spec.modality, media)
        asked = {"window": max(1, -(-samples // TOKENS)), "channels": channels, **asked}
    asked.setdefault("hop", asked["window"])
    return replace(spec, source="patch:" + ",".join(f"{key}={asked[key]}" for key in sorted(asked)))


def _first_shape(modality: str, media: Sequence[Media | None]) -> tuple[int, int]:
    reason = "there is none"
    for source in (source for source in media if source is not None):
        try:
            samples, channels = decode_series(source.read()).shape
        except (DecodeError, OSError) as error:
            reason = f"{source}: {error}"
        else:
            return int(samples), int(channels)
    raise UserError(f"No series of {modality!r} can be read ({reason}); patch takes its channels from the first.")


def build_patch(spec: EncoderSpec) -> FrozenEncoder:
    """The encoder of a settled spec. Raises UserError where the source leaves the channels open."""
    asked = parse_patch(spec.source)
    if {"window", "channels"} - asked.keys():
        raise UserError(f"{spec.source}: say window=SAMPLES and channels=NUMBER where no series is at hand.")
    return SeriesEncoder(spec, Patch(**{"hop": asked["window"], **asked}))


PATCH = Builder(
    name="patch",
    modalities=(),
    summary="windows of a numeric series: statistics or values, with the place in time; nothing learned",
    build=build_patch,
    settle=settle_patch,
)
