"""The statistics of a difference against scipy and brute force: over seeds, and over samples for every task."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pgm.trainer.run.request import Request
from pgm.trainer.studies.engine.bootstrap import bootstrap, differences
from pgm.trainer.studies.engine.plan import TablePlan, plan_table
from pgm.trainer.studies.engine.results import results_of
from pgm.trainer.studies.engine.rows import Row, TableSpec
from pgm.trainer.studies.engine.runner import WorkerPool, run_cells
from pgm.trainer.studies.engine.significance import LEVEL, Reach, holm, paired_t, seed_tests, seeds_needed, sign_flip
from pgm.trainer.tasks import Retrieval
from pgm.trainer.tasks.scores import SampleScores
from scipy import stats

from ..conftest import TINY, write_toy

QUICK = {**TINY, "epochs": 1, "pretrain_epochs": 1}
Values = list[tuple[float, float]]
scores = st.floats(0, 1).map(lambda value: round(value, 3))


def several(least: int, most: int) -> Any:
    return st.lists(st.tuples(scores, scores), min_size=least, max_size=most)


# Over seeds.


@given(several(2, 8))
@settings(max_examples=60, deadline=None)
def test_the_paired_test_is_scipys(pairs: Values) -> None:
    ours, theirs = (np.array(side) for side in zip(*pairs, strict=True))
    if np.ptp(ours - theirs) > 1e-6:
        assert paired_t(ours, theirs) == pytest.approx(stats.ttest_rel(ours, theirs).pvalue, rel=1e-9, abs=1e-12)


def test_the_paired_test_without_variance_or_seeds() -> None:
    assert paired_t([0.5], [0.4]) is None
    assert paired_t([0.5, 0.6], [0.5, 0.6]) is None
    assert paired_t([0.5, 0.75], [0.25, 0.5]) is None
    assert paired_t([0.1 + 0.2, 0.5], [0.2, 0.4]) is None, "a difference of rounding is no variance"


@given(several(6, 9))
@settings(max_examples=25, deadline=None)
def test_the_sign_flip_test_counts_all_signs(pairs: Values) -> None:
    ours, theirs = (np.array(side) for side in zip(*pairs, strict=True))
    gaps = ours - theirs
    signs = np.array(list(itertools.product((1, -1), repeat=len(gaps))))
    as_far = np.abs(signs @ gaps) >= abs(gaps.sum()) - 1e-12
    assert sign_flip(ours, theirs) == pytest.approx(as_far.mean())
    assert as_far.mean() >= Reach.of(seed_tests([(ours, theirs)])).smallest_p  # type: ignore[union-attr]


def test_under_six_seeds_a_sign_flip_test_says_nothing() -> None:
    assert sign_flip([1.0, 1.1, 0.9, 1.0, 1.0], [0.0] * 5) is None


def test_holms_correction_counts_comparisons_without_a_p() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.01, 0.04, None, 0.03]) == pytest.approx([0.04, 0.09, None, 0.09])
    assert holm([0.5, 0.6]) == [1.0, 1.0]


def test_a_difference_without_variance_has_no_p_in_any_test() -> None:
    flat, noisy = seed_tests([([0.75] * 7, [0.5] * 7), ([0.5, 0.6, 0.7, 0.5, 0.6, 0.7, 0.8], [0.5] * 7)])
    assert (flat.p, flat.p_uncorrected, flat.p_sign_flip, flat.seeds_needed) == (None, None, None, None)
    assert not flat.significant
    assert noisy.p == pytest.approx(2 * noisy.p_uncorrected), "the other one is counted in the correction"


@given(st.floats(0.01, 3), st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_so_many_seeds_of_this_mean_and_deviation_are_the_fewest_that_are_significant(
    effect: float, comparisons: int
) -> None:
    def p(seeds: int) -> float:
        # Values with exactly this mean and a deviation of 1.
        values = np.resize([1.0, -1.0], seeds) if seeds % 2 == 0 else np.r_[np.resize([1.0, -1.0], seeds - 1), 0.0]
        values = effect + values / values.std(ddof=1)
        return float(stats.ttest_1samp(values, 0).pvalue) * comparisons

    found = seeds_needed(effect, 1.0, comparisons)
    if found is None:
        assert p(1000) >= LEVEL
    else:
        assert p(found) < LEVEL
        assert found == 2 or p(found - 1) >= LEVEL


@pytest.mark.parametrize(
    ("seeds", "comparisons", "reached", "needed"), [(3, 4, False, 8), (5, 1, False, 6), (9, 10, True, 9)]
)
def test_what_so_many_seeds_can_show_at_all(seeds: int, comparisons: int, reached: bool, needed: int) -> None:
    values = np.random.default_rng(0).normal(size=(comparisons, seeds))
    reach = Reach.of(seed_tests([(row, [0.0] * seeds) for row in values]))
    assert reach is not None
    assert (reach.smallest_p, reach.reached, reach.seeds_to_reach) == (2.0 ** (1 - seeds), reached, needed)
    # The difference that t can just find is significant, as the smallest of so many p.
    unit = values[0] / values[0].std(ddof=1)
    for size, found in ((1.001, True), (0.999, False)):
        ours = unit - unit.mean() + size * reach.deviations
        assert (paired_t(ours, [0.0] * seeds) * comparisons < LEVEL) == found


# Over samples.


def test_the_interval_is_scipys_bca() -> None:
    generator = np.random.default_rng(0)
    for values in (generator.normal(0.1, 1, 150), generator.exponential(1, 40), generator.exponential(1, 15) ** 3):
        ours = bootstrap(SampleScores.of_all(values))
        scipys = stats.bootstrap((values,), np.mean, n_resamples=10_000, method="BCa", random_state=0)
        assert ours == pytest.approx(scipys.confidence_interval, abs=0.06 * values.std() / np.sqrt(len(values)) * 4)
        percentile = stats.bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", random_state=0)
        if len(values) == 15:
            apart = abs(percentile.confidence_interval.high - scipys.confidence_interval.high)
            assert abs(ours[1] - scipys.confidence_interval.high) < apart / 3


def test_the_interval_of_parts_with_gaps_is_scipys_bca() -> None:
    # Two directions with other samples in each, as retrieval with missing modalities has.
    generator = np.random.default_rng(1)
    counts = (generator.random((80, 2)) > [0.1, 0.4]).astype(float)
    parts = SampleScores(generator.exponential(1, (80, 2)) * counts, counts)

    def statistic(rows: Any, axis: int) -> Any:
        return (parts.values[rows].sum(axis=-2) / parts.counts[rows].sum(axis=-2)).sum(axis=-1)

    scipys = stats.bootstrap((np.arange(80),), statistic, n_resamples=10_000, method="BCa", random_state=0, batch=500)
    assert bootstrap(parts) == pytest.approx(scipys.confidence_interval, abs=0.03)


def test_the_bootstrap_covers_the_mean_and_respects_groups() -> None:
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(100):
        low, high = bootstrap(SampleScores.of_all(generator.normal(0.1, 1, 200)))
        held += low <= 0.1 <= high
    assert 88 <= held <= 99
    # Twenty groups of ten equal values: drawing samples one by one would make the interval three times too narrow.
    values = SampleScores.of_all(np.repeat(generator.normal(0, 1, 20), 10))
    groups = [str(row // 10) for row in range(200)]
    (low, high), (grouped_low, grouped_high) = bootstrap(values), bootstrap(values, groups)
    assert (grouped_high - grouped_low) > 2 * (high - low)


def test_counting_values_and_drawing_samples_give_the_same_interval() -> None:
    generator = np.random.default_rng(0)
    values = generator.choice([-1.0, 0.0, 1.0], 800, p=[0.1, 0.7, 0.2])
    # The same differences, each a different number: these are drawn sample by sample.
    apart = values + generator.uniform(-1e-9, 1e-9, len(values))
    same, other = SampleScores.of_all(values), SampleScores.of_all(apart)
    assert bootstrap(same) == pytest.approx(bootstrap(other), abs=0.004)
    groups = [str(place // 2) for place in range(len(values))]
    assert bootstrap(same, groups) == pytest.approx(bootstrap(other, groups), abs=0.004)


def test_data_to_draw_little_or_nothing_from_are_no_trouble() -> None:
    assert bootstrap(SampleScores.of_all(np.zeros(50))) == (0.0, 0.0)
    assert bootstrap(SampleScores.of_all(np.full(50, 0.25))) == pytest.approx((0.25, 0.25))
    assert bootstrap(SampleScores.of_all(np.ones(1))) is None
    assert bootstrap(SampleScores.of_all(np.ones(4)), ["video"] * 4) is None, "one group is one draw"
    assert bootstrap(SampleScores(np.zeros((4, 1)), np.zeros((4, 1)))) is None, "a part that no sample has"
    lone = SampleScores(
        np.array([[0.5, 0.25], [0.5, 0.0], [0.25, 0.0]]), np.array([[1.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    )
    low, high = bootstrap(lone)  # draws without the only sample of the second part are left out
    assert 0.5 <= low <= lone.values.sum(axis=0)[0] / 3 + 0.25 <= high <= 0.75
    low, high = bootstrap(SampleScores.of_all(np.r_[np.zeros(300), 1.0]))
    assert 0 <= low <= 1 / 301 <= high < 0.03


def test_twenty_thousand_samples_take_about_a_second() -> None:
    generator = np.random.default_rng(0)
    paths = {"counted": generator.choice([-0.2, 0, 0.2], 20_000), "drawn": generator.normal(size=20_000)}
    for values in paths.values():
        begun = time.process_time()
        bootstrap(SampleScores.of_all(values))
        assert time.process_time() - begun < 4, "about 1 s, on a machine with other work to do"


TASKS = [
    ("classification", {}, "accuracy", ("concat", "single:text")),
    ("emotion", {}, "accuracy", ("concat", "late")),
    ("sentiment", {}, "acc2_has0", ("concat", "single:text")),
    ("sentiment", {"sentiment": "classes"}, "acc3", ("late", "ensemble")),
    ("retrieval", {}, "map", ("concat", "late")),
]


def trained(tmp_path: Path, task: str, switches: dict[str, str], methods: tuple[str, ...]) -> TablePlan:
    """Two rows, two seeds, a third of the modalities missing."""
    features = write_toy(tmp_path / "features", task=task, missing=0.33)
    rows = tuple(Row(method, method) for method in methods)
    request = Request(features, tmp_path / "runs", dataset="toy", settings={**QUICK, **switches})
    plan = plan_table(TableSpec("", rows, rows[0].label), request, 2)
    assert run_cells(plan.missing, WorkerPool(workers=1), lambda *_: None) == []
    return plan


@pytest.mark.parametrize(("task", "switches", "metric", "methods"), TASKS)
def test_what_is_drawn_again_is_what_is_printed(
    tmp_path: Path, task: str, switches: dict[str, str], metric: str, methods: tuple[str, ...]
) -> None:
    plan = trained(tmp_path, task, switches, methods)
    for cell in plan.cells:
        assert cell.scores.metric == pytest.approx(cell.run.test[metric], abs=1e-12)
    reference, row = results_of(plan).rows
    printed = row.test[metric]["mean"] - reference.test[metric]["mean"]
    pairs = [tuple(plan.of(r)[seed].scores for r in reversed(plan.spec.rows)) for seed in (0, 1)]
    parts = differences(pairs)  # type: ignore[arg-type]
    # The draw that takes every sample once.
    assert (parts.values.sum(axis=0) / parts.counts.sum(axis=0)).sum() == pytest.approx(printed, abs=1e-12)
    comparison = row.comparison
    assert comparison is not None
    assert comparison.metric == metric
    assert comparison.difference == pytest.approx(printed, abs=1e-12)
    assert comparison.low <= printed <= comparison.high


@given(st.integers(0, 2**32 - 1), st.floats(0, 0.6))
@settings(max_examples=40, deadline=None)
def test_retrieval_ranks_the_same_queries_in_the_same_gallery_by_sample_and_in_all(seed: int, missing: float) -> None:
    generator = np.random.default_rng(seed)
    task, views, targets = Retrieval(("a", "b", "c"), ("text", "image")), {}, generator.integers(0, 3, 24)
    for modality in task.modalities:
        views[modality] = generator.normal(size=(24, 4)).astype(np.float32)
        views[modality][1:][generator.random(23) < missing] = np.nan
    found = task.sample_scores({**task.predictions(views), "target": targets})
    assert found.metric == pytest.approx(task.metrics(views, targets)["map"], abs=1e-12)
    lacking = np.isnan(np.stack([views[m] for m in task.modalities])).all(axis=(0, 2))
    assert np.array_equal(np.isnan(found.each), lacking)
