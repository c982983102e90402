"""Whether a segment is what was written: its name ends in the digest of all its bytes."""

from ..storage import Storage
from ..storage.base import is_whole, joined
from .contents import SEGMENTS, SegmentName


def is_intact(store: Storage, name: str) -> bool:
    """Read all of a segment and hold it against its name; False where anything is changed, missing or added."""
    parsed = SegmentName.parse(name)
    return parsed is not None and is_whole(store, joined(SEGMENTS, name), parsed.content)
