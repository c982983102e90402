"""What every sample is made from, as 16 bytes of its content: by these a store knows what it has already."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from ..media import FileMedia, Media

Digests = NDArray[np.uint8]
THREADS = 8
BLOCK = 256


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
    on_disk = any(isinstance(source, FileMedia) for source in media)
    with ThreadPoolExecutor(threads if on_disk else 1) as pool:
        list(pool.map(digest_block, range(0, len(media), BLOCK)))
    return digests


def digest(source: Media | None) -> bytes:
    """A source's digest, or zeros."""
    try:
        return bytes(16) if source is None else bytes.fromhex(source.digest())
    except OSError:
        return bytes(16)


def spelled(digests: Digests) -> list[str]:
    """32 hex digits each, "" for zeros: as segments keep them."""
    text = digests.tobytes().hex()
    return [piece if piece.strip("0") else "" for piece in (text[at : at + 32] for at in range(0, len(text), 32))]
