"""Images through Pillow, to 8-bit RGB.

Decided here: only `FORMATS` are tried (Pillow's other plugins call external programs or are hardly ever tested); EXIF
orientation is applied; transparency (alpha or palette) is laid on white; 16-bit grey is scaled to 8; CMYK and every
other mode goes through Pillow's own conversion; of an animation the first frame counts; a truncated file, one of more
than `MAX_PIXELS` and one `MAX_ASPECT` times longer than wide are refused rather than half read.

Far larger pictures than an encoder needs are decoded to a half, a quarter or an eighth of their size: JPEGs while they
are unpacked, others by averaging. The shorter side keeps at least `KEPT_SIDE` pixels and `OVERSAMPLING` times what the
encoder takes; smaller pictures are decoded exactly. The rule is part of `DECODE_VERSION`.
"""

from __future__ import annotations

import io
import threading
import warnings
from contextlib import nullcontext
from functools import cache

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import DecodeError, refusing

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
# Phones make pictures of 108 megapixels. Pillow's own limit, 179 million, lies above.
MAX_PIXELS = 150_000_000
# A processor that brings the shorter side to N makes N x 100 N of the longest picture taken.
MAX_ASPECT = 100
KEPT_SIDE, OVERSAMPLING = 1024, 4
# Pictures of more pixels are unpacked one at a time in a process: eight threads would hold gigabytes.
LARGE_PIXELS = 25_000_000
_large = threading.Lock()


def decode_image(data: bytes, needed: int = 0) -> Image.Image:
    """An RGB image, of which the encoder takes `needed` pixels a side. Raises DecodeError with the reason where the
    bytes are no whole image."""
    if not data:
        raise DecodeError("empty file")
    with refusing("broken image"), warnings.catch_warnings():
        # Pillow warns where it repairs metadata; its pixel limit is replaced by ours.
        warnings.simplefilter("ignore")
        try:
            image = Image.open(io.BytesIO(data), formats=known_formats())
        except UnidentifiedImageError:
            raise DecodeError(f"not an image of a kind read here ({', '.join(known_formats())})") from None
        check_size(image.width, image.height, "image")
        keep = max(KEPT_SIDE, OVERSAMPLING * needed)
        image.draft(None, (keep, keep))
        with _large if image.width * image.height > LARGE_PIXELS else nullcontext():
            image.seek(0)
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return shrunk(_to_rgb(image), keep)


def unpacked_bytes(data: bytes, needed: int = 0) -> int:
    """Bytes that unpacking a picture holds at most: as its format has it, in RGB and as it is made smaller; 0 for what
    is no picture."""
    try:
        image = Image.open(io.BytesIO(data), formats=known_formats())
        image.draft(None, (max(KEPT_SIDE, OVERSAMPLING * needed),) * 2)
    except Exception:  # whatever it is, it will be a reason of failure where it is decoded
        return 0
    return 3 * 3 * image.width * image.height


def check_size(width: int, height: int, what: str, limit: int | None = None) -> None:
    """Raises DecodeError for sizes that are refused, before anything of that size is allocated."""
    limit = MAX_PIXELS if limit is None else limit
    if width * height > limit:
        raise DecodeError(f"{what} of {width}x{height} pixels; the limit is {limit:,}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise DecodeError(f"{what} of {width}x{height} pixels: one side is more than {MAX_ASPECT} times the other")


def shrunk(image: Image.Image, keep: int) -> Image.Image:
    """The image at 1/2, 1/4 or 1/8, as small as its shorter side keeps `keep` pixels; most images as they are."""
    factor = next((factor for factor in (8, 4, 2) if min(image.size) // factor >= keep), 1)
    return image if factor == 1 else image.reduce(factor)


@cache
def known_formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        wide = np.asarray(image)
        # 16-bit files arrive as I;16 or I: 65535 is white.
        wide = wide if wide.dtype == np.uint16 else np.clip(wide, 0, 65535)
        return Image.fromarray((wide // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
