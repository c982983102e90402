"""Whether a segment is what was written: its name ends in the digest of all its bytes."""

from ..storage import Storage
from ..storage.base import digest_of, joined
from .contents import SEGMENTS, SegmentName


def is_intact(store: Storage, name: str) -> bool:
    """Read all of a segment and hold it against its name; False where anything is changed, missing or added."""
    parsed, key = SegmentName.parse(name), joined(SEGMENTS, name)
    if parsed is None:
        return False
    try:
        return digest_of(store.fetch(key)) == parsed.content
    except FileNotFoundError:
        return False
