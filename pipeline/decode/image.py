"""Images through Pillow, to 8-bit RGB.

Decided here: EXIF orientation is applied; transparency (alpha or palette) is laid on white; 16-bit grey is scaled to 8;
CMYK and every other mode goes through Pillow's own conversion; of an animation the first frame counts; a truncated file
and one of more than `MAX_PIXELS` are refused rather than half read.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import DecodeError

MAX_PIXELS = 100_000_000


def decode_image(data: bytes) -> Image.Image:
    """An RGB image. Raises DecodeError with the reason where the bytes are no whole image."""
    if not data:
        raise DecodeError("empty file")
    try:
        with warnings.catch_warnings():
            # Pillow warns where it repairs metadata; its pixel limit is replaced by ours, below.
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data))
            if image.width * image.height > MAX_PIXELS:
                raise DecodeError(f"image of {image.width}x{image.height} pixels; the limit is {MAX_PIXELS:,}")
            image.seek(0)
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        raise DecodeError("not an image Pillow knows") from None
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise DecodeError(f"broken image: {error}") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.int64)
        # 16-bit files arrive as I;16 or I: 65535 is white.
        return Image.fromarray((np.clip(wide, 0, 65535) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")
