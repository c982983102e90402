"""Whether a difference to the reference row is more than chance: paired tests over seeds, a bootstrap over samples.

The two answer different questions. Over seeds: would training again give the same sign? Over samples: would another
test set of this size (bootstrap.py)? A difference is marked as significant only when both say so; a table that has no
bootstrap goes by the seeds alone.

Over seeds a paired t-test decides. It takes the differences for normal, so from six seeds on a paired sign-flip test,
which assumes only that under the null either sign is as likely, stands beside it (before six it cannot go under .05).
It does not decide: with n seeds its smallest p is 2^(1-n), and a sixth seed must not undo what five have shown. All p
are Holm-corrected over the comparisons of the table, those without a p included. A difference without variance is not
significant and has no p: over a few seeds and a metric of whole samples that is chance as often as not.

Paired runs, sign-flip and BCa are also what Du (arXiv 2511.19794) proposes, on the differences by seed; there, too,
three seeds never show anything. Here the BCa interval is over samples, as over five seeds it would say little.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LEVEL = 0.05
SEEDS_TO_FLIP = 6  # 2^(1-6) is the first smallest p under LEVEL
MOST_SEEDS = 1000  # no further are seeds counted
LISTED = 8  # rows that a caption names one by one
SAME_TO = 1e-12  # rounding, and far less than one sample
Pair = tuple[Sequence[float], Sequence[float]]  # a row's and the reference's metric, seed by seed


@dataclass(frozen=True)
class SeedTest:
    """A row against the reference over seeds.

    difference, deviation: mean and standard deviation (n - 1) of row - reference; deviation None for one seed. p: of
    the paired t-test, Holm-corrected, and uncorrected; None where there is none. p_sign_flip: Holm-corrected, None
    under six seeds. seeds_needed: so many seeds with this mean and deviation would be significant by t after Holm,
    were it the smallest p; None without variance and above 1000.
    """

    difference: float
    deviation: float | None
    seeds: int
    p: float | None
    p_uncorrected: float | None
    p_sign_flip: float | None
    seeds_needed: int | None

    @property
    def significant(self) -> bool:
        """By the t-test."""
        return self.p is not None and self.p < LEVEL


@dataclass(frozen=True)
class Comparison(SeedTest):
    """The same on the metric `metric`, and low, high: the 95 % interval over samples, None without predictions."""

    metric: str
    low: float | None
    high: float | None

    @property
    def significant(self) -> bool:
        """Both tests say so."""
        if self.low is None or self.high is None:
            return False
        return super().significant and not self.low <= 0 <= self.high


@dataclass(frozen=True)
class Reach:
    """What n seeds can show at all after Holm over so many comparisons, whatever the data.

    smallest_p: of the sign-flip test, uncorrected. seeds_to_reach: from which on it can be significant. deviations: so
    many standard deviations a mean difference must have for t, were it the smallest p; None for one seed.
    """

    seeds: int
    comparisons: int
    smallest_p: float
    reached: bool
    seeds_to_reach: int
    deviations: float | None
    overlap: float = 0.0

    @classmethod
    def of(cls, tests: Iterable[SeedTest], overlap: float = 0.0) -> Reach | None:
        """Of a table's comparisons, each counted once; None for a table without."""
        seeds = [test.seeds for test in tests]
        if not seeds:
            return None
        n, m = max(seeds), len(seeds)
        needed = next(k for k in range(2, MOST_SEEDS) if m * 2.0 ** (1 - k) < LEVEL)
        return cls(n, m, 2.0 ** (1 - n), n >= needed, needed, deviations_needed(n, m, overlap), overlap)


def seed_tests(pairs: Sequence[Pair], overlap: float = 0.0) -> list[SeedTest]:
    """All comparisons of a table, on the seeds (and folds) both sides have; at least one each.

    overlap: test samples to training samples of each of several folds, 0 for one split. Folds share training samples,
    so that their differences are dependent: the t-test is the corrected resampled one, and no sign-flip test is made.
    """
    raw = [paired_t(*pair, overlap) for pair in pairs]
    flips = holm([None if overlap else sign_flip(*pair) for pair in pairs])
    found = []
    for pair, p, corrected, flipped in zip(pairs, raw, holm(raw), flips, strict=True):
        gaps = gaps_of(*pair)
        deviation = float(gaps.std(ddof=1)) if len(gaps) > 1 else None
        needed = None if p is None else seeds_needed(float(gaps.mean()), deviation or 0.0, len(pairs), overlap)
        # Sign-flip has its p without variance too; the rule is one for both.
        flipped = None if p is None else flipped
        found.append(SeedTest(float(gaps.mean()), deviation, len(gaps), corrected, p, flipped, needed))
    return found


def gaps_of(row: Sequence[float], reference: Sequence[float]) -> Any:
    """Differences by seed (n,)."""
    return np.asarray(row, float) - np.asarray(reference, float)


def paired_t(row: Sequence[float], reference: Sequence[float], overlap: float = 0.0) -> float | None:
    """Two-sided p of the paired t-test over seeds; None with fewer than two pairs, and without variance to test by.

    overlap: of folds; the variance of the mean is then (1/n + overlap) times that of a difference (Nadeau and Bengio,
    Inference for the generalization error, Machine Learning 52, 2003).
    """
    gaps = gaps_of(row, reference)
    if len(gaps) < 2 or np.ptp(gaps) < SAME_TO:
        return None
    return float(p_of_t(gaps.mean(), gaps.std(ddof=1), len(gaps), overlap))


def p_of_t(mean: Any, deviation: Any, seeds: Any, overlap: float = 0.0) -> Any:
    """Two-sided p of Student's t; arguments broadcast."""
    # scipy.stats takes a second to import.
    from scipy.special import stdtr

    return 2 * stdtr(seeds - 1, -np.abs(mean) / np.sqrt(1 / seeds + overlap) / deviation)


def sign_flip(row: Sequence[float], reference: Sequence[float]) -> float | None:
    """Two-sided p of the paired sign-flip test on the mean; None under six seeds. Exact up to 16 seeds."""
    gaps = gaps_of(row, reference)
    if len(gaps) < SEEDS_TO_FLIP:
        return None
    from scipy.stats import permutation_test

    def mean(sample: Any, axis: int = -1) -> Any:
        return np.mean(sample, axis=axis)

    kind: dict[str, Any] = {"permutation_type": "samples", "vectorized": True, "n_resamples": 2**16}
    return float(permutation_test((gaps,), mean, random_state=0, **kind).pvalue)


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction of several p-values (Holm 1979). None stays None, and counts as a comparison made."""
    known = sorted((p, place) for place, p in enumerate(values) if p is not None)
    corrected: list[float | None] = [None] * len(values)
    largest = 0.0
    for rank, (p, place) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(values) - rank)))
        corrected[place] = largest
    return corrected


def seeds_needed(difference: float, deviation: float, comparisons: int, overlap: float = 0.0) -> int | None:
    """The fewest seeds at which this mean and deviation are significant by t as the smallest p of so many; None above
    1000 and without deviation."""
    if deviation < SAME_TO:
        return None
    seeds = np.arange(2, MOST_SEEDS + 1)
    enough = comparisons * p_of_t(difference, deviation, seeds, overlap) < LEVEL
    return int(seeds[enough.argmax()]) if enough.any() else None


def deviations_needed(seeds: int, comparisons: int, overlap: float = 0.0) -> float | None:
    """The smallest mean difference, in its standard deviations over seeds, that t can find; None for one seed."""
    if seeds < 2:
        return None
    from scipy.special import stdtrit

    return float(stdtrit(seeds - 1, 1 - LEVEL / (2 * comparisons)) * np.sqrt(1 / seeds + overlap))


def reach_note(reach: Reach) -> str:
    """Whether this many seeds can show anything, in words."""
    if reach.deviations is None:
        return "One seed: there is no test over seeds, and nothing can be significant."
    after = "after Holm over one comparison" if reach.comparisons == 1 else f"after Holm over {reach.comparisons}"
    if reach.overlap:
        return (
            f"{reach.seeds} runs a row, {after}: folds share training samples, and the corrected resampled t-test "
            f"needs a mean of {reach.deviations:.1f} deviations; more seeds alone help little."
        )
    t = f"The t-test, which takes differences for normal, needs a mean of {reach.deviations:.1f} deviations."
    if reach.reached:
        return f"{reach.seeds} seeds, {after}: a sign-flip test can reach p < {LEVEL:g}. {t}"
    return (
        f"With {reach.seeds} seeds significance {after} cannot be reached by a test that assumes nothing: a sign-flip "
        f"test has no p under {reach.smallest_p:.2g}, times {reach.comparisons} is "
        f"{reach.smallest_p * reach.comparisons:.2g} ≥ {LEVEL:g}; it takes {reach.seeds_to_reach} seeds. {t}"
    )


def needed_note(tests: Mapping[str, SeedTest]) -> str | None:
    """From how many seeds on the differences seen, which are not significant by t, could be; None without any."""
    open_ = {label: test for label, test in tests.items() if test.p is not None and test.p >= LEVEL}
    if not open_:
        return None
    found = sorted((test.seeds_needed or MOST_SEEDS + 1, label) for label, test in open_.items())
    listed = [f"{label} {n if n <= MOST_SEEDS else f'more than {MOST_SEEDS}'}" for n, label in found[:LISTED]]
    more = f", {len(found) - LISTED} others more" if len(found) > LISTED else ""
    return f"Seeds at which the difference seen, by its mean and deviation, could be: {', '.join(listed)}{more}."
