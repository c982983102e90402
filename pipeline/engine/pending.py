"""Samples without features, each source once: a photograph that five captions name is encoded for all five.

Sources are the same where they say the same: path, member, text. Copies under other names are found by their content,
but only once one of them is in the store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..media import FileMedia, Media
from .held import Rows


@dataclass(frozen=True, eq=False)
class Pending:
    """rows (n,): the first sample of each source that is to be encoded. sharing (m, 2): every other sample of these
    sources, behind the first, in the order of the first. sources: how many all of the dataset's samples have; 0 where
    nothing is to be encoded."""

    rows: Rows
    sharing: Rows
    sources: int

    def __len__(self) -> int:
        return len(self.rows) + len(self.sharing)

    def of(self, rows: Rows) -> tuple[Rows, Rows]:
        """The samples (k,) that a segment of some neighbouring `rows` serves, and which item is each one's (k,)."""
        begin, end = np.searchsorted(self.sharing[:, 0], [rows[0], rows[-1] + 1])
        first, others = self.sharing[begin:end].T
        return np.concatenate([rows, others]), np.concatenate([np.arange(len(rows)), np.searchsorted(rows, first)])


def once_each(media: Sequence[Media | None], rows: Rows) -> Pending:
    """Samples `rows` (n,) of those with `media` (N,), by source."""
    if not len(rows):
        return Pending(rows, np.empty((0, 2), np.int64), 0)
    numbers: dict[Media | str | None, int] = {None: 0}
    # A path is its own file's name, and is hashed ten times as fast.
    names = (each.path if type(each) is FileMedia and each.seconds is None else each for each in media)
    source = np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64)[rows]
    _, first, same = np.unique(source, return_index=True, return_inverse=True)
    pairs = np.stack([rows[first[same]], rows], axis=1)
    others = pairs[pairs[:, 0] != pairs[:, 1]]
    return Pending(rows[np.sort(first)], others[np.argsort(others[:, 0], kind="stable")], len(numbers) - 1)
