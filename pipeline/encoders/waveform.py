"""Audio encoders on the raw waveform: Wav2Vec2, HuBERT, WavLM, Data2Vec. Their token count follows the sound's length.

Group norm over time makes padding visible to these models, mask or not, so only clips of equal token count share a
batch, each cut to the samples its tokens can see: no clip is ever padded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ...cache.errors import UserError
from ..decode import decode_audio
from ..media import Media
from .base import Batch, FrozenEncoder
from .identity import settings

MAX_SECONDS = 30.0


class WaveformEncoder(FrozenEncoder):
    """Samples (B, n) -> (B, S, D), S from the model's own strides."""

    version = 1
    medium = "audio"
    mixes_lengths = False
    cpu_batch = 1

    def __init__(self, *args: Any, extractor: Any, **kwargs: Any) -> None:
        self.extractor = extractor
        super().__init__(*args, **kwargs)
        self.rate = int(extractor.sampling_rate)
        kernels: list[int] = self.config.conv_kernel
        strides: list[int] = self.config.conv_stride
        self.convolutions = list(zip(kernels, strides, strict=True))
        self._check_lengths()

    @property
    def dim(self) -> int:
        """Width D of a token."""
        return int(self.config.hidden_size)

    def _check_lengths(self) -> None:
        """Raises UserError where the model does more to the sound's length than its convolutions (an adapter)."""
        tokens, width = self.probed(np.zeros(self._samples_seen(4), np.float32))
        if (tokens, width) != (4, self.dim):
            raise UserError(
                f"{self.name} makes {tokens} tokens of width {width} where its convolutions make 4 of {self.dim}: "
                "models with an adapter after the encoder are not supported."
            )

    def decode(self, media: Media) -> np.ndarray:
        """(n,) float32, normalised as the extractor does, cut to the samples its tokens see."""
        wave = self._at_least_one_token(decode_audio(media.read(), self.rate, MAX_SECONDS))
        values = self.extractor(wave, sampling_rate=self.rate, return_tensors="np")["input_values"][0]
        return np.asarray(values[: self._samples_seen(self._tokens(len(wave)))], dtype=np.float32)

    def collate(self, items: Sequence[Any]) -> Batch:
        return {"input_values": torch.from_numpy(np.stack(items))}

    def lengths(self, items: Sequence[Any]) -> list[int]:
        return [self._tokens(len(item)) for item in items]

    def _at_least_one_token(self, wave: np.ndarray) -> np.ndarray:
        return np.pad(wave, (0, max(0, self._samples_seen(1) - len(wave))))

    def _tokens(self, samples: int) -> int:
        """Tokens the convolutions make of n samples."""
        for kernel, stride in self.convolutions:
            samples = (samples - kernel) // stride + 1
        return samples

    def _samples_seen(self, tokens: int) -> int:
        """The samples that so many tokens depend on: the inverse of `_tokens`, at its smallest."""
        for kernel, stride in reversed(self.convolutions):
            tokens = (tokens - 1) * stride + kernel
        return tokens

    def processing(self) -> Mapping[str, Any]:
        return {
            "processor": type(self.extractor).__name__,
            "processor_config": settings(self.extractor),
            "decode": {"sample_rate": self.rate, "seconds": MAX_SECONDS, "channels": "mean"},
        }
