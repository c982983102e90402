"""Sets of several real sensors: gaps are filled and told, what was never measured is missing, folds are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pgm.cache import open_dataset
from pgm.cli import app
from pgm.pipeline.imports.sensors import completed
from typer.testing import CliRunner

REAL = Path(__file__).parents[2].parent / "shared" / "data"


def imported(name: str, file: Path, features: Path, *more: str) -> Any:
    found = CliRunner().invoke(app, ["import", name, str(file), "--features", str(features), "--json", *more])
    assert found.exit_code == 0, found.output
    return json.loads(found.stdout), open_dataset(features, name)


def test_gaps_take_the_training_median_and_indicators_are_shared() -> None:
    values = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    values[0, 0, 0] = values[0, 0, 1] = np.nan  # always missing together
    values[3, 1, 2] = 1e9
    measured, train = np.isfinite(values), np.array([True, True, True, False])
    found = completed(values, measured, train)
    assert found.shape == (4, 2, 4), "one indicator, of two features"
    assert found[0, 0, 0] == np.median(values[:3, :, 0][measured[:3, :, 0]])
    assert found[0, 0, 3] == 0
    assert found[..., 3].sum() == 7
    assert found[3, 1, 2] < 30, "clipped at the training samples' tail"


def test_physionet_says_what_was_measured_and_is_judged_by_auroc(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    arrays = {m: generator.normal(size=(8, 4, 3)).astype(np.float32) for m in ("vitals", "labs", "support")}
    arrays["labs"][2] = np.nan
    arrays["labs"][3, 0, 1] = np.nan
    static, y = generator.normal(size=(8, 4)).astype(np.float32), np.array([0, 1] * 4, np.int8)
    split = np.array(["train"] * 5 + ["test"] * 3)
    path = tmp_path / "physionet2012.npz"
    np.savez(path, **arrays, static=static, y=y, split=split, ids=np.arange(8).astype("<U6"))
    summary, dataset = imported("physionet2012", path, tmp_path / "features")
    assert summary["layout"] == "physionet2012"
    assert summary["splits"] == {"train": 5, "test": 3}
    assert dataset.card.metrics[0] == "auroc"
    assert dataset.card.classes == ("survived", "died")
    assert summary["modalities"]["labs"] | {"missing": 1} == summary["modalities"]["labs"]
    # Channels 0 and 2 lack the same (sample 2), channel 1 one hour more.
    assert [summary["modalities"][m]["dim"] for m in ("vitals", "labs", "static")] == [3, 3 + 2, 4]


def test_hydraulic_learns_the_state_asked_for_and_keeps_its_folds(tmp_path: Path) -> None:
    arrays = {m: np.ones((10, 6, 1), np.float32) for m in ("pressure", "power", "flow", "temperature", "vibration")}
    states = {"accumulator": [90, 130] * 5, "valve": [73, 80, 90, 100, 100] * 2}
    fold = np.arange(10) % 5
    path = tmp_path / "hydraulic.npz"
    np.savez(path, **arrays, **states, group=fold, fold=fold.astype(np.int8), ids=np.arange(10).astype("<U3"))
    summary, dataset = imported("hydraulic", path, tmp_path / "features", "--labels", "valve", "--modality", "flow")
    assert summary["classes"] == ["73", "80", "90", "100"]
    assert list(summary["modalities"]) == ["flow"]
    assert dataset.samples["fold"].to_pylist() == fold.tolist()
    assert summary["splits"] == {"train": 6, "val": 2, "test": 2}
    wrong = CliRunner().invoke(app, ["import", "hydraulic", str(path), "--labels", "valves"])
    assert "accumulator, cooler, valve, pump, stable, not valves" in str(wrong.exception)


@pytest.mark.skipif(not (REAL / "borealtc").exists(), reason="the real data of ../shared/data are not here")
def test_borealtc_is_its_complete_windows(tmp_path: Path) -> None:
    summary, dataset = imported("borealtc", REAL / "borealtc" / "borealtc.npz", tmp_path / "features")
    assert summary["samples"] == 2295
    assert {m: one["missing"] for m, one in summary["modalities"].items()} == {"imu": 0, "wheel": 0}
    assert dataset.card.metrics[0] == "balanced_accuracy"
    groups, folds = (dataset.samples[name].to_pylist() for name in ("group", "fold"))
    assert len({*zip(groups, folds, strict=True)}) == len(set(groups)), "a recording lies in one fold"
