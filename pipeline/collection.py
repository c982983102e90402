"""What a dataset adapter returns: samples in a fixed order, their media, and what a trainer must know of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from ..cache.dataset import DatasetCard
from ..cache.errors import UserError
from .media import Media

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Collection:
    """N samples of one dataset.

    `samples` holds one row a sample: `id` (unique), `split`, the label column the card names, and `group` where samples
    must not be torn apart by a split. `media[modality][i]` is sample i's source, None where the dataset has none for
    it. `warnings` are what a user should see before the work begins; they stand in the card's notes too. `version` is
    the name of the dataset's version that these samples make; "" for all of them.
    """

    card: DatasetCard
    samples: pa.Table
    media: Mapping[str, Sequence[Media | None]]
    warnings: tuple[str, ...] = ()
    version: str = ""

    def __post_init__(self) -> None:
        ids = self.samples.column("id").to_pylist()
        if not ids:
            raise UserError(
                f"The dataset {self.card.name!r} has no samples. Check the folder or table it was read from."
            )
        if len(set(ids)) != len(ids):
            repeated = [name for name, count in Counter(ids).most_common(5) if count > 1]
            raise UserError(f"Sample ids of {self.card.name!r} are not unique; repeated: {', '.join(repeated)}.")
        for modality, sources in self.media.items():
            assert len(sources) == len(ids), f"{modality}: {len(sources)} sources for {len(ids)} samples"

    @property
    def ids(self) -> list[str]:
        return list(self.samples.column("id").to_pylist())

    @property
    def present(self) -> dict[str, np.ndarray]:
        """Modality -> (N,) bool, whether the sample has a source of it."""
        return {m: np.array([item is not None for item in sources], bool) for m, sources in self.media.items()}

    @property
    def told(self) -> list[str]:
        """What extraction says before its work: the warnings, then the card's other notes."""
        notes = [note for note in self.card.notes if note not in self.warnings]
        return [*(f"warning: {warning}" for warning in self.warnings), *(f"note: {note}" for note in notes)]

    def __len__(self) -> int:
        return int(self.samples.num_rows)

    def limited(self, limit: int, seed: int = 0) -> Collection:
        """At most `limit` samples: every split keeps its share, drawn with a fixed seed, in the original order.

        They are a version of their own, and never take the place of the whole dataset.
        """
        if limit < 1:
            raise UserError(f"--limit {limit} keeps no sample; ask for at least 1.")
        if limit >= len(self):
            return self
        rng = np.random.default_rng(seed)
        splits = np.array(self.samples.column("split").to_pylist())
        kept: list[np.ndarray] = []
        for split in SPLITS:
            rows = np.flatnonzero(splits == split)
            share = min(len(rows), max(1, round(limit * len(rows) / len(splits)))) if len(rows) else 0
            kept.append(rng.permutation(rows)[:share])
        return replace(self.take(np.sort(np.concatenate(kept))), version=f"limit-{limit}")

    def take(self, rows: np.ndarray) -> Collection:
        """The samples of these rows, in this order."""
        samples = self.samples.take(pa.array(rows))
        media = {m: [sources[i] for i in rows] for m, sources in self.media.items()}
        return replace(self, card=replace(self.card, splits=count_splits(samples)), samples=samples, media=media)

    def warned(self, warning: str) -> Collection:
        """The same samples with one warning more, on the card as well."""
        card = replace(self.card, notes=(*self.card.notes, warning))
        return replace(self, card=card, warnings=(*self.warnings, warning))

    def only(self, modalities: Sequence[str]) -> Collection:
        """The same samples with these modalities alone."""
        unknown = [m for m in modalities if m not in self.media]
        if unknown:
            raise UserError(
                f"{self.card.name!r} has no modality {', '.join(map(repr, unknown))}; it has {', '.join(self.media)}."
            )
        return replace(self, media={m: self.media[m] for m in modalities})


def count_splits(samples: pa.Table) -> dict[str, int]:
    """Samples per split, for the dataset's card."""
    splits = samples.column("split").to_pylist()
    return {split: splits.count(split) for split in SPLITS if split in set(splits)}
