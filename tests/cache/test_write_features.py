"""Features from arrays: what a store has is used again where it is the same and intact, and only there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from pgm.cache import Features, Identity, Version, ids_digest, open_features, storage_at, write_features
from pgm.cache.dataset.verify import verify_store
from pgm.cache.store import write as store_write

from .conftest import flip

IDENTITY = Identity("text", "imported", {})
IDS = ["a", "b", "c", "d"]
LENGTHS = np.array([3, 2, 0, 4])
FORMATS: list[dict[str, Any]] = [{}, {"format": "hdf5"}, {"codec": "zstd"}, {"stored": "int8"}]


def tokens(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(int(LENGTHS.sum()), 8)).astype(np.float16)


def write(root: Path, values: np.ndarray, lengths: np.ndarray = LENGTHS, **options: Any) -> Version:
    dataset = storage_at(root / "toy")
    return write_features(dataset, IDENTITY, IDS, ids_digest(IDS), lengths, values, **options)


def opened(root: Path) -> Features:
    return open_features(root / "toy" / IDENTITY.folder)


def test_the_same_again_writes_nothing_and_commits_nothing(tmp_path: Path) -> None:
    first = write(tmp_path, tokens())
    assert write(tmp_path, tokens()) == first


def test_samples_that_change_places_are_another_version(tmp_path: Path) -> None:
    """As when a table had its labels beside the wrong rows: every one of the arrays is in the store already."""
    values = tokens()
    write(tmp_path, values, np.array([3, 3, 3, 0]))
    write(tmp_path, np.concatenate([values[3:6], values[:3], values[6:]]), np.array([3, 3, 3, 0]))
    features = opened(tmp_path)
    assert np.array_equal(features[0], values[3:6])
    assert np.array_equal(features[1], values[:3])
    assert features.version.written["segments"] == 0


def test_a_sample_that_failed_and_is_missing_now_is_another_version(tmp_path: Path) -> None:
    write(tmp_path, tokens(), errors={2: "no such row"})
    assert opened(tmp_path).status.tolist() == ["ok", "ok", "failed", "ok"]
    write(tmp_path, tokens())
    assert opened(tmp_path).status.tolist() == ["ok", "ok", "missing", "ok"]


def test_a_sample_that_fails_for_another_reason_is_another_version(tmp_path: Path) -> None:
    first = write(tmp_path, tokens(), errors={2: "no such row"})
    assert write(tmp_path, tokens(), errors={2: "no such row"}) == first
    write(tmp_path, tokens(), errors={2: "a NaN"})
    assert opened(tmp_path).errors() == {2: "a NaN"}


@pytest.mark.parametrize("options", FORMATS, ids=str)
def test_what_is_damaged_is_written_again_and_never_referred_to(tmp_path: Path, options: dict[str, Any]) -> None:
    written = write(tmp_path, tokens(), **options)
    store = tmp_path / "toy" / IDENTITY.folder
    rng = np.random.default_rng(0)
    for path in sorted(path for path in (store / "segments").rglob("*") if path.is_file()):
        flip(path, int(rng.integers(path.stat().st_size)))
        assert not verify_store(storage_at(store)).sound
        assert write(tmp_path, tokens(), **options).content == written.content
        assert verify_store(storage_at(store)).sound, path


def test_what_a_writer_that_died_finished_is_not_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack, packed = store_write.pack_features, []

    def dying(*arguments: Any) -> Any:
        if len(packed) == 2:
            raise KeyboardInterrupt
        packed.append(pack(*arguments))
        return packed[-1]

    monkeypatch.setattr(store_write, "pack_features", dying)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, tokens(), segment_bytes=1)
    monkeypatch.setattr(store_write, "pack_features", pack)
    version = write(tmp_path, tokens(), segment_bytes=1)
    assert [each.segment.name for each in packed] == list(version.segments[:2])
    assert (version.written["segments"], len(version.segments)) == (1, 3)


def test_checksums_are_xxh3_64_of_the_rows_whatever_their_size(tmp_path: Path) -> None:
    """Those of longer rows are halves of their sources (XXH3 beyond 240 bytes; a token has 16 here)."""
    lengths = np.arange(40)
    values = np.random.default_rng(0).normal(size=(int(lengths.sum()), 8)).astype(np.float16)
    ids = [str(row) for row in range(40)]
    write_features(storage_at(tmp_path / "toy"), IDENTITY, ids, ids_digest(ids), lengths, values)
    parts = np.split(values, np.cumsum(lengths)[:-1])
    assert opened(tmp_path).checksums.tolist() == [xxhash.xxh3_64_intdigest(p) if len(p) else 0 for p in parts]
    assert opened(tmp_path).index.source[39].tobytes() == xxhash.xxh3_128_digest(parts[39])


def test_the_same_bytes_of_another_type_are_other_features(tmp_path: Path) -> None:
    """Two tokens of float16 have the bytes of one of float32, of the same width."""
    halves = np.random.default_rng(0).normal(size=(2, 8)).astype(np.float16)
    whole = np.random.default_rng(1).normal(size=(1, 8)).astype(np.float16).astype(np.float32)
    both = np.frombuffer(whole.tobytes(), np.float16).reshape(2, 8)
    assert np.isfinite(both).all()
    dataset = storage_at(tmp_path / "toy")
    for values in (halves, both, whole):
        write_features(dataset, IDENTITY, ["a"], ids_digest(["a"]), [len(values)], values)
        assert np.array_equal(opened(tmp_path)[0], values.astype(np.float16))


def test_a_notebook_shows_what_a_store_holds_and_no_markup_of_its_names(tmp_path: Path) -> None:
    identity = Identity("text", "<img src=x onerror=alert(1)>", {})
    write_features(storage_at(tmp_path / "<b>toy"), identity, IDS, ids_digest(IDS), LENGTHS, tokens())
    shown = open_features(tmp_path / "<b>toy" / identity.folder)._repr_html_()
    assert "&lt;img src=x onerror=alert(1)&gt;" in shown
    assert not {"<img", "<b>"} & {shown[i : i + n] for n in (3, 4) for i in range(len(shown))}
    for name, value in {"samples": "4", "ok": "3", "missing": "1", "tokens": "9", "width": "8"}.items():
        assert f"<th>{name}</th>" in shown
        assert f"<td>{value}</td>" in shown
