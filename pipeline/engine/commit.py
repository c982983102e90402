"""A version of a store being put together: what was there already, then segments in whatever order they come."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...cache.dataset import ids_digest
from ...cache.segment import Segment
from ...cache.store import Draft, IndexBuilder, Store, Version
from ...cache.store.index import FAILED
from .held import Found, Rows

CONTENT = ("checksum", "source", "length", "status")


class Commit:
    """Where each of N samples lies; `publish` makes it a version once every one has its place.

    missing: rows of samples that do not have the modality. name: of the version.
    """

    def __init__(self, store: Store, ids: Sequence[str], missing: Rows, found: Found, name: str) -> None:
        self.store, self.name = store, name
        self.samples = ids_digest(ids)
        self.new = self.bytes = 0
        # What readers would not see in the samples' content: mended bytes, other reasons of failures.
        self._changed = found.damaged > 0
        self.reasons = dict(found.reasons)
        self._rows = IndexBuilder(len(ids))
        self._rows.missing(missing)
        self._failed = found.failed
        for held in (*found.encoded, *found.failed):
            self._rows.take(held.rows, held.index, held.version.segments, held.places)

    @property
    def failed(self) -> int:
        """Samples that could not be encoded, so far."""
        return int((self._rows.index.status == FAILED).sum())

    def place(self, rows: Rows, segment: Segment, items: Rows | None = None) -> None:
        """Let `rows` (n,) be the samples of a segment, or of its `items` (n,), which several rows may share.

        One that failed again for the reason it had stays where it was.
        """
        numbers = range(len(rows)) if items is None else items.tolist()
        errors = {row: segment.items.errors[item] for row, item in zip(rows.tolist(), numbers, strict=True)}
        again = np.array([row for row, why in errors.items() if why and self.reasons.get(row) == why], np.int64)
        self._rows.place(rows, segment, items)
        for held in self._failed if len(again) else ():
            kept = held.only(np.isin(held.rows, again))
            self._rows.take(kept.rows, kept.index, kept.version.segments, kept.places)
        self._changed |= any(why and row not in again for row, why in errors.items())
        self.reasons = {row: why for row, why in self.reasons.items() if row not in errors}
        self.reasons |= {row: why for row, why in errors.items() if why}
        if segment.new:
            self.new += 1
            self.bytes += segment.bytes

    def publish(self) -> tuple[Version, bool]:
        """The version, and whether it is new: nothing is committed where nothing changed."""
        before = self.store.latest(self.name)
        version = self.store.commit(lambda: None if self._is_latest() else self._draft()) or before
        assert version is not None
        return version, version != before

    def _draft(self) -> Draft:
        return Draft(self._rows, self.samples, self.name, self.new, self.bytes)

    def _is_latest(self) -> bool:
        before = self.store.latest(self.name)
        if self._changed or before is None or before.sample_ids != self.samples:
            return False
        # Where a sample lies is nobody's concern: two of one source may stand for each other.
        here, there = self._rows.index, self.store.index(before)
        return all(np.array_equal(getattr(here, name), getattr(there, name)) for name in CONTENT)
