"""Video to K evenly spaced RGB frames through PyAV. A still image counts as a clip of one frame, repeated.

The frames nearest to the middles of K equal parts of the clip are taken, so that K = 1 is the middle frame. Decoding
runs through the whole clip once: seeking would be faster on long files and inexact on broken ones. Of a clip longer
than `seconds`, where given, only the beginning counts.
"""

from __future__ import annotations

import io

import av
import numpy as np
from PIL import Image

from .errors import DecodeError
from .image import MAX_PIXELS, decode_image

MAX_FRAMES = 20_000


def decode_frames(data: bytes, count: int, seconds: float | None = None) -> list[Image.Image]:
    """`count` RGB frames of a clip or a still image. Raises DecodeError with the reason."""
    if not data:
        raise DecodeError("empty file")
    try:
        return [decode_image(data)] * count
    except DecodeError as error:
        if "not an image" not in str(error):
            raise
    try:
        total = _frame_count(data, seconds)
        if total == 0:
            raise DecodeError("no video frame in it")
        wanted = ((np.arange(count) + 0.5) * total / count).astype(int)
        return _frames(data, wanted.tolist())
    except (av.FFmpegError, EOFError, IndexError) as error:
        raise DecodeError(f"neither an image nor a video FFmpeg can read: {error}") from error


def _frame_count(data: bytes, seconds: float | None) -> int:
    """Frames that decode: containers' own counts are often absent or wrong."""
    with av.open(io.BytesIO(data), mode="r") as container:
        if not container.streams.video:
            raise DecodeError("no video track")
        stream = container.streams.video[0]
        if stream.width * stream.height > MAX_PIXELS:
            raise DecodeError(f"video of {stream.width}x{stream.height} pixels; the limit is {MAX_PIXELS:,}")
        stream.thread_type = "AUTO"
        total = 0
        first: float | None = None
        for frame in container.decode(stream):
            first = frame.time if first is None else first
            if seconds is not None and frame.time is not None and frame.time - (first or 0.0) >= seconds:
                break
            total += 1
            if total == MAX_FRAMES:
                break
        return total


def _frames(data: bytes, wanted: list[int]) -> list[Image.Image]:
    found: dict[int, Image.Image] = {}
    with av.open(io.BytesIO(data), mode="r") as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for number, frame in enumerate(container.decode(stream)):
            if number in wanted:
                found[number] = frame.to_image()  # type: ignore[no-untyped-call]
            if len(found) == len(set(wanted)):
                break
    return [found[number] for number in wanted]
