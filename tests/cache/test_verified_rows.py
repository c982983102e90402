"""Damage is found by the sample and by the segment, in both formats and with every codec."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pgm.cache.dataset.verify import verify_store
from pgm.cache.segment import Items, is_intact, read_segment, write_segment
from pgm.cache.storage import storage_at
from pgm.cache.store import Draft, Identity, IndexBuilder, Store, open_features, verified_rows

LENGTHS = np.array([300, 5, 0, 700, 40])


def committed(folder: Path, **options: Any) -> tuple[Store, str]:
    store = Store.create(storage_at(folder), Identity("text", "t5"), 8, options.get("stored", "float16"))
    tokens = np.random.default_rng(0).normal(size=(LENGTHS.sum(), 8)).astype(np.float32)
    ids = [f"s{row}" for row in range(5)]
    items = Items(ids, [f"{row + 1:032x}" for row in range(5)], ["", "", "broken", "", ""])
    segment = write_segment(store.storage, store.identity.whole_digest, items, LENGTHS, tokens, **options)
    rows = IndexBuilder(5)
    rows.place(np.arange(5), segment)
    store.commit(lambda: Draft(rows, "list"))
    return store, segment.name


KINDS = [{}, {"format": "hdf5"}, {"codec": "zstd"}, {"stored": "int8"}]


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_a_flipped_byte_is_found_in_its_sample_and_in_the_segment(tmp_path: Path, options: dict[str, Any]) -> None:
    store, name = committed(tmp_path, **options)
    version = store.version()
    rows = np.array([4, 0, 1, 3])
    assert verified_rows(store, version, store.index(version), rows).all()
    assert is_intact(store.storage, name)
    [data] = [path for path in Path(store.storage.url, "segments").rglob("*") if path.name in ("0", name) and
              path.is_file() and ("tokens" in str(path) or path.suffix == ".h5")]  # fmt: skip
    content = bytearray(data.read_bytes())
    first = bytes(content).find(raw_bytes(store, 3)[:64]) if "codec" not in options else len(content) // 2
    content[first] ^= 1
    data.write_bytes(content)
    good = verified_rows(store, version, store.index(version), rows)
    assert not is_intact(store.storage, name)
    if "codec" not in options:
        assert good.tolist() == [True, True, True, False]
    else:
        assert not good.all()


def raw_bytes(store: Store, row: int) -> bytes:
    from pgm.cache.segment import open_segment

    version = store.version()
    start = int(store.index(version).start[row])
    tokens = open_segment(store.storage, version.segments[0], store.stored, store.dim).tokens
    return np.ascontiguousarray(tokens[start : start + LENGTHS[row]]).tobytes()


def test_an_index_is_built_twice_the_same(tmp_path: Path) -> None:
    """A commit that lost its race builds again; samples of a later segment come first, so that numbers change."""
    store, name = committed(tmp_path)
    version = store.version()
    rows = IndexBuilder(5)
    other = write_segment(
        store.storage, store.identity.whole_digest, Items(["x"], ["f" * 32], [""]), np.array([2]), np.ones((2, 8))
    )
    rows.place(np.array([4]), other)
    rows.take(np.arange(4), store.index(version), version.segments, np.arange(4))
    (first, names), (second, again) = rows.build(), rows.build()
    assert names == again == (name, other.name)
    assert np.array_equal(first.segment, second.segment)
    assert first.segment.tolist() == [0, 0, 0, 0, 1]


@pytest.mark.parametrize("stored", ["float16", "int8"])
@pytest.mark.parametrize("format", ["zarr", "hdf5"])
def test_a_segment_of_failures_alone_is_a_segment(tmp_path: Path, stored: Any, format: Any) -> None:
    store = Store.create(storage_at(tmp_path), Identity("text", "t5"), 8, stored)
    items = Items(["a", "b"], ["", "f" * 32], ["gone", "broken"])
    none = np.empty((0, 8), np.float32)
    digest = store.identity.whole_digest
    segment = write_segment(store.storage, digest, items, np.zeros(2, np.int64), none, stored, format)
    assert is_intact(store.storage, segment.name)
    assert read_segment(store.storage, segment.name).items.errors == ["gone", "broken"]
    rows = IndexBuilder(2)
    rows.place(np.arange(2), segment)
    store.commit(lambda: Draft(rows, "list"))
    features = open_features(store.storage)
    assert features.errors() == {0: "gone", 1: "broken"}
    assert features.gather([0, 1], unavailable="empty")[0].shape == (0, 8)
    assert verify_store(store.storage).sound
