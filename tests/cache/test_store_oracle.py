"""Whatever the lengths and shard sizes, a store reads back as the list of arrays that was written."""

from __future__ import annotations

import multiprocessing
import pickle
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pgm.cache import open_features
from pgm.cache.errors import SampleUnavailable, UserError

KINDS = [
    ("zarr", "none", "float16"),
    ("zarr", "zstd", "float16"),
    ("zarr", "lz4", "float32"),
    ("zarr", "none", "int8"),
    ("zarr", "zstd", "int8"),
    ("hdf5", "none", "float16"),
    ("hdf5", "none", "float32"),
    ("hdf5", "none", "int8"),
]
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # hundreds of stores, each waiting for its disk
# Missing (0), single tokens, ordinary samples, and one longer than several shards.
LENGTHS = st.lists(st.one_of(st.just(0), st.just(1), st.integers(2, 12), st.just(75)), max_size=25)


def close_to(stored: str, got: np.ndarray, expected: np.ndarray) -> None:
    """Equal to the bit; int8 within half a step of its scale plus float16's rounding."""
    assert got.shape == expected.shape
    if stored != "int8":
        np.testing.assert_array_equal(got, expected)
    elif expected.size:
        step = np.abs(expected.astype(np.float32)).max(axis=1, keepdims=True) / 127
        assert (np.abs(got.astype(np.float32) - expected) <= 0.51 * step + 2e-3).all()


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
@given(lengths=LENGTHS, dim=st.integers(1, 9), shard_tokens=st.integers(1, 40), data=st.data())
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_store_equals_the_list_of_arrays_it_was_written_from(
    store: Callable[..., Any], kind: tuple[str, str, str], lengths: list[int], dim: int, shard_tokens: int, data: Any
) -> None:
    format_, codec, stored = kind
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        made = store(Path(folder) / "s", lengths, dim, shard_tokens, format=format_, codec=codec, stored=stored)
        features = open_features(made.path)
        assert len(features) == len(lengths)
        assert features.lengths.tolist() == lengths
        present = [row for row, length in enumerate(lengths) if length]
        for row in present:
            close_to(stored, features[row], made.oracle[row])
            assert not features[row].flags.writeable
        rows = data.draw(st.lists(st.sampled_from(range(len(lengths))), max_size=30) if lengths else st.just([]))
        expected = [made.oracle[row] for row in rows]
        packed, got_lengths = features.gather(rows, unavailable="empty")
        assert got_lengths.tolist() == [len(tokens) for tokens in expected]
        close_to(stored, packed, np.concatenate([*expected, np.zeros((0, dim), packed.dtype)]))
        padded, mask = features.padded(rows, unavailable="empty")
        assert mask.sum(axis=1).tolist() == [len(tokens) for tokens in expected]
        assert not padded[~mask].any()
        close_to(stored, padded[mask], packed)
        walked = list(features)
        assert [row for row, _ in walked] == present
        for row, tokens in walked:
            close_to(stored, tokens, made.oracle[row])


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_shuffled_batches_visit_every_sample_once_and_repeat_by_seed(
    store: Callable[..., Any], tmp_path: Path, kind: tuple[str, str, str]
) -> None:
    lengths = np.random.default_rng(1).integers(0, 9, 700)
    made = store(tmp_path / "s", lengths, 3, 128, format=kind[0], codec=kind[1], stored=kind[2])
    seen = []
    for rows, tokens, sizes in made.features.batches(32, shuffle=5):
        assert int(sizes.sum()) == len(tokens)
        close_to(kind[2], tokens, np.concatenate([made.oracle[row] for row in rows]))
        seen += rows.tolist()
    assert sorted(seen) == np.flatnonzero(lengths).tolist()
    assert seen != sorted(seen)
    again = [row for rows, _, _ in made.features.batches(32, shuffle=5) for row in rows.tolist()]
    assert again == seen
    other = [row for rows, _, _ in made.features.batches(32, shuffle=6) for row in rows.tolist()]
    assert other != seen


def test_formats_and_codecs_are_equal_to_the_last_bit(store: Callable[..., Any], tmp_path: Path) -> None:
    lengths = np.random.default_rng(2).integers(0, 20, 60)
    packed = [
        store(tmp_path / f"{number}", lengths, 7, 64, format=kind[0], codec=kind[1]).features.gather(
            np.flatnonzero(lengths)
        )[0]
        for number, kind in enumerate([("zarr", "none"), ("zarr", "zstd"), ("zarr", "lz4"), ("hdf5", "none")])
    ]
    for other in packed[1:]:
        assert other.tobytes() == packed[0].tobytes()


@pytest.mark.parametrize("format_", ["zarr", "hdf5"])
def test_a_sample_inside_a_shard_is_a_view_and_not_a_copy(
    store: Callable[..., Any], tmp_path: Path, format_: str
) -> None:
    features = store(tmp_path / "s", [4, 4, 8], 6, 6, format=format_).features
    assert np.shares_memory(features[0], features.token_rows(0, 6))
    assert not np.shares_memory(features[1], features.token_rows(0, 6))  # straddles rows 4 to 8


def test_gather_fills_the_callers_buffer_and_refuses_one_that_does_not_fit(
    store: Callable[..., Any], tmp_path: Path
) -> None:
    made = store(tmp_path / "s", [3, 5, 2], 4)
    buffer = np.full((12, 4), 9, np.float16)
    tokens, lengths = made.features.gather([2, 1], out=buffer)
    assert np.shares_memory(tokens, buffer)
    assert lengths.tolist() == [2, 5]
    np.testing.assert_array_equal(buffer[:7], np.concatenate([made.oracle[2], made.oracle[1]]))
    assert (buffer[7:] == 9).all()
    strided = np.empty((12, 8), np.float16)[:, ::2]
    for wrong in (
        np.empty((6, 4), np.float16),
        np.empty((12, 4), np.float32),
        np.empty((12, 5), np.float16),
        strided,
    ):
        with pytest.raises(UserError, match=r"out must hold \(7, 4\) float16"):
            made.features.gather([2, 1], out=wrong)


def test_large_gathers_from_several_threads_equal_the_oracle(store: Callable[..., Any], tmp_path: Path) -> None:
    lengths = np.random.default_rng(3).integers(1, 40, 600)
    made = store(tmp_path / "s", lengths, 256, 512)
    rows = np.random.default_rng(4).permutation(600)
    expected = np.concatenate([made.oracle[row] for row in rows])
    assert expected.nbytes > 4 << 20
    np.testing.assert_array_equal(made.features.gather(rows)[0], expected)
    with ThreadPoolExecutor(4) as pool:
        for tokens, _ in pool.map(lambda _: made.features.gather(rows), range(8)):
            np.testing.assert_array_equal(tokens, expected)


@pytest.mark.parametrize("rows", [[0, 4], [-1], [10**12]])
def test_a_row_out_of_range_is_refused_with_the_range(
    store: Callable[..., Any], tmp_path: Path, rows: list[int]
) -> None:
    features = store(tmp_path / "s", [1, 2, 3, 4]).features
    with pytest.raises(SampleUnavailable, match=r"rows 0 to 3"):
        features.gather(rows)
    with pytest.raises(IndexError, match=r"rows 0 to 3"):
        features[rows[-1]]


def test_a_failed_sample_is_refused_with_its_reason_or_gathered_as_empty(
    store: Callable[..., Any], tmp_path: Path
) -> None:
    made = store(tmp_path / "s", [2, 3, 0, 4], failures={1: "truncated JPEG"})
    features = made.features
    assert features.status.tolist() == ["ok", "failed", "missing", "ok"]
    for read in (lambda: features[1], lambda: features.gather([0, 1]), lambda: features.padded([1])):
        with pytest.raises(SampleUnavailable, match=r"sample 1 .* is failed: truncated JPEG .*retry-failed"):
            read()
    with pytest.raises(SampleUnavailable, match="missing"):
        features[2]
    tokens, lengths = features.gather([3, 1, 2, 0], unavailable="empty")
    assert lengths.tolist() == [4, 0, 0, 2]
    np.testing.assert_array_equal(tokens, np.concatenate([made.oracle[3], made.oracle[0]]))
    _, mask = features.padded([1, 0], unavailable="empty")
    assert mask.tolist() == [[False, False], [True, True]]


def test_a_store_travels_to_other_processes(store: Callable[..., Any], tmp_path: Path) -> None:
    made = store(tmp_path / "s", [2, 3], 4)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(made.features))[1], made.oracle[1])
    large = store(tmp_path / "large", [400] * 8, 400, 512)
    large.features.gather(range(8))
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sender.send(float(large.features.gather(range(8))[0].sum(dtype=np.float64))))
    child.start()
    assert receiver.poll(20)
    assert receiver.recv() == float(np.concatenate(large.oracle).sum(dtype=np.float64))
    child.join()


def test_mapped_shards_hold_no_file_descriptors(store: Callable[..., Any], tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    features = store(tmp_path / "s", [1] * 200, 4, 1).features
    features.gather(range(200))
    assert len(list(Path("/proc/self/fd").iterdir())) - before < 20


def test_int8_halves_the_disk_and_reports_its_measured_error(store: Callable[..., Any], tmp_path: Path) -> None:
    exact = store(tmp_path / "exact", [20] * 100, 96, 500)
    small = store(tmp_path / "small", [20] * 100, 96, 500, stored="int8")
    shards = [sum(f.bytes for s in made.features.info.shards for f in s.files) for made in (exact, small)]
    assert shards[1] < 0.55 * shards[0]
    told = small.features.info.int8_error
    assert told is not None
    x = np.concatenate(exact.oracle).astype(np.float64)
    y = small.features.gather(range(100))[0].astype(np.float64)
    assert y.dtype != np.int8
    relative = np.linalg.norm(x - y, axis=1) / np.linalg.norm(x, axis=1)
    cosine = (x * y).sum(axis=1) / (np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1))
    assert told["relative_error_largest"] == pytest.approx(relative.max(), rel=1e-3)
    assert told["relative_error_mean"] == pytest.approx(relative.mean(), rel=1e-3)
    assert told["cosine_mean"] == pytest.approx(cosine.mean(), rel=1e-5)
    assert told["cosine_smallest"] == pytest.approx(cosine.min(), rel=1e-5)
