"""A training step of every method on a device nobody can read from, and what goes up to it.

The device is torch's meta device: tensors have shapes and no values, so that whatever needs one on the host (an `if` on
a loss, a mask's number of true elements, a copy to the CPU) raises, where a GPU would only be slow. What it cannot show
is how long kernels take, nor copies that libraries make inside one operation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from pgm.trainer.batch import Inputs
from pgm.trainer.data.sequence import Context
from pgm.trainer.methods import MethodOutput, Stage, known_methods
from pgm.trainer.methods.concat import Concat
from pgm.trainer.methods.prior import mmilb
from pgm.trainer.run.machine import Machine
from pgm.trainer.run.request import Request, resolve
from pgm.trainer.run.step import Trainer
from pgm.trainer.run.training import build_model, feed_of, trainer_of
from torch.utils._python_dispatch import TorchDispatchMode

META = torch.device("meta")
SCORES = ("self_mm", "mmim")
MODALITIES = ("text", "vision")
COUNTS = {"train": 32, "val": 8, "test": 8}
SIZES = {"dim": 8, "heads": 2, "feedforward": 16, "pretrain_epochs": 1, "epochs": 1, "batch": 16}


class Uploads(TorchDispatchMode):
    """Counts tensors that go from the host to the device."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        # A number () goes along with the kernel that takes it.
        given = [x for x in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor) and x.dim()]
        made = [x for x in torch.utils._pytree.tree_leaves(out) if isinstance(x, torch.Tensor)]
        if any(x.device.type == "cpu" for x in given) and any(x.device == META for x in (*given, *made)):
            self.names.append(func.name())
        return out


class Leaves(TorchDispatchMode):
    """Counts operations below autograd."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory, make_toy: Callable[..., Path]) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def root(task: str) -> Path:
        if task not in made:
            made[task] = make_toy(tmp_path_factory.mktemp(task), task=task, counts=COUNTS, missing=0.2, groups=8)
        return made[task]

    return root


def on_nothing(root: Path, runs: Path, method: str, **options: Any) -> Trainer:
    """A trainer whose model and data lie on the meta device."""
    own = {} if method.split("+")[0] in (*SCORES, "unimse", "unimeec") else SIZES
    settings = {**own, "pretrain_epochs": 1, "epochs": 1, "batch": 16}
    resolved = resolve(Request(root, runs, method=method, settings=settings, device="cpu", **options))
    object.__setattr__(resolved, "device", META)
    feed = feed_of(resolved, "train", "resident")
    return trainer_of(resolved, build_model(resolved).to(META), feed, Machine(META, "fp32"))


def trains(stage: Stage, name: str) -> bool:
    """Whether the stage moves this parameter."""
    return name.startswith(f"method.{stage.part}." if stage.part else "")


def steps(trainer: Trainer) -> Iterator[None]:
    """Every step of one epoch of each stage."""
    for stage in trainer.stages:
        # AdamW's kernel for a GPU is one call; its loop over tensors, which any other device takes, is not about a GPU.
        optimiser = torch.optim.SGD([p for n, p in trainer.model.named_parameters() if trains(stage, n)], lr=0.1)
        trainer.model.train()
        for passed in range(stage.passes):
            order = trainer.feed.training_order(trainer.protocol.batch, seed=1)
            for number, batch in enumerate(trainer.feed.batches(order)):
                trainer.step(stage, batch, optimiser, passed=passed, done=number / len(order))
                yield


def uploads_of(trainer: Trainer) -> tuple[list[str], int]:
    """What went up in an epoch of each stage, and how many orders of batches that epoch had."""
    with Uploads() as uploads:
        assert sum(1 for _ in steps(trainer)) >= 2
    return uploads.names, sum(stage.passes for stage in trainer.stages)


@pytest.mark.parametrize("method", known_methods(MODALITIES))
def test_no_step_reads_the_device_and_only_the_epochs_order_goes_up(
    method: str, features: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # MMIM switches autocast off, which knows no such device.
    monkeypatch.setattr(mmilb.torch, "autocast", lambda device, enabled: nullcontext())
    root = features("sentiment" if method.startswith(SCORES) else "classification")
    names, orders = uploads_of(on_nothing(root, tmp_path, method))
    assert len(names) == orders, names


def test_a_step_of_pgm_launches_little(features: Callable[[str], Path], tmp_path: Path) -> None:
    """Two modalities and plain SGD; `bench/step.py` counts three with AdamW (3,422 before the branches ran as one)."""
    running = steps(on_nothing(features("classification"), tmp_path, "pgm"))
    counts = []
    for _ in range(4):  # two a stage
        with Leaves() as leaves:
            next(running)
        counts.append(leaves.count)
    assert max(counts) < 2500, counts


def test_nor_does_retrieval_and_nor_do_the_utterances_around(
    features: Callable[[str], Path], make_toy: Callable[..., Path], tmp_path: Path
) -> None:
    names, orders = uploads_of(on_nothing(features("retrieval"), tmp_path, "pgm"))
    assert len(names) == orders, names
    single = make_toy(tmp_path / "single", longest=1, counts=COUNTS, groups=8, missing=0.2)
    names, orders = uploads_of(on_nothing(single, tmp_path, "pgm", context=Context(2)))
    assert len(names) == orders, names


def test_a_step_that_looked_at_the_device_would_fail_here(
    features: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Concat.forward

    def looking(self: Concat, inputs: Inputs) -> MethodOutput:
        assert inputs.present("text").any()
        return plain(self, inputs)

    monkeypatch.setattr(Concat, "forward", looking)
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        uploads_of(on_nothing(features("classification"), tmp_path, "concat"))
