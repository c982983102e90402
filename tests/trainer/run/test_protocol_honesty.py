"""The test split decides nothing, selection is on validation, all methods get the same budget."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from pgm.cache import open_dataset, publish, storage_at
from pgm.cache.errors import NotFound, RunFailed, UserError
from pgm.trainer import Run
from pgm.trainer.data.dataset import load_data
from pgm.trainer.protocol import Protocol
from pgm.trainer.run.model import Model
from pgm.trainer.run.optimiser import build_optimiser, rate_factor
from pgm.trainer.run.request import Request, resolve
from pgm.trainer.run.training import build_model


def with_shuffled_test_labels(source: Path, target: Path) -> Path:
    """The same dataset with its test labels permuted."""
    import shutil

    shutil.copytree(source, target)
    dataset = open_dataset(target, "toy")
    table = dataset.samples
    labels = table["label"].to_numpy().copy()
    test = np.flatnonzero(np.array(table["split"].to_pylist()) == "test")
    labels[test] = labels[np.roll(test, 7)]
    position = table.column_names.index("label")
    publish(storage_at(target / "toy"), dataset.card, table.set_column(position, "label", [labels]), {})
    return target


def journal(run: Run) -> list[dict[str, Any]]:
    return [{k: v for k, v in entry.items() if k not in ("seconds", "waiting")} for entry in run.metrics]


@pytest.mark.parametrize("method", ["pgm", "concat", "ensemble"])
def test_shuffled_test_labels_change_nothing_in_training_or_selection(
    toy: Path, tmp_path: Path, method: str, quick: Callable[..., Run]
) -> None:
    shuffled = with_shuffled_test_labels(toy, tmp_path / "features")
    honest, other = quick(toy, tmp_path / "a", method), quick(shuffled, tmp_path / "b", method)
    assert honest.id != other.id, "another dataset is another run"
    assert honest.weights.read_bytes() == other.weights.read_bytes()
    assert journal(honest) == journal(other)
    assert honest.result["epochs"] == other.result["epochs"]
    assert honest.predictions_path("val").read_bytes() == other.predictions_path("val").read_bytes()
    columns = ["id", "prediction"]
    tables = [pq.read_table(run.predictions_path("test"), columns=columns) for run in (honest, other)]
    assert tables[0].equals(tables[1])
    assert honest.test != other.test, "the labels were really shuffled"


def test_the_selected_epoch_is_the_first_best_on_validation(
    toy: Path, tmp_path: Path, quick: Callable[..., Run]
) -> None:
    run = quick(toy, tmp_path, settings={"epochs": 10, "lr": 5e-3})
    scores = [entry["val"]["accuracy"] for entry in run.metrics]
    assert run.result["epochs"]["task"] == int(np.argmax(scores)) + 1
    assert run.val["accuracy"] == max(scores)
    assert len(set(scores)) > 1


def test_early_stopping_ends_a_stage_and_keeps_its_best_weights(
    toy: Path, tmp_path: Path, quick: Callable[..., Run]
) -> None:
    run = quick(toy, tmp_path, settings={"epochs": 60, "lr": 5e-3, "patience": 3})
    scores = [entry["val"]["accuracy"] for entry in run.metrics]
    assert len(scores) < 62
    assert len(scores) - run.result["epochs"]["task"] == 3
    assert run.val["accuracy"] == max(scores)


def test_the_papers_learning_rates_reach_their_modules(toy: Path) -> None:
    model: Model = build_model(resolve(Request(toy, Path("unused"), method="pgm")))
    protocol = Protocol()
    pretrain, task = model.method.stages(protocol)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rates = {
        names[id(parameter)]: group["lr"]
        for group in build_optimiser(model, task, protocol, torch.device("cpu")).param_groups
        for parameter in group["params"]
    }
    assert set(rates) == set(names.values())
    for name, rate in rates.items():
        expected = 1e-4 if "_learners." in name else 1e-3 if ".decoders." in name else 3e-4
        assert rate == expected, name
    assert {1e-4, 1e-3, 3e-4} == set(rates.values())
    first = build_optimiser(model, pretrain, protocol, torch.device("cpu"))
    touched = {names[id(p)] for group in first.param_groups for p in group["params"]}
    assert all(name.startswith("method.pgm.") for name in touched)


def test_schedules_start_warm_and_end_at_nothing() -> None:
    constant, cosine = Protocol(), Protocol(schedule="cosine", warmup=0.1)
    assert rate_factor(constant, 0.0) == rate_factor(constant, 1.0) == 1
    assert rate_factor(cosine, 0.0) < 0.02
    assert rate_factor(cosine, 0.1) == pytest.approx(1)
    assert rate_factor(cosine, 0.55) == pytest.approx(0.5)
    assert rate_factor(cosine, 1.0) == pytest.approx(0)


@pytest.mark.parametrize("groups", [0, 12])
def test_a_missing_validation_split_is_carved_from_train_and_said(
    tmp_path: Path, make_toy: Callable[..., Path], groups: int
) -> None:
    root = make_toy(tmp_path, counts={"train": 160, "test": 40}, groups=groups)
    protocol = Protocol(val_fraction=0.2)
    data = load_data(open_dataset(root, "toy"), ["text"], {}, protocol)
    train, val, test = (set(data.splits[name].tolist()) for name in ("train", "val", "test"))
    assert test == set(range(160, 200))
    assert not train & val
    assert train | val == set(range(160))
    assert "no validation split" in data.notes[0]
    if groups:
        names = open_dataset(root, "toy").samples["group"].to_pylist()
        assert not {names[row] for row in train} & {names[row] for row in val}
        assert "whole groups" in data.notes[0]
        assert 32 <= len(val) <= 32 + 160 // 4
    else:
        assert len(val) == 32
        share = np.bincount(data.targets[sorted(val)], minlength=4) / np.bincount(data.targets[:160], minlength=4)
        assert np.all(np.abs(share - 0.2) < 0.05), "every class in the same share"
    again = load_data(open_dataset(root, "toy"), ["vision"], {}, protocol)
    assert np.array_equal(again.splits["val"], data.splits["val"]), "all runs select on the same samples"


def test_a_loss_that_is_not_a_number_stops_the_run(toy: Path, tmp_path: Path, quick: Callable[..., Run]) -> None:
    with pytest.raises(RunFailed, match=r"became (nan|inf) in stage .*smaller learning rate"):
        quick(toy, tmp_path, settings={"lr": 1e30, "clip": 0.0})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epoch": "3"}, r"No switch 'epoch' .* Did you mean 'epochs'\?"),
        ({"epochs": "many"}, r"epochs is a whole number, at least 1, not 'many'"),
        ({"standardize": "perhaps"}, r"standardize is true or false"),
        ({"schedule": "cosin"}, r"schedule is one of constant, cosine.* Did you mean 'cosine'\?"),
        ({"val_fraction": "1.5"}, r"val_fraction is a number, above 0 and below 1, not 1.5"),
        ({"dim": "10"}, r"dim=10 cannot be split over heads=4"),
        ({"fusion": "concatt"}, r"fusion.* concat"),
    ],
)
def test_a_wrong_switch_is_refused_with_what_would_be_right(toy: Path, settings: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve(Request(toy, Path("unused"), method="pgm", settings=settings))


def test_unknown_methods_presets_modalities_and_devices_are_refused(toy: Path) -> None:
    for change, message in (
        ({"method": "concatt"}, r"No method 'concatt'.*Did you mean 'concat'\?"),
        ({"method": "single:txt"}, r"Did you mean 'single:text'\?"),
        ({"preset": "big"}, "preset is one of small, paper, not 'big'"),
        ({"device": "abacus"}, "Use auto, cpu, cuda"),
    ):
        with pytest.raises(UserError, match=message):
            resolve(Request(toy, Path("unused"), **change))
    with pytest.raises(NotFound, match=r"no cached modality 'audio'; it has text, vision"):
        resolve(Request(toy, Path("unused"), modalities=["audio"]))
