"""Whether a segment is what was written: its name ends in the digest of all its bytes."""

from ..storage import Storage
from ..storage.base import Parts, digest_of, joined
from .contents import SEGMENTS, SegmentName


def is_intact(store: Storage, name: str) -> bool:
    """Read all of a segment and hold it against its name; False where anything is changed, missing or added."""
    parsed, key = SegmentName.parse(name), joined(SEGMENTS, name)
    if parsed is None:
        return False
    objects: dict[str, Parts] = {}
    if store.exists(key):
        objects[""] = [store.read(key)]
    else:
        for entry in store.entries(key):
            objects[entry.key.removeprefix(f"{key}/")] = [store.read(entry.key)]
    return digest_of(objects) == parsed.content
