"""Padding comes off at the end where it was put, and nothing else does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pgm.cache.errors import UserError
from pgm.pipeline.imports.padding import clean, pack_list, strip_padding


def padded(samples: list[Any], longest: int, side: str) -> Any:
    array = np.zeros((len(samples), longest, samples[0].shape[1]))
    for row, sample in enumerate(samples):
        place = slice(longest - len(sample), longest) if side == "front" else slice(0, len(sample))
        array[row, place] = sample
    return array


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=8),
    extra=st.integers(0, 3),
    dim=st.integers(1, 3),
    side=st.sampled_from(["front", "back"]),
    cuts=st.integers(0, 8),
    seed=st.integers(0, 1000),
)
def test_exactly_what_was_padded_comes_off(
    lengths: list[int], extra: int, dim: int, side: str, cuts: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    samples = [generator.uniform(0.5, 2, (length, dim)) for length in lengths]
    for sample in samples:  # zero frames inside a sample are data
        sample[1:-1][generator.random(max(0, len(sample) - 2)) < 0.3] = 0
    array = padded(samples, max(lengths) + extra, side)
    parts = [part for part in np.split(array, [min(cuts, len(samples))]) if len(part)]
    found = strip_padding(parts, [None] * len(parts))
    assert found.lengths.tolist() == lengths
    assert np.array_equal(found.tokens, np.concatenate(samples).astype(np.float32))
    assert found.side == side or array.all(axis=2).all() or (np.array(lengths) == array.shape[1]).all()


def test_zero_frames_at_the_other_end_are_data() -> None:
    samples = [np.ones((2, 1)), np.array([[0.0], [1.0]]), np.array([[3.0]])]
    found = strip_padding([padded(samples, 5, "back")], [None])
    assert (found.side, found.lengths.tolist()) == ("back", [2, 2, 1])
    front = strip_padding([padded([s[::-1] for s in samples], 5, "front")], [None])
    assert (front.side, front.lengths.tolist()) == ("front", [2, 2, 1])
    assert front.tokens.ravel().tolist() == [1, 1, 1, 0, 3]


def test_a_sample_of_zeros_keeps_one_frame() -> None:
    array = padded([np.ones((2, 2)), np.zeros((3, 2))], 4, "front")
    found = strip_padding([array], [None])
    assert found.side == "front"
    assert found.lengths.tolist() == [2, 1]


def test_given_lengths_count_even_where_a_frame_is_zero() -> None:
    array = padded([np.array([[1.0], [0.0]]), np.ones((3, 1)), np.ones((1, 1))], 4, "back")
    found = strip_padding([array], [[2, 9, 0]])
    assert found.lengths.tolist() == [2, 4, 1]
    assert found.clipped == 2
    assert "2 lengths outside" in found.said("audio")[0]


def test_infinities_are_cleaned_and_counted_and_stay_frames() -> None:
    array = padded([np.full((2, 2), -np.inf), np.array([[np.nan, 1.0]])], 3, "back")
    before = array.copy()
    found = strip_padding([array], [None])
    assert found.lengths.tolist() == [2, 1]
    assert found.cleaned == 5
    assert found.tokens.tolist() == [[0, 0], [0, 0], [0, 1]]
    assert np.array_equal(array, before, equal_nan=True)  # the file's array is not touched
    assert strip_padding([array], [None], cleaning=False).cleaned == 0


def test_splits_may_be_of_different_length_and_frames_single() -> None:
    found = strip_padding([np.ones((2, 3, 2)), np.full((1, 5, 2), 2.0)], [None, None])
    assert found.lengths.tolist() == [3, 3, 5]
    assert strip_padding([np.ones((4, 2))], [None]).lengths.tolist() == [1, 1, 1, 1]


def test_a_number_beyond_float32_is_infinite_then_cleaned() -> None:
    assert strip_padding([np.array([[1e300, 1.0]])], [None]).cleaned == 1


@pytest.mark.parametrize(
    ("parts", "lengths", "message"),
    [
        ([np.ones((2, 3, 2)), np.ones((2, 3, 4))], [None, None], "frames of 2, 4 numbers"),
        ([np.ones(3)], [None], r"found float64 of shape \(3,\)"),
        ([np.array([["a"]])], [None], "Expected numbers"),
        ([np.ones((2, 3, 2))], [[1]], "2 samples and 1 lengths"),
    ],
)
def test_what_is_no_modality_is_refused(parts: Any, lengths: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        strip_padding(parts, lengths)


def test_lists_of_samples_are_packed_and_gaps_are_missing() -> None:
    tokens, lengths = pack_list([np.ones((2, 3)), None, np.arange(3.0), np.zeros((0, 3))])
    assert lengths.tolist() == [2, 0, 1, 0]
    assert tokens.tolist() == [[1, 1, 1], [1, 1, 1], [0, 1, 2]]
    with pytest.raises(UserError, match=r"shape \(2, 4\) stands beside one of shape \(1, 3\)"):
        pack_list([np.ones((1, 3)), np.ones((2, 4))])
    with pytest.raises(UserError, match="No sample has any features"):
        pack_list([None])


def test_cleaning_counts_over_blocks() -> None:
    tokens = np.ones((5, 1 << 19), np.float32)
    tokens[[0, 4], 3] = np.inf, np.nan
    assert clean(tokens) == 2
    assert np.isfinite(tokens).all()
