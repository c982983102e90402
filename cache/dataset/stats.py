"""What a store's numbers look like: token lengths, per-dimension mean and deviation, NaNs, duplicated sources.

One pass in the order of the disk; block statistics are merged with Chan's update, so that a million rows lose nothing
to rounding. Memory: one batch and a few (D,) vectors.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..store import Features

BATCH = 512
BINS = 10


@dataclass(frozen=True)
class StoreStats:
    """Statistics of the available samples of one store.

    mean, deviation: (D,) over all finite token values. duplicates: rows that share a source digest, a group each.
    """

    samples: int
    tokens: int
    histogram: tuple[tuple[int, int, int], ...]
    mean: npt.NDArray[np.float64]
    deviation: npt.NDArray[np.float64]
    nans: int
    duplicates: tuple[tuple[int, ...], ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "samples": self.samples,
            "tokens": self.tokens,
            "length_histogram": [{"from": low, "to": high, "samples": count} for low, high, count in self.histogram],
            "mean": self.mean.tolist(),
            "deviation": self.deviation.tolist(),
            "nan": self.nans,
            "duplicates": [list(group) for group in self.duplicates],
        }


def store_stats(features: Features) -> StoreStats:
    """Read the whole store once."""
    mean, square, count, nans = np.zeros(features.dim), np.zeros(features.dim), np.zeros(features.dim), 0
    for _, tokens, _ in features.batches(BATCH):
        block = tokens.astype(np.float64)
        finite = np.isfinite(block)
        nans += int(np.isnan(block).sum())
        seen = finite.sum(axis=0)
        new = np.where(finite, block, 0).sum(axis=0) / np.maximum(seen, 1)
        spread = (np.where(finite, block - new, 0) ** 2).sum(axis=0)
        total = np.maximum(count + seen, 1)
        square += spread + (new - mean) ** 2 * count * seen / total
        mean += (new - mean) * seen / total
        count += seen
    lengths = features.lengths[features.available]
    return StoreStats(
        len(lengths),
        int(lengths.sum()),
        length_histogram(lengths),
        mean,
        np.sqrt(square / np.maximum(count, 1)),
        nans,
        duplicates(features),
    )


def length_histogram(lengths: npt.NDArray[np.int64]) -> tuple[tuple[int, int, int], ...]:
    """(from, to inclusive, samples) in at most BINS equal bins of whole tokens."""
    if not lengths.size:
        return ()
    low, high = int(lengths.min()), int(lengths.max())
    width = -(-(high - low + 1) // BINS)
    counts = np.bincount((lengths - low) // width)
    return tuple((low + b * width, min(low + (b + 1) * width - 1, high), n) for b, n in enumerate(counts.tolist()))


def duplicates(features: Features) -> tuple[tuple[int, ...], ...]:
    """Rows whose source has the same digest, a group each; sources without a digest are not compared."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    for row, source in enumerate(features.index.source):
        groups[source.tobytes()].append(row)
    return tuple(tuple(rows) for source, rows in groups.items() if len(rows) > 1 and any(source))
