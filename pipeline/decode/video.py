"""Video to K evenly spaced RGB frames through PyAV. A still image counts as a clip of one frame, repeated.

The frames nearest to the middles of K equal parts of the clip are taken, so that K = 1 is the middle frame. Decoding
runs through the whole clip once: seeking would be faster on long files and inexact on broken ones. Of a clip longer
than `seconds`, where given, only the beginning counts, and never more than `MAX_FRAMES`. Frames far larger than needed
are scaled down as images are.
"""

from __future__ import annotations

from collections.abc import Iterator

import av
import numpy as np
from PIL import Image

from .container import MAX_FRAME_PIXELS, check_codec, opened
from .errors import DecodeError, refusing
from .image import KEPT_SIDE, OVERSAMPLING, check_size, decode_image, shrunk

MAX_FRAMES = 20_000
NEITHER = "neither an image nor a video FFmpeg can read"
# ISO media files whose brand says still picture: FFmpeg would show one tile of it.
HEIF = (b"ftypheic", b"ftypheix", b"ftypheim", b"ftypmif1", b"ftypmsf1", b"ftypavif", b"ftypavis")


def decode_frames(data: bytes, count: int, seconds: float | None = None, needed: int = 0) -> list[Image.Image]:
    """`count` RGB frames of a clip or a still image, for an encoder that takes `needed` pixels a side. Raises
    DecodeError with the reason."""
    try:
        return [decode_image(data, needed)] * count
    except DecodeError as error:
        if "not an image" not in str(error):
            raise
        if data[4:12] in HEIF:
            raise DecodeError("a HEIF picture, which is not read here: convert it to JPEG or PNG") from None
    with refusing(NEITHER):
        total = _frame_count(data, seconds)
        if total == 0:
            raise DecodeError("no video frame in it")
        wanted = ((np.arange(count) + 0.5) * total / count).astype(int)
        return _frames(data, wanted.tolist(), max(KEPT_SIDE, OVERSAMPLING * needed))


def _frame_count(data: bytes, seconds: float | None) -> int:
    """Frames that decode: containers' own counts are often absent or wrong."""
    total = 0
    first: float | None = None
    for frame in _decoded(data):
        first = frame.time if first is None else first
        if seconds is not None and frame.time is not None and frame.time - (first or 0.0) >= seconds:
            break
        total += 1
        if total == MAX_FRAMES:
            break
    return total


def _frames(data: bytes, wanted: list[int], keep: int) -> list[Image.Image]:
    found: dict[int, Image.Image] = {}
    for number, frame in enumerate(_decoded(data)):
        if number in wanted:
            found[number] = shrunk(frame.to_image(), keep)  # type: ignore[no-untyped-call]
        if len(found) == len(set(wanted)):
            break
    return [found[number] for number in wanted]


def _decoded(data: bytes) -> Iterator[av.VideoFrame]:
    """The clip's frames from its beginning, within the limits."""
    with opened(data, NEITHER) as container:
        if not container.streams.video:
            raise DecodeError("no video track")
        stream = container.streams.video[0]
        check_codec(stream)
        check_size(stream.width, stream.height, "video", MAX_FRAME_PIXELS)
        stream.codec_context.options = {"max_pixels": str(MAX_FRAME_PIXELS)}
        stream.thread_type = "AUTO"
        yield from container.decode(stream)
