"""Small cached datasets, written through the cache: ragged tokens, missing modalities, every task."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pgm.cache import DatasetCard, Identity, ids_digest, publish, storage_at
from pgm.cache import write_features as write_store
from pgm.trainer import Run, train
from pgm.trainer.batch import Inputs
from pgm.trainer.methods import Criterion, Method, Step
from pgm.trainer.protocol import Protocol

# Models this small gain nothing from a second thread, and lose much when another process wants the core.
# The environment is for the processes that tests start.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"

TINY = {"dim": 8, "heads": 2, "feedforward": 16, "pretrain_epochs": 2, "epochs": 2, "batch": 16}
WIDTHS = {"text": 6, "vision": 5}


def step_of(
    method: Method,
    inputs: Inputs,
    targets: torch.Tensor | None = None,
    optimiser: type[torch.optim.Optimizer] = torch.optim.SGD,
    lr: float = 0.1,
    clip: float = 0.0,
    criterion: Criterion = torch.nn.functional.cross_entropy,
    **how: Any,
) -> Step:
    """A method's step on one batch, of classes in turn unless there are targets."""
    if targets is None:
        targets = torch.arange(len(next(iter(inputs.masks.values())))) % 4
    parameters = list(method.parameters())
    return Step(
        inputs=lambda: inputs,
        output=lambda: method(inputs),
        targets=targets,
        samples=torch.arange(len(targets)),
        criterion=criterion,
        protocol=Protocol(clip=clip),
        optimiser=optimiser(parameters, lr=lr),  # type: ignore[call-arg]
        parameters=parameters,
        **how,
    )


def copies(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter as it is now."""
    return {name: value.detach().clone() for name, value in module.named_parameters()}


def write_features(
    folder: Path, modality: str, tokens: list[np.ndarray], ids: Sequence[str], dim: int, encoder: str = "toy"
) -> Path:
    """One store from a list of (S, D) arrays; S = 0 is a missing modality."""
    packed = np.concatenate([t.reshape(-1, dim) for t in tokens]).astype(np.float32)
    identity = Identity(modality, encoder, {"weights": "toy"})
    lengths = [len(t) for t in tokens]
    # Small segments, so that every batch reads from several.
    write_store(storage_at(folder), identity, ids, ids_digest(ids), lengths, packed, "float32", segment_bytes=1 << 10)
    return folder / identity.folder


def write_toy(
    root: Path,
    name: str = "toy",
    task: str = "classification",
    counts: Mapping[str, int] | None = None,
    widths: Mapping[str, int] = WIDTHS,
    missing: float = 0.0,
    longest: int = 5,
    labels: np.ndarray | None = None,
    groups: int = 0,
    seed: int = 0,
    more: Mapping[str, np.ndarray] | None = None,
    metrics: Sequence[str] = (),
) -> Path:
    """A dataset whose class is two bits, one in each modality (for retrieval: both in each), in some noise."""
    generator = np.random.default_rng(seed)
    counts = counts or {"train": 96, "val": 32, "test": 32}
    splits = [split for split, count in counts.items() for _ in range(count)]
    bits = generator.integers(0, 2, (len(splits), 2))
    classes = bits @ [1, 2]
    ids = [f"{name}/{row}" for row in range(len(splits))]
    columns: dict[str, Any] = {"id": ids, "split": splits, "label": classes.astype(np.int32)}
    if task == "sentiment":
        columns["label"] = (classes * 2.0 - 3.0).round(1)
    if labels is not None:
        columns["label"] = labels
    if groups:
        columns["group"] = [f"video{row}" for row in generator.integers(0, groups, len(splits))]
    columns |= more or {}
    names = () if task == "sentiment" else ("none", "one", "two", "both")
    stores = {}
    for column, (modality, dim) in enumerate(widths.items()):
        known = classes if task == "retrieval" else bits[:, column]
        direction = generator.normal(size=(4, dim))
        tokens = []
        for row in range(len(splits)):
            length = 0 if generator.random() < missing else int(generator.integers(1, longest + 1))
            noise = generator.normal(size=(length, dim)) * 0.7
            tokens.append(direction[known[row]] + noise)
        stores[write_features(root / name, modality, tokens, ids, dim).name] = 1
    card = DatasetCard(name, task, names, metrics, splits=counts)
    publish(storage_at(root / name), card, pa.table(columns), stores)
    return root


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A features root with one classification dataset, ragged, some modalities missing; never written to."""
    return write_toy(tmp_path_factory.mktemp("features"), missing=0.1)


@pytest.fixture(scope="session")
def make_toy() -> Callable[..., Path]:
    return write_toy


@pytest.fixture(scope="session")
def make_store() -> Callable[..., Path]:
    return write_features


@pytest.fixture(scope="session")
def quick() -> Callable[..., Run]:
    """Train something tiny; takes and overrides what `train` takes."""

    def run(features: Path, runs: Path, method: str = "concat", **options: Any) -> Run:
        settings = {**TINY, **options.pop("settings", {})}
        return train(features, method=method, runs=runs, settings=settings, **options)

    return run


@pytest.fixture(scope="session")
def finished(toy: Path, quick: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished PgM run on the toy dataset, for tests that only read."""
    return quick(toy, tmp_path_factory.mktemp("runs"), "pgm")
