"""Image encoders: CLIP, SigLIP, ViT, DINO and others that give tokens, ResNet, ConvNeXt, MobileNet and others that give
a map, which is read row by row. A video gives `frames` images, their tokens in a row.
"""

from __future__ import annotations

import io
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from ...cache.errors import UserError
from ..decode import DecodeError, decode_frames
from ..media import ArrayMedia, FileMedia, Media
from .base import Batch, FrozenEncoder
from .identity import settings


def has_cls_token(model: nn.Module) -> bool:
    """Whether the model has a learned CLS token; transformers' vision models put it before the others."""
    return any(name.endswith(("cls_token", "class_embedding")) for name, _ in model.named_parameters())


def pictures(media: Media, frames: int, side: int) -> list[Image.Image]:
    """`frames` RGB images of a picture, a clip or an array; `side`: the most pixels a side that are needed."""
    if isinstance(media, ArrayMedia):
        array = np.load(io.BytesIO(media.read()), allow_pickle=False)
        if array.dtype != np.uint8 or array.ndim not in (2, 3):
            raise DecodeError(f"array of {array.dtype}, shape {array.shape}: an image is uint8 (H, W) or (H, W, 3)")
        return [Image.fromarray(array).convert("RGB")] * frames
    seconds = media.seconds if isinstance(media, FileMedia) else None
    return decode_frames(media.read(), frames, seconds, side)


def largest_side(processor: Any) -> int:
    """The most pixels a side that a processor makes of a picture; 0 where it does not say."""
    size = dict(getattr(processor, "size", None) or {})
    return max((pixels for pixels in size.values() if isinstance(pixels, int)), default=0)


class PixelEncoder(FrozenEncoder):
    """What encoders of pictures and of clips share: a processor brings all to one size, so that S is the same for
    every item. `frames` is how many images it takes of each."""

    medium = "vision"
    frames: int

    def __init__(self, spec: Any, model: nn.Module, *args: Any, processor: Any, **kwargs: Any) -> None:
        self.processor = processor
        self.has_cls = has_cls_token(model)
        super().__init__(spec, model, *args, **kwargs)

    @property
    def dim(self) -> int:
        """Width D of a token."""
        return self._grid[1]

    def decode(self, media: Media) -> Any:
        """float32 pixels as the processor makes them: an item waits at the size the model takes."""
        return self._pixels(pictures(media, self.frames, largest_side(self.processor)))

    @abstractmethod
    def _pixels(self, frames: list[Image.Image]) -> Any:
        """What `collate` takes of an item's images."""

    @property
    def same_length(self) -> int | None:
        return self._grid[0]

    @cached_property
    def _grid(self) -> tuple[int, int]:
        """(S, D) of an item, found with a grey image: the same for all, as processors crop to one size."""
        return self.probed(self._pixels([Image.new("RGB", (64, 64), "gray")] * self.frames))

    def processing(self) -> Mapping[str, Any]:
        return {
            "processor": type(self.processor).__name__,
            "processor_config": settings(self.processor),
            "decode": {"frames": self.frames},
        }


class VisionEncoder(PixelEncoder):
    """Pixels (B, 3, H, W) -> (B, S, D), the tokens of an item's images in a row."""

    version = 1
    cpu_batch = 8

    def __init__(self, spec: Any, *args: Any, **kwargs: Any) -> None:
        self.frames = spec.frames or 1
        super().__init__(spec, *args, **kwargs)

    def _pixels(self, frames: list[Image.Image]) -> Any:
        # Channels are stated: the processor would otherwise guess them of a 3-pixel-high image.
        pixels = self.processor(frames, return_tensors="np", input_data_format="channels_last")["pixel_values"]
        return np.asarray(pixels, np.float32)

    def collate(self, items: Sequence[Any]) -> Batch:
        return {"pixel_values": torch.from_numpy(np.concatenate(items))}

    def hidden(self, batch: Batch) -> torch.Tensor:
        hidden = super().hidden(batch)
        return hidden.reshape(-1, self.frames * hidden.shape[1], hidden.shape[2])

    def token_lengths(self, batch: Batch) -> list[int]:
        return [-1] * (len(batch["pixel_values"]) // self.frames)


class TimmEncoder(VisionEncoder):
    """A timm model, through transformers' wrapper, with timm's own transforms for evaluation."""

    version = 1

    def _pixels(self, frames: list[Image.Image]) -> Any:
        return np.asarray(self.processor(frames, return_tensors="pt")["pixel_values"], np.float32)


class MaskedAutoencoder(VisionEncoder):
    """ViT-MAE with nothing masked: its patches, which it shuffles by `noise`, stay in their order."""

    version = 1

    def hidden(self, batch: Batch) -> torch.Tensor:
        patches = (self.config.image_size // self.config.patch_size) ** 2
        order = torch.arange(patches, device=self.device).expand(len(batch["pixel_values"]), -1)
        return super().hidden({**batch, "noise": order})


class NaFlexEncoder(VisionEncoder):
    """SigLIP 2 at a picture's own proportions: patches (B, P, 3 * p * p) with a mask, their number up to the
    processor's `max_num_patches`."""

    version = 1

    def __init__(self, spec: Any, *args: Any, **kwargs: Any) -> None:
        if (spec.frames or 1) > 1:
            raise UserError(f"--frames {spec.frames}: {spec.source} takes one picture a sample. Use --frames 1.")
        super().__init__(spec, *args, **kwargs)

    def _pixels(self, frames: list[Image.Image]) -> Any:
        made = self.processor(frames, return_tensors="np", input_data_format="channels_last")
        return {key: made[key] for key in ("pixel_values", "pixel_attention_mask", "spatial_shapes")}

    def collate(self, items: Sequence[Any]) -> Batch:
        return {key: torch.from_numpy(np.concatenate([item[key] for item in items])) for key in items[0]}

    def token_lengths(self, batch: Batch) -> list[int]:
        return [int(n) for n in batch["pixel_attention_mask"].sum(1)]
