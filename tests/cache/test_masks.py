"""Masks of missing modalities: exact, nested, never a sample's last modality; kept sealed; and stores seen through
them."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pgm.cache import (
    Features,
    Fill,
    Mask,
    ids_digest,
    make_mask,
    masked,
    open_features,
    storage_at,
    write_features,
)
from pgm.cache.dataset.masks import PARTS, draw_hidden, largest_rate
from pgm.cache.dataset.verify import verify_dataset
from pgm.cache.errors import CorruptStore, SampleUnavailable, UserError

from .conftest import IDENTITY, make_store

Bools = np.ndarray


def cut(count: int) -> dict[str, np.ndarray]:
    """Three splits of unequal size, and a tenth of the rows in none."""
    rows = np.random.default_rng(count).permutation(count)
    a, b, c = count // 2, count // 2 + count // 5, count - count // 10
    return {"train": np.sort(rows[:a]), "val": np.sort(rows[a:b]), "test": np.sort(rows[b:c])}


@st.composite
def cells(draw: Callable[..., int]) -> np.ndarray:
    """(N, M) presence, some rows with nothing at all."""
    count, modalities = draw(st.integers(3, 80)), draw(st.integers(2, 5))
    generator = np.random.default_rng(draw(st.integers(0, 999)))
    return generator.random((count, modalities)) >= draw(st.sampled_from([0.0, 0.1, 0.5]))


@settings(max_examples=200, deadline=None)
@given(present=cells(), rate=st.floats(0, 0.999), seed=st.integers(0, 2**32 - 1))
def test_the_rate_is_met_and_every_sample_keeps_a_modality_it_has(present: Bools, rate: float, seed: int) -> None:
    splits = cut(len(present))
    hidden = draw_hidden(present, splits, rate, seed)
    assert not (hidden & ~present).any(), "what is not there cannot be hidden"
    assert np.array_equal((present & ~hidden).any(axis=1), present.any(axis=1)), "a sample lost its last modality"
    for part in PARTS:
        rows = splits[part]
        there = int(present[rows].sum())
        most = there - int(present[rows].any(axis=1).sum())
        assert hidden[rows].sum() == min(round(rate * there), most)
    outside = np.setdiff1d(np.arange(len(present)), np.concatenate(list(splits.values())))
    assert not hidden[outside].any()
    assert np.array_equal(hidden, draw_hidden(present, splits, rate, seed))


@settings(max_examples=100, deadline=None)
@given(present=cells(), rates=st.lists(st.floats(0, 0.999), min_size=2, max_size=2), seed=st.integers(0, 999))
def test_masks_of_one_seed_are_nested(present: Bools, rates: list[float], seed: int) -> None:
    low, high = (draw_hidden(present, cut(len(present)), rate, seed) for rate in sorted(rates))
    assert not (low & ~high).any()


def test_with_all_modalities_the_largest_rate_is_all_but_one() -> None:
    for modalities, largest in ((2, 1 / 2), (3, 2 / 3), (4, 3 / 4)):
        present = np.ones((60, modalities), bool)
        assert largest_rate(present, cut(60)) == pytest.approx(largest)
        assert draw_hidden(present, cut(60), 0.99, 0)[cut(60)["train"]].sum(1).tolist() == [modalities - 1] * 30


def test_the_kept_modality_and_the_hidden_ones_are_uniform() -> None:
    present = np.ones((6000, 3), bool)
    splits = {"train": np.arange(6000), "val": np.arange(0), "test": np.arange(0)}
    kept = ~draw_hidden(present, splits, 0.99, 0)
    assert np.abs(kept.mean(axis=0) - 1 / 3).max() < 0.03
    hidden = draw_hidden(present, splits, 0.3, 1)
    assert np.abs(hidden.mean(axis=0) - 0.3).max() < 0.03
    other = draw_hidden(present, splits, 0.3, 2)
    assert 0.05 < (hidden & other).mean() < 0.13, "another seed draws independently: .09 of both"


def test_each_split_has_its_own_draw() -> None:
    present, same = np.ones((50, 2), bool), np.arange(50)
    drawn = [
        draw_hidden(present, {**dict.fromkeys(PARTS, np.arange(0)), part: same}, 0.4, 0).tobytes() for part in PARTS
    ]
    assert len(set(drawn)) == 3


def ask(folder: Path, rate: float = 0.3, seed: int = 0, count: int = 40, gaps: float = 0.1) -> Mask:
    present = {name: np.random.default_rng(place).random(count) >= gaps for place, name in enumerate(["text", "audio"])}
    folder.mkdir(exist_ok=True)
    return make_mask(storage_at(folder), [f"s{row}" for row in range(count)], present, cut(count), rate, seed)


def same(one: Mapping[str, Bools], other: Mapping[str, Bools]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_a_mask_is_kept_beside_the_features_and_read_back(
    tmp_path: Path, tree: Callable[[Path], dict[str, bytes]]
) -> None:
    made = ask(tmp_path / "toy")
    (seal,) = (tmp_path / "toy" / "masks").glob("*.mask.json")
    (file,) = (tmp_path / "toy" / "masks").glob("*.parquet")
    assert seal.name == "rate0.3-seed0-f5e2f6c4.mask.json"
    drawn = {name: np.packbits(hidden).tobytes().hex() for name, hidden in made.hidden.items()}
    assert drawn == {"audio": "46013080d0", "text": "8902c11020"}, "the numbers of every release"
    table = pq.read_table(file)
    assert table.column_names == ["id", "audio", "text"]
    assert np.array_equal(table["text"].to_numpy(), ~made.hidden["text"])
    before = tree(tmp_path)
    again = ask(tmp_path / "toy")
    assert same(again.hidden, made.hidden)
    assert (again.rate, again.achieved, again.note) == (made.rate, made.achieved, "")
    assert tree(tmp_path) == before
    ask(tmp_path / "toy", 0.4)
    ask(tmp_path / "toy", 0.3, seed=1)
    assert len(list((tmp_path / "toy" / "masks").iterdir())) == 6
    assert ask(tmp_path / "toy", 0.0).achieved == {"train": 0, "val": 0, "test": 0}
    assert len(list((tmp_path / "toy" / "masks").iterdir())) == 6, "rate 0 needs no mask"


def test_the_order_modalities_are_named_in_changes_nothing(tmp_path: Path) -> None:
    present = {"text": np.arange(30) % 3 > 0, "audio": np.arange(30) % 4 > 0, "vision": np.ones(30, bool)}
    ids = [f"s{row}" for row in range(30)]
    one = make_mask(storage_at(tmp_path), ids, present, cut(30), 0.3)
    other = make_mask(storage_at(tmp_path), ids, dict(reversed(present.items())), cut(30), 0.3)
    assert same(dict(sorted(one.hidden.items())), dict(sorted(other.hidden.items())))
    assert len(list((tmp_path / "masks").iterdir())) == 2


def test_a_rate_above_what_the_data_allows_is_the_largest_and_both_are_one_mask(tmp_path: Path) -> None:
    one, other = ask(tmp_path / "toy", 0.7), ask(tmp_path / "toy", 0.9)
    assert one.rate == other.rate < 0.5
    assert same(one.hidden, other.hidden)
    assert len(list((tmp_path / "toy" / "masks").iterdir())) == 2


def test_other_stores_or_splits_have_their_own_mask(tmp_path: Path) -> None:
    ask(tmp_path / "toy")
    ask(tmp_path / "toy", gaps=0.2)
    assert len(list((tmp_path / "toy" / "masks").glob("*.parquet"))) == 2


def test_the_part_of_a_split_is_nothing_else(tmp_path: Path) -> None:
    mask = ask(tmp_path / "toy", 0.4)
    inside = np.isin(np.arange(40), mask.splits["test"])
    for name, hidden in mask.of("test").items():
        assert np.array_equal(hidden, mask.hidden[name] & inside)
        assert np.array_equal(hidden | mask.of("train", "val")[name], mask.hidden[name])


@pytest.mark.parametrize("end", [".parquet", ".mask.json"])
@pytest.mark.parametrize("damage", ["flip", "gone"])
def test_a_damaged_mask_is_an_error_that_says_what_to_do(tmp_path: Path, end: str, damage: str) -> None:
    ask(tmp_path / "toy")
    (path,) = (tmp_path / "toy" / "masks").glob(f"*{end}")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content) if damage == "flip" else path.unlink()
    if (end, damage) == (".mask.json", "gone"):
        assert ask(tmp_path / "toy").note == "", "what a killed writer left is drawn over"
        return
    with pytest.raises(CorruptStore, match=r"Delete .*mask\.json,? and run the command again: it draws the same mask"):
        ask(tmp_path / "toy")


def test_an_edited_mask_is_no_mask(tmp_path: Path) -> None:
    ask(tmp_path / "toy")
    (path,) = (tmp_path / "toy" / "masks").glob("*.parquet")
    table = pq.read_table(path)
    pq.write_table(table.set_column(1, "audio", [[True] * len(table)]), path)
    with pytest.raises(CorruptStore, match="not as it was written"):
        ask(tmp_path / "toy")


def test_a_folder_that_cannot_be_written_to_costs_nothing_but_a_note(tmp_path: Path) -> None:
    made = ask(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "masks").write_text("in the way")
    kept = ask(tmp_path / "b")
    assert same(kept.hidden, made.hidden)
    assert "masks are not saved" in kept.note
    if os.getuid():
        (tmp_path / "c").mkdir()
        (tmp_path / "c").chmod(0o500)
        assert "Permission denied" in ask(tmp_path / "c").note


@pytest.mark.parametrize(
    ("rate", "seed", "names", "message"),
    [
        (1.0, 0, ("text", "audio"), "share from 0 to under 1, not 1"),
        (-0.1, 0, ("text", "audio"), "share from 0 to under 1"),
        (float("nan"), 0, ("text", "audio"), "share from 0 to under 1"),
        (0.1, -1, ("text", "audio"), "seed is 0 or more"),
        (0.1, 0, ("text",), "text is all there is"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    tmp_path: Path, rate: float, seed: int, names: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        make_mask(storage_at(tmp_path), ["a", "b"], {name: np.ones(2, bool) for name in names}, cut(2), rate, seed)
    assert not list(tmp_path.iterdir())


@pytest.fixture(params=["float32", "int8"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Features:
    """20 samples of 0 to 4 tokens."""
    return make_store(tmp_path / "toy", np.arange(20) % 5, 3, 8, stored=request.param).features


@pytest.mark.parametrize("fill", ["skip", "zero"])
def test_every_way_to_read_a_store_sees_the_mask(store: Features, fill: Fill) -> None:
    hidden = np.arange(20) % 3 == 0
    seen = pickle.loads(pickle.dumps(masked(store, hidden, fill)))
    rows = np.random.default_rng(1).permutation(20)
    tokens, lengths = seen.gather(rows, unavailable="empty")
    plain = [store[row] if store.available[row] else np.zeros((0, 3), store.dtype) for row in rows]
    gone = [(t[:0] if fill == "skip" else 0 * t) if hidden[row] else t for row, t in zip(rows, plain, strict=True)]
    assert lengths.tolist() == [len(t) for t in gone]
    assert np.array_equal(tokens, np.concatenate(gone))
    out = np.empty((len(tokens) + 2, 3), store.dtype)
    assert np.array_equal(seen.gather(rows, out, "empty")[0], tokens)
    padded, mask = seen.padded(rows, unavailable="empty")
    assert np.array_equal(padded[mask], tokens)
    assert not padded[~mask].any()
    assert np.array_equal(seen.available, store.available & ~hidden if fill == "skip" else store.available)
    read = dict(iter(seen))
    assert sorted(read) == np.flatnonzero(seen.available).tolist()
    for row, values in read.items():
        assert np.array_equal(values, seen[row])
    if fill == "skip":
        with pytest.raises(SampleUnavailable, match="missing"):
            seen[6]
    else:
        assert not seen[6].any()
        assert not seen[6].flags.writeable
    assert store[6].all(), "the store itself is as it was"


@pytest.mark.parametrize("fill", ["skip", "zero"])
@pytest.mark.parametrize("stored", ["float16", "int8"])
def test_masked_features_say_of_themselves_what_a_store_without_those_samples_would(
    tmp_path: Path, fill: Fill, stored: str
) -> None:
    lengths, hidden = np.array([3, 1, 2, 0, 4]), np.array([True, False, True, True, False])
    whole = make_store(tmp_path / "whole", lengths, stored=stored)
    seen = masked(whole.features, hidden, fill)
    kept = np.where(hidden, 0, lengths) if fill == "skip" else lengths
    written = [np.zeros_like(tokens) if gone else tokens for tokens, gone in zip(whole.oracle, hidden, strict=True)]
    expected = rewritten(tmp_path / "expected", kept, written, stored)
    assert seen.content == expected.content
    assert seen.checksums.tolist() == expected.checksums.tolist()
    assert seen.lengths.tolist() == expected.lengths.tolist()
    assert dict(seen.version.counts) == dict(expected.version.counts)
    assert seen.content != whole.features.content


def rewritten(place: Path, lengths: np.ndarray, oracle: list[np.ndarray], stored: str) -> Features:
    """A store of just these tokens, by the call an import makes."""
    ids = [f"clip/{row}" for row in range(len(lengths))]
    tokens = np.concatenate([part[:length] for part, length in zip(oracle, lengths.tolist(), strict=True)])
    version = write_features(storage_at(place), IDENTITY, ids, ids_digest(ids), lengths, tokens, stored)  # type: ignore[arg-type]
    return open_features(place / IDENTITY.folder, version.number)


def test_verify_knows_of_masks(tmp_path: Path) -> None:
    ask(tmp_path / "toy")
    dataset = storage_at(tmp_path / "toy")
    assert verify_dataset(dataset).sound
    (path,) = (tmp_path / "toy" / "masks").glob("*.mask.json")
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    assert ["masks" in problem.file for problem in verify_dataset(dataset).problems] == [True]
