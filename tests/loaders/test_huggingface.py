"""A `datasets.Dataset` over the cache: its own operations work, and no token is copied into its table."""

from __future__ import annotations

import pickle
import sys
from typing import Any

import numpy as np
import pytest
import torch
from pgm import FeatureDataset, collate_padded, huggingface_dataset
from pgm.cache.errors import UserError
from torch.utils.data import DataLoader

from .conftest import Toy, write
from .test_dataset import assert_same

datasets = pytest.importorskip("datasets")


def test_samples_are_those_of_the_feature_dataset(toy: Toy) -> None:
    source = FeatureDataset(toy.open(), "train")
    view = huggingface_dataset(source)
    assert (len(view), str(view.split)) == (43, "train")
    assert view.features["label"].names == ["cat", "dog"]
    assert view["label"][:2] == [0, 1]
    for place in (0, 7, 42):
        assert_same({name: view[place][name] for name in source[place]}, source[place])
    assert view[0]["has_text"] is False


def test_operations_select_samples_and_their_tokens_follow(toy: Toy) -> None:
    source = FeatureDataset(toy.open())
    view = (
        huggingface_dataset(source)
        .shuffle(seed=0)
        .filter(lambda row: row % 2 == 0, input_columns="row")
        .select(range(9))
    )
    for sample in view:
        for name, tokens in sample["tokens"].items():
            assert np.array_equal(tokens.numpy(), toy.tokens[name][sample["row"]])
    loader = DataLoader(view, 4, collate_fn=collate_padded)
    rows = torch.cat([batch["row"] for batch in loader])
    assert rows.tolist() == view["row"][:]
    assert_same(next(iter(loader)), source.padded(rows[:4].numpy()))


def test_no_token_lies_in_its_table(toy: Toy, tmp_path: Any) -> None:
    one, other = (write(tmp_path / name, count) for name, count in (("a", 30), ("b", 300)))
    small, large = (huggingface_dataset(FeatureDataset(each.open())) for each in (one, other))
    assert large.data.nbytes < 60 * 300
    assert small.data.nbytes < 60 * 30
    assert "tokens" not in large.column_names


def test_it_is_sent_to_other_processes_as_a_place_and_a_version(toy: Toy) -> None:
    view = huggingface_dataset(FeatureDataset(toy.open(), "test"))
    sent = pickle.dumps(view)
    write(toy.root, 80)
    again = pickle.loads(sent)
    assert len(again) == 10
    assert_same(again[3]["tokens"], view[3]["tokens"])


def test_without_the_library_the_remedy_is_said(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install 'pgm\[hf\]'"):
        huggingface_dataset(FeatureDataset(toy.open()))
