"""Gradient norms by modality are those of a plain loop over parameters, and watching changes no weight."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pgm.trainer import Run
from pgm.trainer.batch import Inputs
from pgm.trainer.methods import Method, Shape, Stage, Step, choose
from pgm.trainer.run.gradients import GradientNorms
from pgm.trainer.run.request import Request, resolve
from pgm.trainer.run.training import Execution, carry_out
from pgm.trainer.studies.balance import METHODS
from torch import Tensor

from .. import conftest
from ..conftest import TINY

QUICK = {**TINY, "epochs": 1, "pretrain_epochs": 1}
BOTH = ("text", "vision")


def build(name: str, **switches: Any) -> Method:
    torch.manual_seed(0)
    sizes = {"dim": 8, "heads": 2, "feedforward": 16, "dropout": 0.0}
    return choose(name, "small", Shape({"text": 6, "vision": 5}, 4), {**sizes, **switches})[0].build(
        Shape({"text": 6, "vision": 5}, 4)
    )


def step_of(method: Method, seed: int, clip: float, norms: GradientNorms | None) -> Step:
    generator = torch.Generator().manual_seed(seed)
    tokens = {m: torch.randn(8, 3, width, generator=generator) for m, width in {"text": 6, "vision": 5}.items()}
    inputs = Inputs(tokens, {m: torch.ones(8, 3, dtype=torch.bool) for m in tokens})
    return conftest.step_of(method, inputs, clip=clip, norms=norms)


def loss_of(step: Step) -> Tensor:
    return step.criterion(step.output().logits, step.targets)


@pytest.mark.parametrize("clip", [0.0, 0.05])
@pytest.mark.parametrize("name", ["concat", "late", "pgm"])
def test_gradient_norms_are_those_of_a_plain_loop(name: str, clip: float) -> None:
    method = build(name).eval()
    norms = GradientNorms(method.modality_parameters())
    expected: dict[str, list[float]] = {"text": [], "vision": []}
    for seed in range(3):
        step = step_of(method, seed, clip, norms)
        method.zero_grad()
        loss_of(step).backward()
        for modality, parameters in method.modality_parameters().items():
            total = sum(float(p.grad.double().square().sum()) for p in parameters if p.grad is not None)
            expected[modality].append(math.sqrt(total))
        step.descend(loss_of(step))
    assert norms.take() == pytest.approx({m: np.mean(values) for m, values in expected.items()}, rel=1e-5)
    assert norms.take() == {}, "an epoch's norms are taken once"


def test_mla_is_measured_once_a_batch_and_modality() -> None:
    method = build("mla")
    norms = GradientNorms(method.modality_parameters())
    method.update(Stage("task", 1), step_of(method, 0, 1.0, norms))
    reached = dict.fromkeys(BOTH, 0)
    for parameters, several in norms.seen.items():
        for m, own in norms.owned.items():
            reached[m] += len(several) * bool(own & set(parameters))
    assert reached == {"text": 1, "vision": 1}


@pytest.mark.parametrize("clip", [1e-3, 0.1, 1e6])
def test_clipping_in_two_halves_is_clip_grad_norm_to_the_bit(clip: float) -> None:
    one, two = build("concat").eval(), build("concat").eval()
    ours, theirs = step_of(one, 0, clip, None), step_of(two, 0, clip, None)
    ours.gradients(loss_of(ours))
    loss_of(theirs).backward()
    torch.nn.utils.clip_grad_norm_(two.parameters(), clip)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


@pytest.mark.parametrize("name", ["concat", "pgm", "pgm+mla", "mmpareto", "reconboost"])
def test_a_run_has_the_same_weights_with_and_without_watching(toy: Path, tmp_path: Path, name: str) -> None:
    runs: list[Run] = []
    for watch in (True, False):
        request = Request(toy, tmp_path / str(watch), dataset="toy", method=name, settings=QUICK)
        runs.append(carry_out(resolve(request), Execution(watch_gradients=watch)))
    assert runs[0].id == runs[1].id
    assert runs[0].weights.read_bytes() == runs[1].weights.read_bytes()
    watched, unwatched = (run.metrics for run in runs)
    assert all(set(entry["gradients"]) == set(BOTH) for entry in watched)
    assert all(norm > 0 for entry in watched for norm in entry["gradients"].values())
    assert not any("gradients" in entry for entry in unwatched)


def test_what_belongs_to_a_modality_belongs_to_no_other() -> None:
    for name in METHODS:
        owned = build(name).modality_parameters()
        assert set(owned) == set(BOTH), name
        assert not set(map(id, owned["text"])) & set(map(id, owned["vision"])), name
    shared, own = (build("pgm", share_learners=share).modality_parameters()["text"] for share in (True, False))
    assert len(own) > len(shared)
