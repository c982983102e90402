"""Streams of batches: every sample once over ranks and workers, one order by seed and epoch, and exact resumption."""

from __future__ import annotations

import itertools
import json
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from pgm import FeatureDataset, FeatureLoader, IterableFeatureDataset
from pgm.cache.errors import UserError
from pgm.loaders.iterable import dealt
from torch.utils.data import DataLoader

from .conftest import Toy, write
from .test_dataset import assert_same

# On a machine with fewer cores than workers.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


def stream(toy: Toy, batch_size: int = 4, version: int | None = None, **options: Any) -> IterableFeatureDataset:
    return IterableFeatureDataset(FeatureDataset(toy.open(version), "train"), batch_size, **options)


def ids(batches: Any) -> list[list[str]]:
    return [batch["id"] for batch in batches]


@pytest.mark.parametrize(("ranks", "workers", "batch_size"), [(1, 0, 5), (1, 2, 5), (3, 2, 4), (2, 3, 1), (5, 0, 43)])
def test_every_sample_comes_once_over_ranks_and_workers(toy: Toy, ranks: int, workers: int, batch_size: int) -> None:
    every = [ids(FeatureLoader(stream(toy, batch_size, rank=rank, world_size=ranks), workers)) for rank in range(ranks)]
    assert len({len(batches) for batches in every}) == 1, "ranks that wait for one another have equally many batches"
    assert all(batch for batches in every for batch in batches)
    assert max(len(batch) for batches in every for batch in batches) <= batch_size + 1
    seen = [name for batches in every for batch in batches for name in batch]
    assert sorted(seen) == sorted(FeatureDataset(toy.open(), "train").ids.to_pylist())
    assert len(seen) == 43


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("batch", [1, 4])
def test_dealing_gives_all_samples_and_equally_many_batches(ranks: int, batch: int) -> None:
    for samples in range(1, 40):
        sizes = dealt(samples, batch, ranks, drop_last=False)
        assert sizes.sum() == samples
        assert samples < ranks or (sizes > 0).all()
        assert (sizes[:-1] == batch).all()
        whole = dealt(samples, batch, ranks, drop_last=True)
        assert (whole == batch).all()
        assert whole.sum() == samples - samples % (batch * ranks)


def test_the_order_is_by_seed_and_epoch_whatever_the_workers(toy: Toy) -> None:
    first = ids(stream(toy))
    assert first == ids(stream(toy)) == ids(FeatureLoader(stream(toy), 2))
    assert first != ids(stream(toy, seed=1))
    one = stream(toy)
    assert ids(one) == first
    assert one.epoch == 1
    assert ids(one) != first
    one.set_epoch(0)
    assert ids(one) == first
    assert [name for batch in ids(stream(toy, shuffle=False)) for name in batch] == one.dataset.ids.to_pylist()


def test_batches_are_those_of_the_dataset_padded_or_packed(toy: Toy) -> None:
    for packed in (False, True):
        batches = stream(toy, packed=packed)
        order = batches.order(0)
        for number, batch in enumerate(FeatureLoader(batches, 2)):
            positions = order[4 * number : 4 * number + 4]
            made = batches.dataset.packed(positions) if packed else batches.dataset.padded(positions)
            assert_same(batch, made)


def test_a_plain_dataloader_takes_it_too_and_says_where_the_state_is(toy: Toy) -> None:
    one = stream(toy)
    loader = DataLoader(one, batch_size=None, num_workers=2, persistent_workers=True)
    epochs = []
    for epoch in range(2):
        one.set_epoch(epoch)
        epochs.append(ids(loader))
    expected = stream(toy)
    assert epochs == [ids(expected), ids(expected)]
    with pytest.raises(UserError, match="use FeatureLoader's state_dict"):
        one.state_dict()


@pytest.mark.parametrize(("workers", "then"), [(0, 2), (3, 1)])
@pytest.mark.parametrize("left", [0, 7, 11, 15])
def test_a_resumed_loop_goes_on_as_if_it_had_not_been_left(toy: Toy, workers: int, then: int, left: int) -> None:
    whole = stream(toy)
    uninterrupted = [batch for _ in range(2) for batch in whole]
    loader = FeatureLoader(stream(toy), workers)
    coming = itertools.chain.from_iterable(iter(lambda: loader, None))
    seen = list(itertools.islice(coming, left))
    state = json.loads(json.dumps(loader.state_dict()))
    assert state["samples"] == 4 * (left % 11), "the last batch of an epoch leads to the next one"
    resumed = FeatureLoader(stream(toy), then)
    resumed.load_state_dict(state)
    for _ in range(2 - state["epoch"]):
        seen += list(resumed)
    assert len(seen) == len(uninterrupted) == 22
    for batch, expected in zip(seen, uninterrupted, strict=True):
        assert_same(batch, expected)


def test_a_dataset_iterated_in_its_own_process_resumes_itself(toy: Toy) -> None:
    whole = list(stream(toy))
    one = stream(toy)
    seen = list(itertools.islice(one, 4))
    other = stream(toy)
    other.load_state_dict(one.state_dict())
    for batch, expected in zip([*seen, *other], whole, strict=True):
        assert_same(batch, expected)


def test_persistent_workers_go_on_to_the_next_epoch_and_from_a_loaded_state(toy: Toy) -> None:
    expected = stream(toy)
    epochs = [ids(expected) for _ in range(3)]
    loader = FeatureLoader(stream(toy), 2, persistent_workers=True)
    assert [ids(loader) for _ in range(2)] == epochs[:2]
    kept = loader.state_dict()
    assert ids(itertools.islice(loader, 3)) == epochs[2][:3]
    assert ids(itertools.islice(loader, 3)) == epochs[2][:3], "left early, it begins again where it began"
    half = loader.state_dict()
    assert ids(loader) == epochs[2]
    loader.load_state_dict(half)
    assert ids(loader) == epochs[2][3:]
    loader.load_state_dict(kept)
    assert ids(loader) == epochs[2]


@pytest.mark.parametrize(("ranks", "batch_size"), [(1, 3), (4, 2)])
def test_a_state_can_be_loaded_by_other_ranks_and_batch_sizes(toy: Toy, ranks: int, batch_size: int) -> None:
    two = [FeatureLoader(stream(toy, rank=rank, world_size=2)) for rank in range(2)]
    seen = [batch for loader in two for batch in itertools.islice(loader, 3)]
    assert two[0].state_dict() == two[1].state_dict()
    for rank in range(ranks):
        loader = FeatureLoader(stream(toy, batch_size, rank=rank, world_size=ranks))
        loader.load_state_dict(two[0].state_dict())
        seen += list(loader)
    names = [name for batch in ids(seen) for name in batch]
    assert sorted(names) == sorted(two[0].dataset.dataset.ids.to_pylist())
    assert len(names) == len(set(names))


def test_spawned_workers_read_the_version_that_was_opened(toy: Toy) -> None:
    one = stream(toy)
    before = ids(stream(toy))
    write(toy.root, 80)
    loader = FeatureLoader(one, 1, multiprocessing_context="spawn")
    assert ids(loader) == before
    assert ids(pickle.loads(pickle.dumps(stream(toy, version=1)))) == before


def test_a_state_of_another_order_is_refused(toy: Toy) -> None:
    one = stream(toy)
    state = one.state_dict()
    with pytest.raises(UserError, match="seed was 0 and is 3"):
        stream(toy, seed=3).load_state_dict(state)
    write(toy.root, 80)
    grown = r"saved on version 1 of toy, and toy is open at version 2: open_dataset\(\.\.\., version=N\)"
    with pytest.raises(UserError, match=grown):
        stream(toy).load_state_dict(state)
    stream(toy, version=1).load_state_dict(state)


def test_what_cannot_be_dealt_is_refused(toy: Toy) -> None:
    with pytest.raises(UserError, match="43 samples cannot be dealt to 44 ranks"):
        stream(toy, rank=0, world_size=44)
    with pytest.raises(UserError, match="rank 2 of 2"):
        stream(toy, rank=2, world_size=2)


def test_ranks_come_from_the_launcher(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert (stream(toy).rank, stream(toy).world_size) == (1, 3)


def test_drop_last_leaves_full_batches_alone(toy: Toy) -> None:
    loader = FeatureLoader(stream(toy, drop_last=True), 2)
    assert [len(batch) for batch in ids(loader)] == [4] * 10
    assert len(loader) == 10
    assert loader.state_dict()["epoch"] == 1
    assert np.unique([name for batch in ids(loader) for name in batch]).size == 40


def test_batches_can_be_held_while_others_are_made(toy: Toy) -> None:
    held = list(stream(toy))
    copies = [{name: tokens.clone() for name, tokens in batch["tokens"].items()} for batch in stream(toy)]
    for batch, copy in zip(held, copies, strict=True):
        for name in copy:
            assert torch.equal(batch["tokens"][name], copy[name])
