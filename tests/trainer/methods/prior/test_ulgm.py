"""ULGM against a plain transcription in float64, one sample after the other, and what must hold of its labels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pgm.trainer.methods.prior.ulgm import FUSION, ULGM, new_labels

WIDTHS = {FUSION: 5, "text": 4, "audio": 3}
BOUND = 3.0


class Oracle:
    """The published update with tables as lists of Python floats."""

    def __init__(self, human: list[float]) -> None:
        self.human = human
        self.labels = {branch: list(human) for branch in WIDTHS}
        self.features: dict[str, list[np.ndarray | None]] = {branch: [None] * len(human) for branch in WIDTHS}

    def nearness(self, branch: str, feature: np.ndarray) -> float | None:
        signs = {}
        for sign in (1, -1):
            own = [f for f, y in zip(self.features[branch], self.labels[branch], strict=True) if y * sign > 0]
            own = [f for f in own if f is not None]
            if not own:
                return None
            signs[sign] = math.dist(feature, sum(own) / len(own))
        return (signs[-1] - signs[1]) / (signs[1] + 1e-8)

    def observe(self, samples: list[int], features: dict[str, np.ndarray], has: dict[str, list[bool]], i: int) -> None:
        if i > 1:
            before = {branch: [self.nearness(branch, f) for f in features[branch]] for branch in WIDTHS}
            for branch in ("text", "audio"):
                for row, sample in enumerate(samples):
                    own, whole = before[branch][row], before[FUSION][row]
                    if own is None or whole is None or not has[branch][row]:
                        continue
                    y = self.human[sample]
                    new = 0.5 * own / (whole + 1e-8) * y + 0.5 * (y + own - whole)
                    new = max(-BOUND, min(BOUND, new))
                    self.labels[branch][sample] = (i - 1) / (i + 1) * self.labels[branch][sample] + 2 / (i + 1) * new
        for branch in WIDTHS:
            for row, sample in enumerate(samples):
                if branch == FUSION or has[branch][row]:
                    self.features[branch][sample] = features[branch][row]


def filled(human: torch.Tensor) -> ULGM:
    ulgm = ULGM(WIDTHS, BOUND).double()
    ulgm.prepare(human)
    for name, buffer in list(ulgm.named_buffers()):
        if buffer.is_floating_point():
            ulgm.register_buffer(name, buffer.double())
    return ulgm


def test_four_epochs_match_the_oracle_with_missing_modalities_and_zero_labels() -> None:
    generator = np.random.default_rng(0)
    human = generator.integers(-3, 4, 24).astype(float)
    oracle, ulgm = Oracle(list(human)), filled(torch.from_numpy(human))
    for epoch in range(1, 5):
        for samples in np.array_split(generator.permutation(24), 4):
            features = {branch: generator.normal(size=(len(samples), width)) for branch, width in WIDTHS.items()}
            has = {branch: (samples % 5 != k).tolist() for k, branch in enumerate(("text", "audio"))}
            oracle.observe(samples.tolist(), features, has, epoch)
            # The tables are float32 in training; the arithmetic is the same code in float64 here.
            ulgm.observe(
                torch.from_numpy(samples),
                {branch: torch.from_numpy(f.astype(np.float32)).double() for branch, f in features.items()},
                {branch: torch.tensor(h) for branch, h in has.items()},
                epoch,
            )
            for branch in WIDTHS:
                assert ulgm.labels(branch).numpy() == pytest.approx(np.array(oracle.labels[branch]), abs=2e-4)


def test_the_weights_are_zero_throughout_epoch_1_and_not_after() -> None:
    generator = torch.Generator().manual_seed(0)
    ulgm = filled(torch.linspace(-3, 3, 20))
    everyone = torch.arange(20)
    has = {branch: torch.ones(20, dtype=torch.bool) for branch in ("text", "audio")}
    for epoch, zero in ((1, True), (2, False)):
        features = {b: torch.randn(20, w, generator=generator, dtype=torch.float64) for b, w in WIDTHS.items()}
        ulgm.observe(everyone, features, has, epoch)
        assert bool((ulgm.weights("text", everyone) == 0).all()) == zero


def test_labels_stay_within_the_bound_and_the_fusion_keeps_the_human_ones() -> None:
    generator = torch.Generator().manual_seed(1)
    human = torch.linspace(-3, 3, 30)
    ulgm, everyone = filled(human), torch.arange(30)
    has = {branch: torch.ones(30, dtype=torch.bool) for branch in ("text", "audio")}
    for epoch in range(1, 8):
        # Features near the positive centre make the ratio of nearnesses huge, which is what the bound is for.
        features = {b: torch.randn(30, w, generator=generator).double() * 10.0 ** (-epoch) for b, w in WIDTHS.items()}
        ulgm.observe(everyone, features, has, epoch)
    assert torch.equal(ulgm.labels(FUSION).float(), human)
    assert ulgm.labels("text").abs().max() <= BOUND
    assert not torch.equal(ulgm.labels("text").float(), human)


def test_without_a_negative_sample_labels_stay_instead_of_becoming_nan() -> None:
    ulgm, everyone = filled(torch.tensor([1.0, 2.0, 0.0])), torch.arange(3)
    has = {branch: torch.ones(3, dtype=torch.bool) for branch in ("text", "audio")}
    for epoch in (1, 2, 3):
        ulgm.observe(everyone, {b: torch.randn(3, w).double() for b, w in WIDTHS.items()}, has, epoch)
    assert ulgm.labels("audio").tolist() == [1.0, 2.0, 0.0]


def test_the_tables_are_in_the_state_that_a_checkpoint_holds() -> None:
    ulgm = filled(torch.tensor([1.0, -1.0]))
    kept = {name.partition("_")[0] for name in ulgm.state_dict()}
    assert kept == {"labels", "features", "stored"}
    assert len(ulgm.state_dict()) == 3 * len(WIDTHS)


def test_a_modality_that_lies_as_the_fusion_does_gets_the_human_label() -> None:
    human, near = torch.tensor([2.0, -1.5]).double(), torch.tensor([0.7, -0.4]).double()
    assert new_labels(human, near, near).numpy() == pytest.approx(human.numpy(), rel=1e-6)
