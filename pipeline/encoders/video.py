"""Encoders of clips: VideoMAE, ViViT, TimeSformer, V-JEPA 2. Frames evenly spaced over the clip, tokens in time.

A clip gives as many frames as the model was trained on. Tokens come one tubelet after another: `grid` in a store's
identity says (T, H, W), from which `pgm.cache.token_times` tells each token's place in time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from ...cache.errors import UserError
from .base import Batch
from .vision import PixelEncoder


class VideoEncoder(PixelEncoder):
    """Clips (B, T, 3, H, W) -> (B, S, D)."""

    version = 1
    cpu_batch = 1

    def __init__(self, spec: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(spec, *args, **kwargs)
        self.input_name = str(self.model.main_input_name)
        # V-JEPA 2 turns positions instead of learning them, and so takes other lengths.
        own = getattr(self.config, "num_frames", None)
        self.frames = int(spec.frames or own or self.config.frames_per_clip)
        if own is not None and self.frames != own:
            raise UserError(f"--frames {self.frames}: {self.name} takes clips of {own} frames. Leave --frames out.")

    def _pixels(self, frames: list[Image.Image]) -> np.ndarray:
        if self.input_name == "pixel_values_videos":
            clip = np.stack([np.asarray(frame) for frame in frames])
            made = self.processor(
                [clip], return_tensors="pt", do_sample_frames=False, input_data_format="channels_last"
            )
        else:
            made = self.processor([frames], return_tensors="pt", input_data_format="channels_last")
        return np.asarray(made[self.input_name], np.float32)

    def collate(self, items: Sequence[Any]) -> Batch:
        return {self.input_name: torch.from_numpy(np.concatenate(items))}

    def hidden(self, batch: Batch) -> torch.Tensor:
        # V-JEPA 2 runs its predictor after the encoder unless told not to.
        told: dict[str, Any] = {"skip_predictor": True} if hasattr(self.model, "predictor") else {}
        return super().hidden({**batch, **told})

    def processing(self) -> Mapping[str, Any]:
        return {**super().processing(), "grid": self.grid}

    @property
    def grid(self) -> list[int] | None:
        """Tokens over time, height and width; None for a model whose tokens are not tubelets in time."""
        tubelet = getattr(self.config, "tubelet_size", None)
        if tubelet is None:
            return None
        side = getattr(self.config, "crop_size", None) or self.config.image_size
        time, *patch = tubelet if isinstance(tubelet, list | tuple) else (tubelet, self.config.patch_size)
        return [self.frames // time, side // patch[0], side // patch[-1]]
