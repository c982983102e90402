"""What is already there for a plan, and what of it can be kept.

A complete store is checked, not trusted: every shard against its checksum, every source against the digest it was
encoded from. A damaged shard is taken back and written again. Where sources changed, or failed items are to be tried
again, a new store is made beside the old one, taking every unchanged sample's tokens from it, and the two change places
in two renames, which a rerun completes whenever it was that the process died. The same taking-over serves a dataset
that grew: the larger one's store reuses the smaller one's features by source digest.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from ..cache import Features, Identity, open_dataset, open_features
from ..cache.errors import CorruptStore, NotFound, StoreIncomplete
from ..cache.verify import verify
from .plan import ModalityPlan

REPLACING, REPLACED = ".replacing", ".replaced"
# Rounding int8 a second time would not give the same numbers, so only float stores lend theirs.
LENDING = ("float16", "float32")


@dataclass(frozen=True, eq=False)
class Reuse:
    """Samples whose tokens another store already holds: `rows[i]` is sample i's row there, -1 where it must be
    encoded."""

    store: str
    rows: np.ndarray

    @property
    def count(self) -> int:
        return int((self.rows >= 0).sum())

    def held(self, rows: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Each of `rows` that is reused, with its (S, D) tokens."""
        store = open_features(self.store)
        for row in rows:
            if self.rows[row] >= 0:
                yield row, store[int(self.rows[row])]


@dataclass(frozen=True)
class Standing:
    """How far a plan's store is.

    new        nothing, or an unfinished store: write what is missing
    complete   every byte is as it was written, every source as it was encoded
    damaged    complete once; `shards` are no longer what was written
    outdated   complete, but `rows` have changed at the source or failed and are to be tried again
    """

    state: Literal["new", "complete", "damaged", "outdated"]
    store: Features | None = None
    shards: tuple[int, ...] = ()
    rows: tuple[int, ...] = ()


def standing(plan: ModalityPlan, retry_failed: bool) -> Standing:
    """Look at what lies at the plan's path.

    Raises CorruptStore where more than shards is damaged: the store's own description cannot be rebuilt.
    """
    finish_swap(plan.path)
    try:
        store = open_features(plan.path)
    except (NotFound, StoreIncomplete):
        return Standing("new")
    report = verify(plan.path)
    if any(problem.shard is None for problem in report.problems):
        raise CorruptStore(
            f"{plan.path} is damaged beyond its shards: {report.problems[0]}. Remove it with "
            f"`pgm cache rm {plan.path}` and run the same command again."
        )
    if report.problems:
        return Standing("damaged", store, tuple(sorted({p.shard for p in report.problems if p.shard is not None})))
    rows = changed_rows(plan, store)
    if retry_failed:
        rows = sorted({*rows, *np.flatnonzero(store.status == "failed").tolist()})
    return Standing("outdated", store, rows=tuple(rows)) if rows else Standing("complete", store)


def changed_rows(plan: ModalityPlan, store: Features) -> list[int]:
    """Samples whose source is not the one their tokens came from."""
    return [row for row, (now, then) in enumerate(zip(plan.digests, store.items.source, strict=True)) if now != then]


def find_reuse(plan: ModalityPlan, dataset: Path, except_rows: Sequence[int] = ()) -> Reuse | None:
    """The finished store of `dataset` that holds most of this plan's sources, encoded as the plan would.

    `except_rows` are encoded anew whatever is there. None where no store has any.
    """
    found = [
        reuse for info in _lenders(plan, dataset) if (reuse := _matches(plan, open_features(info), except_rows)).count
    ]
    return max(found, key=lambda reuse: reuse.count, default=None)


def _lenders(plan: ModalityPlan, dataset: Path) -> list[Path]:
    """Finished stores that differ from the plan's identity in the list of samples alone."""
    if plan.layout.stored not in LENDING:
        return []
    wanted = computation(plan.identity)
    stores = open_dataset(dataset.parent, dataset.name).stores
    return [info.path for info in stores if info.complete and computation(info.identity) == wanted]


def computation(identity: Identity) -> str:
    """The digest of an identity but for its list of samples: what is computed, whatever it is computed of."""
    fields = {key: value for key, value in identity.fields.items() if key != "samples"}
    return Identity(identity.modality, identity.encoder, fields).digest


def _matches(plan: ModalityPlan, store: Features, except_rows: Sequence[int]) -> Reuse:
    held = {
        digest: row
        for row, (digest, status) in enumerate(zip(store.items.source, store.items.status, strict=True))
        if status == "ok"
    }
    rows = np.array([held.get(digest, -1) for digest in plan.digests], np.int64)
    rows[list(except_rows)] = -1
    # The same bytes give the same length; a store edited by hand might not.
    rows[(rows >= 0) & (store.lengths[rows] != plan.layout.lengths)] = -1
    return Reuse(str(store.path), rows)


def replacement(plan: ModalityPlan) -> ModalityPlan:
    """The plan with its store beside the one it will replace, where no reader takes it for a store of the dataset."""
    return replace(plan, path=plan.path.parent / REPLACING / plan.path.name)


def swap(new: Path, path: Path) -> None:
    """Put the finished store `new` in the place of the one at `path`."""
    old = path.parent / REPLACED / path.name
    old.parent.mkdir(exist_ok=True)
    os.rename(path, old)
    finish_swap(path)
    assert not new.exists()


def finish_swap(path: Path) -> None:
    """Complete a swap that was broken off: the old store has gone aside, the new one has not come yet."""
    new, old = path.parent / REPLACING / path.name, path.parent / REPLACED / path.name
    if old.exists() and not path.exists():
        os.rename(new, path)
    shutil.rmtree(old, ignore_errors=True)
    for folder in (new.parent, old.parent):
        if folder.exists() and not any(folder.iterdir()):
            folder.rmdir()
