"""Audio encoders on a fixed canvas of mel frames: AST and Whisper's encoder, padded as in their training.

They take no attention mask: their published feature extractors pad every clip to the same length, and a clip's tokens
therefore do not depend on its neighbours.
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

    def __init__(self, *args: Any, extractor: Any, has_cls: bool, **kwargs: Any) -> None:
        self.extractor = extractor
        self.has_cls = has_cls
        super().__init__(*args, **kwargs)
        self.rate = int(extractor.sampling_rate)
        self.input_name = str(extractor.model_input_names[0])
        # Whisper's extractor states its chunk in seconds, AST's in frames of 10 ms.
        chunk = getattr(extractor, "chunk_length", None)
        self.seconds = float(chunk) if chunk else extractor.max_length * HOP_SECONDS + WINDOW_SECONDS

    def decode(self, media: Media) -> np.ndarray:
        """(T, F) float32 log-mel frames; the costly part of preprocessing belongs to the item, not to the batch."""
        wave = decode_audio(media.read(), self.rate, self.seconds)
        window = int(self.rate * WINDOW_SECONDS)
        if wave.size < window:
            wave = np.pad(wave, (0, window - wave.size))
        frames = self.extractor(wave, sampling_rate=self.rate, return_tensors="np")[self.input_name][0]
        return np.asarray(frames, dtype=np.float32)

    def collate(self, items: Sequence[Any]) -> Batch:
        return {self.input_name: torch.from_numpy(np.stack(items))}

    def lengths(self, items: Sequence[Any]) -> list[int]:
        return [self._canvas] * len(items)

    @cached_property
    def _canvas(self) -> int:
        silence = np.zeros(self.rate // 10, np.float32)
        frames = self.extractor(silence, sampling_rate=self.rate, return_tensors="pt")[self.input_name]
        with torch.inference_mode():
            return int(self.hidden({self.input_name: self._to_device(frames)}).shape[1])

    def processing(self) -> Mapping[str, Any]:
        return {
            "processor": type(self.extractor).__name__,
            "processor_config": settings(self.extractor),
            "decode": {"sample_rate": self.rate, "seconds": round(self.seconds, 3), "channels": "mean"},
        }
