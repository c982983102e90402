"""A torch Dataset of a split gives what was written: ragged, missing, through workers, pickled, after growth."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pgm import FeatureDataset, collate_packed, collate_padded
from pgm.cache import make_split
from pgm.cache.errors import NotFound, UserError
from torch.utils.data import DataLoader

from .conftest import CARD, STORED, WIDTHS, Toy, write

# On a machine with fewer cores than workers.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


def assert_same(left: Any, right: Any) -> None:
    assert left.keys() == right.keys()
    for key, value in left.items():
        if isinstance(value, dict):
            assert_same(value, right[key])
        elif isinstance(value, torch.Tensor):
            assert value.dtype == right[key].dtype
            assert torch.equal(value, right[key]), key
        else:
            assert value == right[key], key


def test_a_sample_is_what_was_written(toy: Toy) -> None:
    dataset = FeatureDataset(toy.open(), "test")
    assert dataset.widths == WIDTHS
    assert [dataset[place]["row"] for place in range(len(dataset))] == list(range(4, 53, 5))
    for sample in (dataset[place] for place in range(len(dataset))):
        row = sample["row"]
        assert (sample["id"], sample["label"]) == (f"s{row}", row % 2)
        for name, tokens in sample["tokens"].items():
            assert tokens.dtype == getattr(torch, STORED[name])
            assert np.array_equal(tokens.numpy(), toy.tokens[name][row])


def test_it_ends_where_it_ends(toy: Toy) -> None:
    dataset = FeatureDataset(toy.open(), "test")
    assert len(list(dataset)) == len(dataset) == 10
    with pytest.raises(IndexError):
        dataset[10]


@pytest.mark.parametrize("collate", [collate_padded, collate_packed])
@pytest.mark.parametrize("positions", [[3, 0, 7, 7], [9], list(range(10))])
def test_batches_gathered_at_once_are_those_of_the_collate_functions(toy: Toy, collate: Any, positions: Any) -> None:
    dataset = FeatureDataset(toy.open(), "test")
    at_once = dataset.padded(positions) if collate is collate_padded else dataset.packed(positions)
    assert_same(collate([dataset[place] for place in positions]), at_once)


def test_padding_and_masks_say_which_tokens_are_real(toy: Toy) -> None:
    dataset = FeatureDataset(toy.open())
    batch = dataset.padded(np.arange(53))
    for name, tokens in batch["tokens"].items():
        for row in range(53):
            real = batch["mask"][name][row]
            assert np.array_equal(tokens[row][real].numpy(), toy.tokens[name][row])
            assert not tokens[row][~real].any()
    packed = dataset.packed(np.arange(53))
    nested = torch.nested.nested_tensor_from_jagged(packed["tokens"]["text"], packed["offset"]["text"])
    assert [len(piece) for piece in nested.unbind()] == [len(tokens) for tokens in toy.tokens["text"]]


def test_a_batch_without_a_modality_keeps_its_shape(toy: Toy) -> None:
    dataset = FeatureDataset(toy.open())
    empty = [row for row, tokens in enumerate(toy.tokens["text"]) if not len(tokens)][:3]
    for batch in (dataset.padded(empty), collate_padded([dataset[row] for row in empty])):
        assert batch["tokens"]["text"].shape == (3, 1, 3)
        assert not batch["mask"]["text"].any()
    assert dataset.packed(empty)["offset"]["text"].tolist() == [0, 0, 0, 0]


def test_a_dataloader_with_workers_gives_every_sample_once(toy: Toy) -> None:
    dataset = FeatureDataset(toy.open(), "train")
    loader = DataLoader(dataset, 8, shuffle=True, collate_fn=collate_padded, num_workers=2)
    batches = list(loader)
    rows = torch.cat([batch["row"] for batch in batches]).tolist()
    assert sorted(rows) == dataset.rows.tolist()
    for batch in batches:
        assert_same(batch, dataset.padded(np.searchsorted(dataset.rows, batch["row"].numpy())))


def test_it_stays_at_its_version_while_the_dataset_grows_and_pickled_too(toy: Toy) -> None:
    dataset = FeatureDataset(toy.open(), "train")
    sent = pickle.dumps(dataset)
    before = dataset.padded(np.arange(len(dataset)))
    write(toy.root, 80)
    assert len(FeatureDataset(toy.open(), "train")) == 64
    again = pickle.loads(sent)
    assert len(sent) < 2000, "a place and a version, not what lies there"
    for opened in (dataset, again, FeatureDataset(toy.open(1), "train")):
        assert_same(opened.padded(np.arange(len(opened))), before)


def test_modalities_and_named_splits_are_chosen(toy: Toy) -> None:
    made = make_split(toy.open(), "random", 0.2, 0.3, 5, "mine")
    dataset = FeatureDataset(toy.open(), "val", modalities=["vision"], named_split="mine")
    assert len(dataset) == made.samples["val"]
    assert list(dataset[0]["tokens"]) == ["vision"]
    again = pickle.loads(pickle.dumps(dataset))
    assert (again.modalities, again.rows.tolist()) == (("vision",), dataset.rows.tolist())
    with pytest.raises(NotFound, match=r"no samples in split 'trian'; it has train, test.*train"):
        FeatureDataset(toy.open(), "trian")
    with pytest.raises(NotFound, match=r"no txt features; it has text, vision.*text"):
        FeatureDataset(toy.open(), modalities=["txt"])


def test_labels_that_are_not_there(toy: Toy, tmp_path: Any) -> None:
    some = write(tmp_path / "a", 5, [1, None, 0, 1, None])
    assert FeatureDataset(some.open())[1]["label"] == -100
    assert FeatureDataset(some.open()).padded([0, 1])["label"].tolist() == [1, -100]
    scores = write(tmp_path / "b", 5, [0.5, None, -1.0, 2.0, 3.0], replace(CARD, task="sentiment", classes=()))
    label = FeatureDataset(scores.open()).padded([0, 1])["label"]
    assert label.dtype == torch.float32
    assert label.isnan().tolist() == [False, True]
    none = write(tmp_path / "c", 5, card=replace(CARD, label_column="dish"))
    assert "label" not in FeatureDataset(none.open())[0]
    assert "label" not in FeatureDataset(none.open()).packed([0])
    text = write(tmp_path / "d", 3, ["cat", "dog", "cat"])
    with pytest.raises(UserError, match=r"The labels of toy \(label\) are string"):
        FeatureDataset(text.open())
