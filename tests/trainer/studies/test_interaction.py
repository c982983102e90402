"""Floors on tokens laid end to end, their strength searched beyond a range's ends, and the table of interaction."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pgm.cache import open_dataset
from pgm.cache.errors import UserError
from pgm.cli import app
from pgm.trainer import table
from pgm.trainer.data import flat
from pgm.trainer.data.pooling import pooled
from pgm.trainer.run.floors import best_probe
from pgm.trainer.tasks import Classification
from pgm.trainer.tasks.linear import Fit
from typer.testing import CliRunner


def test_a_series_stays_as_it_is_and_other_lengths_are_resampled() -> None:
    generator = np.random.default_rng(0)
    packed = generator.normal(size=(11, 2)).astype(np.float32)
    same = flat.resampled(packed[:8], np.array([4, 4]), 4)
    assert np.array_equal(same, packed[:8].reshape(2, 4, 2))
    lengths = np.array([1, 2, 8])
    found = flat.resampled(packed, lengths, 4)
    assert np.array_equal(found[0], packed[[0, 0, 0, 0]]), "a token again where there are too few"
    assert np.array_equal(found[1], packed[[1, 1, 2, 2]])
    assert np.allclose(found[2], packed[3:].reshape(4, 2, 2).mean(axis=1))
    assert np.array_equal(flat.resampled(packed, lengths, 1)[:, 0], pooled(packed, lengths, 1))


def test_vectors_are_standardised_by_the_training_samples_that_have_the_modality(toy: Path) -> None:
    store = open_dataset(toy, "toy").features("text")
    splits = {"train": np.arange(96), "test": np.arange(128, 160)}
    there = flat.present_lengths(store)[:96] > 0
    found = flat.flat_vectors({"text": store}, splits)
    train = found["train"]["text"]
    assert train.shape == (96, 5 * 6 + 1), "five tokens of six features, and an indicator"
    assert not there.all()
    assert np.allclose(train[there, :-1].mean(axis=0), 0, atol=1e-5)
    assert np.allclose(train[there, :-1].std(axis=0), 1, atol=1e-5)
    assert np.array_equal(train[:, -1] == 0, there)
    assert not train[~there, :-1].any()


class Peaked(Classification):
    """Right by how near a model's strength is to `peak`."""

    peak = 1.0

    def probed(self, vectors: Any, train: Any, how: Fit) -> Any:
        return lambda asked: {"logits": np.array([[how.strength, 0]])}

    def metrics(self, views: Any, targets: Any) -> dict[str, float]:
        return {"accuracy": -abs(np.log10(views["logits"][0, 0] / self.peak))}


@pytest.mark.parametrize(
    ("peak", "chosen", "at_end"), [(0.1, 0.1, False), (1e3, 1e3, False), (1e-4, 1e-4, False), (1e9, 1e6, True)]
)
def test_the_range_of_strengths_grows_while_its_end_is_the_best(peak: float, chosen: float, at_end: bool) -> None:
    task = Peaked(("a", "b"))
    task.peak = peak
    split: dict[str, Any] = {"train": {}, "val": {}}
    probe = best_probe(task, split, {"train": np.zeros(1), "val": np.zeros(1)})
    assert probe.strength == pytest.approx(chosen)
    assert probe.at_end == at_end


def test_interaction_tells_a_modality_that_matters_from_one_that_belongs(
    make_toy: Callable[..., Path], tmp_path: Path
) -> None:
    # Two bits, one in each modality, and the modalities independent given the class: no sample's pair belongs together.
    features = make_toy(tmp_path / "features", counts={"train": 160, "val": 60, "test": 80})
    found = table("interaction", features=features, runs=tmp_path / "runs").results
    lines = {line.label: line for line in found.lines}
    concat = lines["concatenation"].test["accuracy"]
    assert concat > lines["text"].test["accuracy"] + 0.2
    for modality in ("text", "vision"):
        drop = {how: concat - lines[f"concatenation, {modality} shuffled among {how}"].test["accuracy"]
                for how in ("its class", "all")}  # fmt: skip
        assert abs(drop["its class"]) < 0.05
        assert drop["all"] > 0.3
    assert lines["concatenation"].against == "late mean"
    assert lines["concatenation"].low <= found.difference(lines["concatenation"]) <= lines["concatenation"].high
    assert sum(found.weights.values()) == pytest.approx(1)
    kept = next((tmp_path / "runs" / "floors").iterdir())
    before = kept.stat().st_mtime_ns
    asked = ["table", "interaction", "--features", str(features), "--runs", str(tmp_path / "runs")]
    again = json.loads(CliRunner().invoke(app, [*asked, "--json"]).stdout)
    assert again["lines"][0]["test"] == dict(found.lines[0].test)
    assert kept.stat().st_mtime_ns == before, "read, not fitted again"
    printed = CliRunner().invoke(app, asked).stdout
    assert "none was an end of it" in printed or "it ended there for" in printed
    with pytest.raises(UserError, match="what classes several modalities tell"):
        table("interaction", features=features, runs=tmp_path, modalities=["text"])
