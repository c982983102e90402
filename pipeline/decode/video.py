"""Video to K RGB frames, evenly spaced in time, through PyAV. A still image counts as a clip of one frame, repeated.

The frames shown at the middles of K equal parts of the clip's time are taken, so that K = 1 is the middle one; time is
what the frames' own stamps say, whatever the rate, and the last frame stays as long as the one before it. They are
turned and mirrored as the container asks players to. Decoding runs through the whole clip: seeking would be faster on
long files and inexact on broken ones. Of a clip longer than `seconds`, where given, only the beginning counts, and
never more than `MAX_FRAMES`. Of a file that breaks off, what is there counts, as with sound; frames the decoder calls
corrupt do not. Frames far larger than needed are scaled down as images are.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
from PIL import Image

from .container import MAX_FRAME_PIXELS, check_codec, opened
from .errors import DecodeError, refusing
from .image import KEPT_SIDE, OVERSAMPLING, check_size, decode_image, shrunk

MAX_FRAMES = 20_000
NEITHER = "neither an image nor a video FFmpeg can read"
# Signs of (a, b, c, d) in a display matrix: right goes to (a, b), down to (c, d).
TURNS = {
    (0, 1, -1, 0): Image.Transpose.ROTATE_270,
    (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
    (0, -1, 1, 0): Image.Transpose.ROTATE_90,
    (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
    (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
    (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
}
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
            raise DecodeError("a HEIF or AVIF picture that cannot be read here: convert it to JPEG or PNG") from None
    with refusing(NEITHER):
        wanted = _shown(*_stamps(data, seconds), count)
        return _frames(data, wanted, max(KEPT_SIDE, OVERSAMPLING * needed))


def _stamps(data: bytes, seconds: float | None) -> tuple[list[int], int | None]:
    """When each frame that decodes is shown, in the stream's ticks (0, 1, ... where it has no stamps), and where the
    clip is cut. Raises DecodeError where there is no frame: containers' own counts are often absent or wrong."""
    stamps: list[int] = []
    stamped, cut = True, None
    for frame in _decoded(data):
        stamped = stamped and frame.pts is not None
        stamp = int(frame.pts or 0) if stamped else len(stamps)
        if seconds is not None and stamped and stamps:
            limit = stamps[0] + round(Fraction(seconds) / Fraction(frame.time_base or 1))
            if stamp >= limit:
                cut = limit
                break
        stamps.append(max(stamp, stamps[-1]) if stamps and stamped else stamp)
        if len(stamps) == MAX_FRAMES:
            break
    if not stamps:
        raise DecodeError("no video frame in it")
    return (stamps, cut) if stamped else (list(range(len(stamps))), None)


def _shown(stamps: list[int], cut: int | None, count: int) -> list[int]:
    """The frames shown at the middles of `count` equal parts of the time from the first stamp to the cut, or to the
    end of the last frame. In whole numbers: a middle often falls on a stamp."""
    last = stamps[-1] - stamps[-2] if len(stamps) > 1 else 1
    length = (cut if cut is not None else stamps[-1] + last) - stamps[0]
    middles = [stamps[0] + (2 * part + 1) * length // (2 * count) for part in range(count)]
    return [bisect_right(stamps, middle) - 1 for middle in middles]


def _frames(data: bytes, wanted: list[int], keep: int) -> list[Image.Image]:
    found: dict[int, Image.Image] = {}
    for number, frame in enumerate(_decoded(data)):
        if number in wanted:
            found[number] = shrunk(_upright(frame), keep)
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
        for frame in container.decode(stream):
            if not frame.is_corrupt:
                yield frame


def _upright(frame: av.VideoFrame) -> Image.Image:
    """The frame as players show it: turned by its display matrix, nine numbers of which the first two rows say where
    right and down go. A matrix that is neither a quarter turn nor a mirror is not followed."""
    image: Image.Image = frame.to_image()  # type: ignore[no-untyped-call]
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return image
    a, b, _, c, d = np.sign(np.frombuffer(bytes(matrix), np.int32)[:5]).tolist()
    turn = TURNS.get((a, b, c, d))
    return image if turn is None else image.transpose(turn)
