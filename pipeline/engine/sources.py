"""What every sample is made from, as 16 bytes of its content: by these a store knows what it has already.

Nothing is read twice for it: of an empty store nothing is asked, and a source is digested when it is encoded. Where a
version is there every source is asked for, because content may be there under another id; where a run left segments and
no version, their samples alone. The journal then answers for files that are as they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import xxhash
from numpy.typing import NDArray

from ...cache.errors import CorruptStore
from ...cache.segment import read_segment
from ...cache.store import Store
from ..media import FileMedia, Media, TextMedia
from .journal import Digests, Journal, file_keys

THREADS = 8
BLOCK = 256


def known_sources(
    store: Store, ids: Sequence[str], media: Sequence[Media | None], journal: Journal, check: bool
) -> Digests:
    """(N, 16) content digests of those samples that a store may have something of; zeros for others.

    check: read them all, whatever the journal knows.
    """
    wanted = np.ones(len(ids), bool) if store.log.numbers() else in_segments(store, ids)
    sources = np.zeros((len(ids), 16), np.uint8)
    if not wanted.any():
        return sources
    keys = file_keys(media)
    if not check:
        sources[wanted] = journal.find(keys[wanted])
    unknown = np.flatnonzero(wanted & ~sources.any(axis=1))
    sources[unknown] = digest_sources([media[row] for row in unknown.tolist()])
    journal.add(keys[unknown], sources[unknown])
    return sources


def in_segments(store: Store, ids: Sequence[str]) -> NDArray[np.bool_]:
    """(N,) which samples are in segments that a run left behind."""
    left: set[str] = set()
    for name in store.segments().values():
        # A damaged one is found out by who would use it.
        with suppress(CorruptStore, OSError):
            left.update(read_segment(store.storage, name).items.ids)
    return np.fromiter((sample in left for sample in ids), bool, len(ids))


def digest_sources(media: Sequence[Media | None], threads: int = THREADS) -> Digests:
    """(N, 16) content digest of each sample's source; zeros where there is none or it cannot be read.

    Why one cannot be read is found again, and recorded, where it is to be encoded.
    """
    digests = np.zeros((len(media), 16), np.uint8)

    def digest_block(start: int) -> None:
        rows = range(start, min(start + BLOCK, len(media)))
        content = b"".join(digest(media[row]) for row in rows)
        digests[rows.start : rows.stop] = np.frombuffer(content, np.uint8).reshape(-1, 16)

    # Threads wait for disks; over media that are in memory already they would only take turns.
    on_disk = any(issubclass(kind, FileMedia) for kind in set(map(type, media)))
    with ThreadPoolExecutor(threads if on_disk else 1) as pool:
        list(pool.map(digest_block, range(0, len(media), BLOCK)))
    return digests


def digest(source: Media | None) -> bytes:
    """A source's digest, or zeros."""
    if type(source) is TextMedia:
        # Without a detour through hex: a table has millions of them.
        return xxhash.xxh3_128_digest(source.read())
    try:
        return bytes(16) if source is None else bytes.fromhex(source.digest())
    except OSError:
        return bytes(16)


def spelled(digests: Digests) -> list[str]:
    """32 hex digits each, "" for zeros: as segments keep them."""
    text = digests.tobytes().hex()
    return [piece if piece.strip("0") else "" for piece in (text[at : at + 32] for at in range(0, len(text), 32))]
