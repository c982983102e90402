"""The most memory a worker holds beside its model: its queues are bounded in bytes, and this is their sum.

It follows from the plan alone: how large a decoded item is and what decoding it takes (of a few that were looked at, so
that a far larger one exceeds it), the batch, the tokens of an item, the segment, and how many processes decode.
`python bench/extract.py --memory` measures a worker beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..decode.image import unpacked_bytes
from ..encoders import FrozenEncoder
from ..media import FileMedia, Media
from .batches import HELD_BYTES, most_items, size_of
from .decoders import threads_and_processes
from .segments import LARGEST_SEGMENT
from .worker import BATCHES_IN_FLIGHT, BYTES_AHEAD, BYTES_OUT, OPEN_SEGMENTS, WRITES_WAITING

# Measured: the libraries of decoder processes, once for all of them, and what each has of its own.
LIBRARIES, PROCESS = 352 << 20, 48 << 20
FACTOR = 8  # of a file whose medium is not a picture: what decoding it holds


def worker_memory(encoder: FrozenEncoder, sources: Sequence[Media], segment_bytes: float, decoders: int | None) -> int:
    """Bytes beside the model, for items no larger than `sources`. segment_bytes: of a segment's tokens; decoders: as in
    `ExtractOptions`."""
    items = encoder.prepare([encoder.decode(source) for source in sources])
    item = max(map(size_of, items), default=0)
    longest = max(encoder.lengths(items), default=0)
    batch = most_items(longest, encoder)
    threads, processes = threads_and_processes(encoder, decoders)
    decoding = max(threads, 1) * max(map(workspace, sources), default=0)
    beside = (LIBRARIES + threads * PROCESS) if processes else 0
    ahead = max(BYTES_AHEAD, item)
    waiting = batch * item if encoder.same_length else max(HELD_BYTES, batch * item)
    in_flight = (BATCHES_IN_FLIGHT + 1 if encoder.device.type == "cuda" else 1) * batch * item + batch * item
    tokens = 4 * batch * longest * encoder.dim
    out = max(2 * tokens, min(BYTES_OUT, (BATCHES_IN_FLIGHT + 1) * tokens))
    # One more while its tokens are put in their order.
    behind = (OPEN_SEGMENTS + WRITES_WAITING + 2) * min(segment_bytes, LARGEST_SEGMENT)
    return round(decoding + beside + ahead + waiting + in_flight + out + behind)


def workspace(source: Media) -> int:
    """Bytes that decoding a source holds, about: the file, and what its pixels take while they are unpacked."""
    content = source.read()
    return len(content) + (unpacked_bytes(content) or FACTOR * len(content) if isinstance(source, FileMedia) else 0)
