"""Whether the bytes of samples are still what was written, by the checksum a version keeps of each."""

import numpy as np
import numpy.typing as npt

from ..segment import is_intact, open_segment
from ..segment.contents import Int64s, sample_checksums
from .index import Index
from .store import Store
from .version import Version

FEW = 16  # samples of a segment that are looked at one by one: more are quicker checked as the whole of it


def verified_rows(store: Store, version: Version, index: Index, rows: Int64s) -> npt.NDArray[np.bool_]:
    """(n,) whether each of `rows` (n,), which have features, is intact. Reads every one of their bytes."""
    good = np.zeros(len(rows), np.bool_)
    order = np.argsort(index.segment[rows], kind="stable")
    numbers, first = np.unique(index.segment[rows][order], return_index=True)
    for number, places in zip(numbers.tolist(), np.split(order, first[1:]), strict=True):
        good[places] = _verified_in(store, version.segments[number], index, rows[places])
    return good


def in_intact_segments(store: Store, version: Version, index: Index, rows: Int64s) -> npt.NDArray[np.bool_]:
    """(n,) whether the segments that `rows` (n,) lie in are what was written, to the byte: what may be used again."""
    numbers, inverse = np.unique(index.segment[rows], return_inverse=True)
    intact = [is_intact(store.storage, version.segments[number]) for number in numbers.tolist()]
    return np.array(intact, np.bool_)[inverse]


def _verified_in(store: Store, segment: str, index: Index, rows: Int64s) -> npt.NDArray[np.bool_]:
    if len(rows) > FEW and is_intact(store.storage, segment):
        return np.ones(len(rows), np.bool_)
    good = np.zeros(len(rows), np.bool_)
    try:
        opened = open_segment(store.storage, segment, store.stored, store.dim)
        for place, row in enumerate(rows.tolist()):
            start = int(index.start[row])
            stop = start + int(index.length[row])
            tokens = np.ascontiguousarray(opened.tokens[start:stop])
            scales = None if opened.scales is None else np.ascontiguousarray(opened.scales[start:stop])
            if len(tokens) == stop - start:
                [found] = sample_checksums(tokens, scales, np.array([stop - start]))
                good[place] = found == index.checksum[row]
    except MemoryError:
        raise
    except Exception:
        # A changed byte leads a decoder anywhere: rows before it were read and stand, the rest is damaged.
        pass
    return good
