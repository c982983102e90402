"""Audio encoders on a fixed canvas of mel frames: AST, Whisper's encoder, CLAP's audio tower, padded as in training.

They take no attention mask: their published feature extractors pad every clip to the same length, and a clip's tokens
therefore do not depend on its neighbours. A longer sound is cut before it reaches the extractor, which in CLAP's case
would draw a part at random.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ..decode import decode_audio
from ..media import Media
from .base import Batch, FrozenEncoder
from .identity import settings

HOP_SECONDS = 0.010
# Kaldi's 25 ms window needs one whole window of sound.
WINDOW_SECONDS = 0.025


class SpectrogramEncoder(FrozenEncoder):
    """Mel frames (B, T, F) -> (B, S, D); S is the same for every clip."""

    version = 1
    medium = "audio"
    cpu_batch = 8

    def __init__(self, *args: Any, extractor: Any, **kwargs: Any) -> None:
        self.extractor = extractor
        super().__init__(*args, **kwargs)
        self.rate = int(extractor.sampling_rate)
        self.input_name = str(extractor.model_input_names[0])
        self.seconds = self._seconds()

    def _seconds(self) -> float:
        """Seconds of sound the extractor takes; Whisper's states its chunk in seconds, AST's in frames of 10 ms."""
        chunk = getattr(self.extractor, "chunk_length", None)
        return float(chunk) if chunk else self.extractor.max_length * HOP_SECONDS + WINDOW_SECONDS

    @property
    def dim(self) -> int:
        """Width D of a token."""
        return self._canvas[1]

    def decode(self, media: Media) -> np.ndarray:
        """(T, F) float32 log-mel frames; the costly part of preprocessing belongs to the item, not to the batch."""
        return self._mel(decode_audio(media.read(), self.rate, self.seconds))

    def _mel(self, wave: np.ndarray) -> np.ndarray:
        window = int(self.rate * WINDOW_SECONDS)
        if wave.size < window:
            wave = np.pad(wave, (0, window - wave.size))
        frames = self.extractor(wave, sampling_rate=self.rate, return_tensors="np")[self.input_name][0]
        return np.asarray(frames, dtype=np.float32)

    def collate(self, items: Sequence[Any]) -> Batch:
        return {self.input_name: torch.from_numpy(np.stack(items))}

    @property
    def same_length(self) -> int | None:
        return self._canvas[0]

    @cached_property
    def _canvas(self) -> tuple[int, int]:
        return self.probed(self._mel(np.zeros(self.rate // 10, np.float32)))

    def processing(self) -> Mapping[str, Any]:
        return {
            "processor": type(self.extractor).__name__,
            "processor_config": settings(self.extractor),
            "decode": {"sample_rate": self.rate, "seconds": round(self.seconds, 3), "channels": "mean"},
        }


class DistilledSpectrogramEncoder(SpectrogramEncoder):
    """AST: a CLS and a distillation token before the patches."""

    version = 1
    has_cls = True


class ClapEncoder(SpectrogramEncoder):
    """CLAP's audio tower (HTS-AT): mel frames (B, 1 or 4, T, F) -> a map, read row by row."""

    version = 1

    def _seconds(self) -> float:
        return float(self.extractor.max_length_s)

    def collate(self, items: Sequence[Any]) -> Batch:
        # Never longer than what the model takes: the sound was cut.
        return {**super().collate(items), "is_longer": torch.zeros(len(items), 1, dtype=torch.bool)}
