"""Vision encoders: the vision tower of CLIP or SigLIP, ViT, DINOv2. A video gives `frames` images, their tokens in a
row."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..decode import DecodeError, decode_frames
from ..media import ArrayMedia, FileMedia, Media
from .base import Batch, FrozenEncoder
from .identity import settings


class VisionEncoder(FrozenEncoder):
    """Pixels (B, 3, H, W) -> (B, S, D); S is the same for every image."""

    version = 1

    def __init__(self, *args: Any, processor: Any, has_cls: bool, **kwargs: Any) -> None:
        self.processor = processor
        self.has_cls = has_cls
        super().__init__(*args, **kwargs)

    def decode(self, media: Media) -> np.ndarray:
        """(frames, 3, H, W) float32 as the processor makes them: a picture waits at the size the model takes."""
        return self._pixels(self._frames(media))

    def _frames(self, media: Media) -> list[Image.Image]:
        if isinstance(media, ArrayMedia):
            array = np.load(io.BytesIO(media.read()), allow_pickle=False)
            if array.dtype != np.uint8 or array.ndim not in (2, 3):
                raise DecodeError(f"array of {array.dtype}, shape {array.shape}: an image is uint8 (H, W) or (H, W, 3)")
            return [Image.fromarray(array).convert("RGB")] * self.spec.frames
        seconds = media.seconds if isinstance(media, FileMedia) else None
        return decode_frames(media.read(), self.spec.frames, seconds, self._side)

    def _pixels(self, frames: list[Image.Image]) -> np.ndarray:
        # Channels are stated: the processor would otherwise guess them of a 3-pixel-high image.
        pixels = self.processor(frames, return_tensors="np", input_data_format="channels_last")["pixel_values"]
        return np.asarray(pixels, np.float32)

    @cached_property
    def _side(self) -> int:
        """The most pixels a side that the processor makes of a picture."""
        size = dict(getattr(self.processor, "size", None) or {})
        return max((pixels for pixels in size.values() if isinstance(pixels, int)), default=0)

    def collate(self, items: Sequence[Any]) -> Batch:
        return {"pixel_values": torch.from_numpy(np.concatenate(items))}

    def hidden(self, batch: Batch) -> torch.Tensor:
        hidden = super().hidden(batch)
        return hidden.reshape(-1, self.spec.frames * hidden.shape[1], hidden.shape[2])

    def token_lengths(self, batch: Batch) -> list[int]:
        return [-1] * (len(batch["pixel_values"]) // self.spec.frames)

    def raw_length(self, media: Media) -> int:
        return self._grid

    @cached_property
    def _grid(self) -> int:
        """Tokens an item has, measured on one grey image: the same for all, as processors crop to one size."""
        grey = self.collate([self._pixels([Image.new("RGB", (64, 64), "gray")] * self.spec.frames)])
        with torch.inference_mode():
            return int(self.hidden({key: self._to_device(value) for key, value in grey.items()}).shape[1])

    def processing(self) -> Mapping[str, Any]:
        return {
            "processor": type(self.processor).__name__,
            "processor_config": settings(self.processor),
            "decode": {"frames": self.spec.frames},
        }
