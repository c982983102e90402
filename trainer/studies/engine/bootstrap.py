"""Whether another test set of this size would say the same: a bootstrap over test samples.

What is drawn again is the printed difference itself: the metric of every run is a mean of parts (tasks/scores.py), and
a draw takes the same samples in all runs, with whatever they count in each part. A gallery is not drawn: queries are.
Whole groups are drawn where the dataset has groups. The interval is bias-corrected and accelerated (BCa; Efron 1987),
as in scipy.stats.bootstrap, which draws one statistic a call and knows no groups; tests hold ours to it.

A metric that is no mean (an area under a curve) is computed anew of every draw, with the number of times each sample
was drawn as its weight: a fifth of the draws, and the acceleration from leaving out blocks of samples instead of each.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...tasks.scores import Recomputed, SampleScores

DRAWS = 10_000
DRAWS_ANEW = 2_000
BLOCKS_LEFT_OUT = 200
BLOCK = 250  # draws at a time, to bound memory
FEW = 4  # so many units a distinct value, and counting values is quicker than drawing units
SEED = 20251027
SAME_TO = 1e-12  # rounding, and far less than one sample
TAILS = (0.025, 0.975)
Floats = NDArray[np.float64]


def differences(pairs: Sequence[tuple[SampleScores, SampleScores]]) -> SampleScores:
    """The mean over seeds of row - reference, as parts to be summed: their means add up to the printed difference.

    Parts with the same counts are added up here, so that most tables draw one.
    """
    values: dict[bytes, Floats] = {}
    counts: dict[bytes, Floats] = {}
    for pair in pairs:
        for scores, sign in zip(pair, (1.0, -1.0), strict=True):
            share = sign / (len(pairs) * scores.values.shape[1])
            for value, count in zip(scores.values.T, scores.counts.T, strict=True):
                key = count.tobytes()
                values[key] = values.get(key, 0.0) + share * value
                counts[key] = count
    return SampleScores(np.stack(list(values.values()), axis=1), np.stack(list(counts.values()), axis=1))


def bootstrap(parts: SampleScores, groups: Sequence[str] | None = None) -> tuple[float, float] | None:
    """95 % BCa interval of the sum over parts of sum(values) / sum(counts); groups (N,): what is drawn as a whole.

    None where there is nothing to draw from: fewer than two samples (or groups), or a part without any.
    """
    values, counts = parts.values, parts.counts
    if groups is not None:
        place = np.unique(np.asarray(groups), return_inverse=True)[1]
        values, counts = summed(values, place), summed(counts, place)
    if len(values) < 2 or not counts.sum(axis=0).all():
        return None
    seen = float((values.sum(axis=0) / counts.sum(axis=0)).sum())
    return bca(drawn(values, counts), seen, without_each(values, counts, seen))


def recomputed(
    pairs: Sequence[tuple[Recomputed, Recomputed]], groups: Sequence[str] | None = None
) -> tuple[float, float] | None:
    """95 % BCa interval of the mean over seeds of row - reference, each metric computed anew of every draw.

    None where there are fewer than two units, or the metric is not defined of what is seen.
    """
    count = len(pairs[0][0].each)
    place = np.arange(count) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    units = int(place.max(initial=-1)) + 1

    def statistic(times: Floats) -> Floats:
        weights = times[:, place]
        return np.asarray(np.mean([one.of(weights) - other.of(weights) for one, other in pairs], axis=0))

    seen = float(statistic(np.ones((1, units)))[0]) if units > 1 else float("nan")
    if np.isnan(seen):
        return None
    generator = np.random.default_rng(SEED)
    draws = np.concatenate([statistic(times_drawn(generator, units)) for _ in range(DRAWS_ANEW // BLOCK)])
    blocks = np.arange(units) * min(units, BLOCKS_LEFT_OUT) // units
    without = statistic((blocks != np.unique(blocks)[:, None]).astype(float))
    return bca(draws[~np.isnan(draws)], seen, np.where(np.isnan(without), seen, without))


def times_drawn(generator: np.random.Generator, units: int) -> Floats:
    """(BLOCK, units) how often each of the units is among as many drawn."""
    drawn = generator.integers(0, units, (BLOCK, units)) + np.arange(BLOCK)[:, None] * units
    return np.bincount(drawn.ravel(), minlength=BLOCK * units).reshape(BLOCK, units).astype(float)


def summed(columns: Floats, place: NDArray[np.intp]) -> Floats:
    """Each group's sums (G, K) of columns (N, K); place (N,): each sample's group."""
    return np.stack([np.bincount(place, column) for column in columns.T], axis=1)


def drawn(values: Floats, counts: Floats) -> Floats:
    """The statistic of every draw of G units (samples or groups) out of G; values and counts (G, K).

    Right-or-wrong differences take few values: how often each is drawn is then one multinomial draw, which is the same
    distribution and takes milliseconds where drawing 22,715 samples 10,000 times takes a second.
    """
    generator, units = np.random.default_rng(SEED), len(values)
    table = np.concatenate([values, counts], axis=1)
    kinds, times = np.unique(table.round(12), axis=0, return_counts=True)
    if len(kinds) * FEW <= units:
        return ratios(generator.multinomial(units, times / units, DRAWS) @ kinds)
    sums = np.empty((DRAWS, table.shape[1]))
    # A column that is the same everywhere, as counts without groups and gaps are, need not be drawn.
    same = np.ptp(table, axis=0) == 0
    sums[:, same] = units * table[0, same]
    columns = {place: np.ascontiguousarray(table[:, place]) for place in np.flatnonzero(~same)}
    for start in range(0, DRAWS, BLOCK):
        rows = generator.integers(0, units, (min(BLOCK, DRAWS - start), units))
        for place, column in columns.items():
            sums[start : start + len(rows), place] = column[rows].sum(axis=1)
    return ratios(sums)


def ratios(sums: Floats) -> Floats:
    """Draws (B, 2K) of summed values, then counts, to the statistic; a draw that leaves a part empty is left out."""
    values, counts = np.split(sums, 2, axis=1)
    defined = counts.all(axis=1)
    return np.asarray((values[defined] / counts[defined]).sum(axis=1))


def without_each(values: Floats, counts: Floats, seen: float) -> Floats:
    """The statistic without each unit in turn (G,), for the acceleration; `seen` where it is undefined without it."""
    left = np.concatenate([values.sum(axis=0) - values, counts.sum(axis=0) - counts], axis=1)
    found = np.full(len(values), seen)
    found[left[:, values.shape[1] :].all(axis=1)] = ratios(left)
    return found


def bca(draws: Floats, seen: float, without: Floats) -> tuple[float, float]:
    """Where the middle 95 % lie, corrected for the draws' bias and for how the spread changes with the mean.

    Draws that equal what is seen count half on either side, which matters where the metric moves in whole samples.
    """
    # scipy.stats takes a second to import.
    from scipy.special import ndtr, ndtri

    equal = np.abs(draws - seen) <= SAME_TO
    below = float(np.mean((draws < seen) & ~equal) + np.mean(equal) / 2)
    bias = ndtri(np.clip(below, 0.5 / len(draws), 1 - 0.5 / len(draws)))
    pull = without.mean() - without
    spread = float((pull**2).sum())
    # At most 1/6 in size, so that the denominator below stays positive.
    skew = float((pull**3).sum()) / (6 * spread**1.5) if spread > SAME_TO**2 else 0.0
    shifted = bias + ndtri(TAILS)
    low, high = np.quantile(draws, ndtr(bias + shifted / (1 - skew * shifted)))
    return float(low), float(high)
