"""Single samples to look at: their text and a small picture, read from the raw media where these are still there."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..cache.errors import PgMError
from .datasets import adapters, load_dataset
from .decode import DecodeError, decode_frames, decode_text
from .media import ArrayMedia, Media

TEXT_LIMIT = 300
THUMBNAIL = 96


@dataclass(frozen=True)
class Example:
    """What can be shown of a sample: its text, and a JPEG as a data address; None where there is none."""

    text: str | None = None
    picture: str | None = None


def examples(dataset: str, root: Path | None, ids: Sequence[str]) -> dict[str, Example]:
    """Sample id -> what can be shown of it; empty for a dataset without an adapter or whose media are not there."""
    if dataset not in adapters():
        return {}
    try:
        collection = load_dataset(dataset, root)
    except PgMError:
        return {}
    place = {name: row for row, name in enumerate(collection.ids)}
    found: dict[str, Example] = {}
    for name in ids:
        if name in place:
            text, vision = (collection.media.get(modality) for modality in ("text", "vision"))
            row = place[name]
            found[name] = Example(_text(text[row] if text else None), _picture(vision[row] if vision else None))
    return found


def _text(source: Media | None) -> str | None:
    if source is None:
        return None
    try:
        text = decode_text(source.read())
    except OSError:
        return None
    return text if len(text) <= TEXT_LIMIT else text[:TEXT_LIMIT] + "…"


def _picture(source: Media | None) -> str | None:
    """A JPEG of at most 96 pixels a side: the image, or the middle frame of a video."""
    if source is None:
        return None
    try:
        if isinstance(source, ArrayMedia):
            image = Image.fromarray(source.array())
        else:
            [image] = decode_frames(source.read(), 1)
    except (DecodeError, OSError, TypeError):
        return None
    image = image.convert("RGB")
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
