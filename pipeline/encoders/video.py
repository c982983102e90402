"""Encoders of clips: VideoMAE, ViViT, TimeSformer, V-JEPA 2. Frames evenly spaced over the clip, tokens in time.

A clip gives as many frames as the model was trained on. Tokens come one tubelet after another: `grid` in a store's
identity says (T, H, W), so that token i, after a CLS where there is one, lies at (i // (H * W) + 0.5) / T of the clip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from ...cache.errors import UserError
from ..media import Media
from .base import Batch, FrozenEncoder
from .identity import settings
from .vision import has_cls_token, largest_side, pictures


class VideoEncoder(FrozenEncoder):
    """Clips (B, T, 3, H, W) -> (B, S, D); S is the same for every clip."""

    version = 1
    medium = "vision"
    cpu_batch = 1

    def __init__(self, spec: Any, model: nn.Module, *args: Any, processor: Any, **kwargs: Any) -> None:
        self.processor = processor
        self.has_cls = has_cls_token(model)
        super().__init__(spec, model, *args, **kwargs)
        self.input_name = str(model.main_input_name)
        # V-JEPA 2 turns positions instead of learning them, and so takes other lengths.
        own = getattr(self.config, "num_frames", None)
        self.frames = int(spec.frames or own or self.config.frames_per_clip)
        if own is not None and self.frames != own:
            raise UserError(f"--frames {self.frames}: {self.name} takes clips of {own} frames. Leave --frames out.")

    @property
    def dim(self) -> int:
        """Width D of a token."""
        return self._grid[1]

    def decode(self, media: Media) -> np.ndarray:
        """(1, T, 3, H, W) float32 as the processor makes them."""
        return self._pixels(pictures(media, self.frames, largest_side(self.processor)))

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

    @property
    def same_length(self) -> int | None:
        return self._grid[0]

    @cached_property
    def _grid(self) -> tuple[int, int]:
        return self.probed(self._pixels([Image.new("RGB", (64, 64), "gray")] * self.frames))

    def processing(self) -> Mapping[str, Any]:
        return {
            "processor": type(self.processor).__name__,
            "processor_config": settings(self.processor),
            "grid": self.grid,
            "decode": {"frames": self.frames},
        }

    @property
    def grid(self) -> list[int] | None:
        """Tokens over time, height and width; None for a model whose tokens are not tubelets in time."""
        tubelet = getattr(self.config, "tubelet_size", None)
        if tubelet is None:
            return None
        side = getattr(self.config, "crop_size", None) or self.config.image_size
        time, *patch = tubelet if isinstance(tubelet, list | tuple) else (tubelet, self.config.patch_size)
        return [self.frames // time, side // patch[0], side // patch[-1]]
