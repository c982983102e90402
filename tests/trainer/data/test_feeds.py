"""Feeds: resident and mapped give the same batches; every sample once; pooling is the mean it says it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pgm.cache import Identity, ids_digest, open_dataset, open_features, storage_at, write_features
from pgm.cache.errors import UserError
from pgm.trainer.data.feed import open_feed
from pgm.trainer.data.order import evaluation_order, training_order
from pgm.trainer.data.pooling import pooled, pooled_lengths

CPU = torch.device("cpu")


@pytest.mark.parametrize("tokens", [0, 2, 50])
def test_resident_and_mapped_give_the_same_batches_bit_for_bit(toy: Path, tokens: int) -> None:
    dataset = open_dataset(toy, "toy")
    features = {m: dataset.features(m) for m in ("text", "vision")}
    rows = np.arange(5, 90, dtype=np.int64)
    targets = np.arange(len(rows))
    feeds = [open_feed(kind, features, rows, targets, tokens, CPU) for kind in ("resident", "mapped")]
    order = training_order(feeds[0].total_lengths, 16, seed=3)
    count = 0
    for one, other in zip(feeds[0].batches(order), feeds[1].batches(order), strict=True):
        count += len(one)
        assert torch.equal(one.samples, other.samples)
        assert torch.equal(one.targets, other.targets)
        for name in features:
            assert torch.equal(one.inputs.tokens[name], other.inputs.tokens[name])
            assert torch.equal(one.inputs.masks[name], other.inputs.masks[name])
            if tokens:
                assert one.inputs.masks[name].sum(1).max() <= tokens
    assert count == len(rows)


def test_a_batch_holds_the_stores_tokens_and_zeros(toy: Path) -> None:
    store = open_dataset(toy, "toy").features("text")
    rows = np.arange(20, dtype=np.int64)
    feed = open_feed("resident", {"text": store}, rows, rows, 0, CPU)
    (batch,) = feed.batches([rows])
    for row in rows:
        mask = batch.inputs.masks["text"][row]
        real = store[int(row)] if store.available[row] else np.zeros((0, store.dim), np.float32)
        assert np.array_equal(batch.inputs.tokens["text"][row][mask].numpy(), real)
        assert not batch.inputs.tokens["text"][row][~mask].any()
    assert not store.available[rows].all(), "the toy dataset should lack some texts"


def test_leaving_a_mapped_feed_early_stops_its_thread(toy: Path) -> None:
    store = open_dataset(toy, "toy").features("text")
    rows = np.arange(90, dtype=np.int64)
    batches = open_feed("mapped", {"text": store}, rows, rows, 0, CPU).batches(
        [rows[i : i + 4] for i in range(0, 88, 4)]
    )
    next(batches)
    batches.close()
    import threading

    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pgm-feed")]


def test_the_feed_is_chosen_by_memory_and_says_why(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_dataset(toy, "toy").features("text")
    rows = np.arange(90, dtype=np.int64)
    feed = open_feed("auto", {"text": store}, rows, rows, 0, torch.device("meta"))
    assert feed.kind == "resident"
    assert "MiB of tokens" in feed.reason
    monkeypatch.setattr("pgm.trainer.data.feed.free_memory", lambda device: 1000)
    assert open_feed("auto", {"text": store}, rows, rows, 0, CPU).kind == "mapped"
    assert open_feed("auto", {"text": store}, rows, rows, 0, torch.device("meta")).kind == "mapped"
    with pytest.raises(UserError, match=r"use --feed mapped, or pool with --tokens"):
        open_feed("resident", {"text": store}, rows, rows, 0, CPU)
    with pytest.raises(UserError, match="auto, resident or mapped"):
        open_feed("streamed", {"text": store}, rows, rows, 0, CPU)


@pytest.mark.parametrize("batch", [16, 32, 64])
@pytest.mark.parametrize("texts", ["any length alike", "mostly short"])
def test_less_than_a_tenth_of_the_batches_of_texts_is_padding(batch: int, texts: str) -> None:
    """Texts of 1 to 64 tokens; in batches drawn without regard to length about half would be."""
    generator = np.random.default_rng(0)
    drawn = generator.integers(1, 65, 8000) if texts == "any length alike" else generator.lognormal(2.8, 0.6, 8000)
    lengths = np.clip(drawn, 1, 64).astype(np.int64)
    places = sum(len(rows) * int(lengths[rows].max()) for rows in training_order(lengths, batch, seed=1))
    assert 1 - lengths.sum() / places < 0.1


@pytest.mark.parametrize(
    ("store", "tokens", "kind"),
    [({}, 0, "mapped"), ({"codec": "zstd"}, 0, "resident"), ({"stored": "int8"}, 0, "resident"), ({}, 2, "resident")],
)
def test_a_cpu_copies_only_what_it_would_decode_again_each_epoch(
    tmp_path: Path, store: dict[str, Any], tokens: int, kind: str
) -> None:
    ids, lengths, identity = [f"{row:02d}" for row in range(40)], np.arange(40) % 5, Identity("text", "e", {})
    values = np.random.default_rng(0).standard_normal((int(lengths.sum()), 6)).astype(np.float32)
    write_features(storage_at(tmp_path), identity, ids, ids_digest(ids), lengths, values, **store)
    features = {"text": open_features(tmp_path / identity.folder)}
    rows = np.arange(40, dtype=np.int64)
    feed = open_feed("auto", features, rows, rows, tokens, CPU)
    assert feed.kind == kind
    assert (feed.reason == "read where they lie") == (kind == "mapped")


def test_a_mapped_feed_uses_its_buffers_again(toy: Path) -> None:
    """As many as a feed has in hand: fresh memory would cost more than the copy into it."""
    store = open_dataset(toy, "toy").features("vision")
    rows = np.arange(100, dtype=np.int64)
    feed = open_feed("mapped", {"vision": store}, rows, rows, 0, CPU)
    order = [rows[start : start + 10] for start in range(0, 100, 10)]

    def outside() -> int:
        kept = store._buffers._buffers
        count, in_hand = 0, []
        for batch in feed.batches(order):
            in_hand = [*in_hand, batch][-2:]  # the step before is not quite done
            time.sleep(0.02)  # meanwhile the next batches are made
            count += not any(np.may_share_memory(batch.inputs.tokens["vision"].numpy(), buffer) for buffer in kept)
        return count

    assert outside() == 0
    before = [buffer.ctypes.data for buffer in store._buffers._buffers]
    assert outside() == 0
    # On a busy machine the first pass may have had fewer in hand at once.
    assert [buffer.ctypes.data for buffer in store._buffers._buffers][: len(before)] == before


@given(st.lists(st.integers(0, 60), min_size=1, max_size=200), st.integers(1, 40), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_every_order_holds_every_sample_once(lengths: list[int], batch: int, seed: int) -> None:
    array = np.array(lengths)
    for order in (training_order(array, batch, seed), evaluation_order(array, batch)):
        assert sorted(np.concatenate(order).tolist()) == list(range(len(lengths)))
        assert max(map(len, order)) <= batch


def test_bucketing_saves_padding_and_the_seed_decides_the_order() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 4000)
    bucketed = training_order(lengths, 32, seed=1)
    padded = sum(lengths[rows].max() * len(rows) for rows in bucketed)
    shuffled = np.random.default_rng(0).permutation(4000).reshape(-1, 32)
    plain = sum(lengths[rows].max() * len(rows) for rows in shuffled)
    assert padded < 1.15 * lengths.sum()
    assert plain > 1.8 * lengths.sum()
    assert [r.tolist() for r in bucketed] == [r.tolist() for r in training_order(lengths, 32, seed=1)]
    assert [r.tolist() for r in bucketed] != [r.tolist() for r in training_order(lengths, 32, seed=2)]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=12), st.integers(1, 12))
@settings(max_examples=80, deadline=None)
def test_pooling_is_the_mean_of_consecutive_runs(lengths: list[int], limit: int) -> None:
    array = np.array(lengths)
    tokens = np.random.default_rng(0).normal(size=(int(array.sum()), 3)).astype(np.float16)
    found = pooled(tokens, array, limit)
    expected = []
    for start, length in zip(np.cumsum(array) - array, array, strict=True):
        short = min(length, limit)
        sample = tokens[start : start + length].astype(np.float32)
        expected += [sample[k * length // short : (k + 1) * length // short].mean(0) for k in range(short)]
    assert len(found) == pooled_lengths(array, limit).sum()
    if expected:
        assert np.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("method", ["concat", "pgm"])
def test_both_feeds_train_to_the_same_weights(
    toy: Path, tmp_path: Path, method: str, quick: Callable[..., object]
) -> None:
    one = quick(toy, tmp_path / "a", method, feed="resident")
    other = quick(toy, tmp_path / "b", method, feed="mapped")
    assert one.weights.read_bytes() == other.weights.read_bytes()


def test_statistics_are_those_of_the_training_tokens_and_constant_features_become_zero(tmp_path: Path) -> None:
    from pgm.cache import Identity, open_features, storage_at, write_features
    from pgm.trainer.batch import Inputs
    from pgm.trainer.run.model import Standardize, statistics_of

    generator = np.random.default_rng(0)
    tokens = (generator.normal(size=(3000, 4)) * [1e-3, 1, 300, 0] + [5, 0, -40, 7]).astype(np.float32)
    ids, identity = [f"{row}" for row in range(1000)], Identity("text", "x", {})
    write_features(storage_at(tmp_path), identity, ids, "ids", np.full(1000, 3), tokens, "float32")
    store = open_features(tmp_path / identity.folder)
    mean, scale = statistics_of(store, np.arange(500))
    wanted = tokens[:1500].astype(np.float64)
    assert np.allclose(mean.numpy(), wanted.mean(0), rtol=1e-5, atol=1e-5)
    assert np.allclose(1 / scale.numpy()[:3], wanted.std(0)[:3], rtol=1e-3)
    seen = Standardize({"text": (mean, scale)})(
        Inputs({"text": torch.from_numpy(tokens[None] * 1.0)}, {"text": torch.ones(1, 3000, dtype=torch.bool)})
    ).tokens["text"]
    assert not seen[..., 3].any()
    assert seen[:, :1500, :3].std(dim=1).sub(1).abs().max() < 0.01
    assert seen.abs().max() <= 10
