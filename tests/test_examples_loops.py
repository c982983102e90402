"""Loops of other people train PgM's head from a cache: the examples run as they are written."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
from pgm.pipeline import ExtractOptions, extract, load_dataset

LOOPS = Path(__file__).parents[1] / "examples" / "loops"


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Models this small gain nothing from a second thread, and lose much when another process wants the core.
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("features")
    extract(load_dataset("digits").limited(300), root, ExtractOptions(executor="serial"))
    return root


@pytest.mark.parametrize(
    ("name", "library"),
    [("plain_torch", "torch"), ("lightning_module", "lightning"), ("accelerate_loop", "accelerate")],
)
@pytest.mark.filterwarnings("ignore")  # Lightning's advice on workers and steps
def test_the_loop_learns(name: str, library: str, features: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(library)
    monkeypatch.syspath_prepend(str(LOOPS))
    assert importlib.import_module(name).main(str(features), "digits", epochs=2) > 0.15
