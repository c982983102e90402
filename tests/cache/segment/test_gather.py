"""Every way to read rows gives the arrays that were written, whatever format, encoding, number and size of segments."""

from __future__ import annotations

import gc
import mmap
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pgm.cache.errors import CorruptStore
from pgm.cache.segment import Buffers, copying, read
from pgm.cache.storage.mapping import RowSpace, map_file

MIXED = ("zarr", "hdf5", "zstd", "lz4")
LENGTHS = [[3, 1, 2], [600, 5, 1, 700], [4], [0, 2], [1300, 2], [7, 7, 7, 7]]


def check(made: object, rows: np.ndarray) -> None:
    """gather, gather into a buffer, padded and single samples of these rows."""
    features, samples = made.features, made.samples
    packed = np.concatenate([samples[row] for row in rows]) if len(rows) else np.empty((0, features.dim))
    tokens, lengths = features.gather(rows, unavailable="empty")
    assert np.array_equal(tokens, packed)
    assert lengths.tolist() == [len(samples[row]) for row in rows]
    out = np.full((len(packed) + 3, features.dim), 7, features.dtype)
    features.gather(rows, out=out, unavailable="empty")
    assert np.array_equal(out[: len(packed)], packed)
    assert (out[len(packed) :] == 7).all()
    padded, mask = features.padded(rows, unavailable="empty")
    assert np.array_equal(padded[mask], packed)
    assert not padded[~mask].any()
    out = np.full((mask.size + 3, features.dim), 7, features.dtype)
    again, _ = features.padded(rows, out=out, unavailable="empty")
    assert np.array_equal(again, padded)
    assert not len(rows) or np.shares_memory(again, out)
    assert (out[mask.size :] == 7).all()
    assert all(np.array_equal(features[row], samples[row]) for row in rows.tolist() if len(samples[row]))


@pytest.mark.parametrize("stored", ["float16", "float32", "int8"])
@pytest.mark.parametrize("kinds", [("zarr",), ("hdf5",), ("zstd",), MIXED])
def test_gathered_rows_are_those_written(
    stored: str, kinds: tuple[str, ...], tmp_path: Path, made: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "PIECE", 1 << 9)
    monkeypatch.setattr(copying, "CORES", 2)
    store = made(tmp_path, LENGTHS, stored=stored, kinds=kinds, failed=(8,))
    rng = np.random.default_rng(1)
    for rows in (rng.permutation(16), np.array([4]), np.array([2, 2, 4, 6]), np.array([], np.int64), np.arange(16)):
        check(store, rows)
    shuffled = [
        (row, tokens[end - length : end].copy())
        for rows, tokens, lengths in store.features.batches(3, shuffle=0)
        for row, length, end in zip(rows.tolist(), lengths, np.cumsum(lengths), strict=True)
    ]
    assert sorted(row for row, _ in shuffled) == np.flatnonzero(store.features.available).tolist()
    assert all(np.array_equal(tokens, store.samples[row]) for row, tokens in shuffled)


@pytest.mark.parametrize("dim", [1, 5, 333, 768, 2047])
@pytest.mark.parametrize("kinds", [("zarr",), ("hdf5",)])
def test_rows_of_any_width_share_one_range_of_addresses(
    dim: int, kinds: tuple[str, ...], tmp_path: Path, made: Callable[..., object]
) -> None:
    store = made(tmp_path, [[40, 900], [1], [2000, 3], [77, 8]], dim=dim, kinds=kinds)
    check(store, np.random.default_rng(2).permutation(7))


def test_more_segments_than_may_be_mapped(
    tmp_path: Path, made: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "MAPPED", 16)
    store = made(tmp_path, [[2, 3]] * 100, stored="int8")
    for seed in range(3):
        check(store, np.random.default_rng(seed).permutation(200)[:50])
        assert len(store.features._reader._mapped.opened) <= 16


def test_one_call_over_more_segments_than_may_be_mapped(
    tmp_path: Path, made: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "MAPPED", 16)
    store, most, find = made(tmp_path, [[2, 3, 0]] * 60, stored="int8"), [], read.segment_rows

    def counting(*arguments: object) -> object:
        most.append(mappings(tmp_path))
        return find(*arguments)

    monkeypatch.setattr(read, "segment_rows", counting)
    check(store, np.random.default_rng(0).permutation(180))
    # Two each, for tokens and scales; one is the index.
    assert max(most) <= 2 * 16 + 1


def test_a_space_without_addresses_is_replaced_by_a_larger_one(
    tmp_path: Path, made: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "address_space", lambda rows, files, row_bytes: rows * row_bytes)
    store = made(tmp_path, [[200, 3]] * 60, dim=64)
    kept = store.features[0]
    check(store, np.random.default_rng(0).permutation(120))
    check(store, np.arange(120))
    assert np.array_equal(kept, store.samples[0])


def mappings(folder: Path) -> int:
    return sum(str(folder) in line for line in Path("/proc/self/maps").read_text().splitlines())


def test_twenty_thousand_segments_are_read_without_running_out_of_mappings(tmp_path: Path) -> None:
    """Mapped by hand: writing as many segments would take minutes."""
    (tmp_path / "rows").write_bytes(np.arange(1000, dtype=np.float16).tobytes())
    space = RowSpace(1 << 30, np.dtype(np.float16), 10)
    for _ in range(20_000):
        rows, first = space.map(tmp_path / "rows", 0, 100)
        assert np.array_equal(space.rows[first + 99], rows[99])
    del rows
    gc.collect()
    assert mappings(tmp_path) == 0


def test_a_view_keeps_its_file_and_only_its_file_mapped(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(bytes(range(200)) * 50)
    space = RowSpace(1 << 24, np.dtype(np.uint8), 10)
    (a, _), (b, _) = space.map(tmp_path / "a", 0, 1000), space.map(tmp_path / "b", 0, 1000)
    view = a[5:7].reshape(-1)[3:]
    del a, b
    gc.collect()
    assert mappings(tmp_path) == 1
    del space
    assert view.tolist()[:3] == [53, 54, 55]


@pytest.mark.parametrize("offset", [0, 4096, 12288, 2 << 20])
@pytest.mark.parametrize("row_bytes", [1, 6, 100, 1536, 4096, 6144, 8192, 10_240, 99_999])
def test_rows_are_numbered_wherever_they_begin_in_a_file(offset: int, row_bytes: int, tmp_path: Path) -> None:
    content = np.random.default_rng(0).integers(0, 256, offset + 3 * row_bytes, dtype=np.uint8)
    content.tofile(tmp_path / "file")
    space = RowSpace(4 << 30, np.dtype(np.uint8), row_bytes)
    for _ in range(3):
        rows, first = space.map(tmp_path / "file", offset, 3)
        assert np.array_equal(space.rows[first : first + 3], rows)
        assert np.array_equal(rows.reshape(-1), content[offset:])
    assert not space.rows[0].any()


def test_nothing_is_shared_between_batches_that_are_held(tmp_path: Path, made: Callable[..., object]) -> None:
    store = made(tmp_path, [[5] * 40])
    held = [store.features.gather(np.arange(n, n + 8))[0] for n in range(30)]
    for n, tokens in enumerate(held):
        assert np.array_equal(tokens, np.concatenate(store.samples[n : n + 8]))


@pytest.mark.parametrize("hold", [lambda a: a[3:], lambda a: memoryview(a), lambda a: a.view(np.uint16).T[2:]])
def test_a_buffer_that_is_viewed_is_not_handed_out_again(hold: Callable[[np.ndarray], object]) -> None:
    buffers = Buffers(4, np.dtype(np.float16))
    held = hold(buffers.get(100))
    address = np.asarray(held).ctypes.data
    others = [buffers.get(100) for _ in range(10)]
    assert not any(other.ctypes.data <= address < other.ctypes.data + other.nbytes for other in others)


def test_a_buffer_that_nobody_holds_is_used_again() -> None:
    buffers = Buffers(64, np.dtype(np.float16))
    addresses = {buffers.get(1000 + n % 50).ctypes.data for n in range(100)}
    assert len(addresses) == 1
    assert {buffers.get(rows).ctypes.data for rows in (1000, 10, 1000, 1001)} - addresses != set()
    assert buffers.get(1000).ctypes.data in addresses


def test_threads_that_gather_at_once_get_their_own_rows(
    tmp_path: Path, made: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "MAPPED", 4)
    monkeypatch.setattr(copying, "PIECE", 1 << 9)
    store, wrong = made(tmp_path, [[5, 40, 3]] * 12, kinds=("zarr", "hdf5", "lz4")), []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(60):
            rows = rng.integers(0, 36, 10)
            if not np.array_equal(store.features.gather(rows)[0], np.concatenate([store.samples[r] for r in rows])):
                wrong.append(rows)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("stored", ["float16", "int8"])
def test_segments_are_mapped_and_let_go_while_others_read_them(
    stored: str, tmp_path: Path, made: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of an unmapped segment would end the process; a range of addresses runs out every few batches."""
    monkeypatch.setattr(read, "MAPPED", 6)
    monkeypatch.setattr(read, "address_space", lambda rows, files, row_bytes: rows * row_bytes)
    monkeypatch.setattr(copying, "PIECE", 1 << 9)
    store, wrong = made(tmp_path, [[50, 400, 30]] * 20, stored=stored, dim=64), []

    def gather(seed: int) -> None:
        for rows in np.random.default_rng(seed).integers(0, 60, (80, 8)):
            tokens, _ = store.features.gather(rows)
            if not np.array_equal(tokens, np.concatenate([store.samples[row] for row in rows])):
                wrong.append(rows)

    def view(seed: int) -> None:
        held: list[tuple[int, np.ndarray]] = []
        for row in np.random.default_rng(seed).integers(0, 60, 400).tolist():
            held = [*held, (row, store.features[row])][-8:]
            wrong.extend(kept for kept, tokens in held if not np.array_equal(tokens, store.samples[kept]))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3) for work in (gather, view)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    del store.features
    gc.collect()
    assert mappings(tmp_path) == 0


def test_a_version_that_lists_more_rows_than_there_are(tmp_path: Path, made: Callable[..., object]) -> None:
    store = made(tmp_path, [[2, 3], [600]], kinds=("zarr", "zstd"))
    reader = store.features._reader
    for segment in (0, 1):
        with pytest.raises(CorruptStore, match="token rows where the version lists 5000"):
            reader.copy(np.array([segment]), np.array([4000]), np.array([1000]), np.array([0]), np.empty((1000, 8)))


def test_a_small_file_maps_without_a_large_page(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"abc")
    assert map_file(tmp_path / "small").tobytes() == b"abc"
    assert mmap.PAGESIZE <= 1 << 16


@pytest.mark.parametrize("samples", [1, 2, 3, 6, 7, 9, 14, 100])
def test_a_compressed_chunk_of_any_size_is_not_taken_for_raw_rows(
    samples: int, tmp_path: Path, made: Callable[..., object]
) -> None:
    """Blosc keeps what does not compress with 16 bytes before it: of some sizes, as many bytes as whole rows have."""
    check(made(tmp_path, [[1] * samples], kinds=("zstd",)), np.arange(samples))
