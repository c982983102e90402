"""MMILB, InfoNCE and CPC against plain transcriptions in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pgm.trainer.methods.prior import mmilb
from pgm.trainer.methods.prior.contrastive import CPC, info_nce
from pgm.trainer.methods.prior.mmilb import JITTER, MMILB, degenerate, entropy


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_likelihood_is_the_published_sum_over_dimensions_and_mean_over_those_with_both() -> None:
    bound, x, y = MMILB(6, 4).double(), drawn(9, 6), drawn(9, 4, seed=1)
    both = torch.tensor([True] * 6 + [False] * 3)
    weights = {name: value.numpy() for name, value in bound.state_dict().items()}

    def perceptron(name: str, row: np.ndarray) -> np.ndarray:
        hidden = np.maximum(weights[f"{name}.0.weight"] @ row + weights[f"{name}.0.bias"], 0)
        return weights[f"{name}.2.weight"] @ hidden + weights[f"{name}.2.bias"]

    rows = []
    for i in range(6):
        mean, log_variance = (perceptron(name, x[i].numpy()) for name in ("mean", "log_variance"))
        rows.append(
            -sum((m - v) ** 2 / (2 * math.exp(s)) for m, v, s in zip(mean, y[i].numpy(), log_variance, strict=True))
        )
    assert bound.likelihood(x, y, both).item() == pytest.approx(sum(rows) / 6, rel=1e-12)
    assert bound.likelihood(x, y, torch.zeros(9, dtype=torch.bool)).item() == 0.0


def test_the_entropy_is_a_quarter_of_both_signs_log_determinants() -> None:
    vectors, labels = drawn(40, 3), torch.tensor([1.5, -2.0, 0.0, 3.0] * 10)
    expected = 0.0
    for sign in (1, -1):
        rows = vectors.numpy()[np.sign(labels.numpy()) == sign]
        centred = rows - rows.mean(axis=0)
        covariance = sum(np.outer(row, row) for row in centred) / len(rows)
        expected += 0.25 * math.log(np.linalg.det(covariance + JITTER * np.eye(3)))
    assert entropy(vectors, labels).item() == pytest.approx(expected, rel=1e-10)
    assert degenerate(vectors, labels).item() == 0.0


@pytest.mark.parametrize("labels", [[1.0, 2.0, 3.0], [0.0, 0.0, 0.0], [1.0, -1.0, 1.0]])
def test_too_few_samples_of_a_sign_are_finite_with_gradients_and_said(labels: list[float]) -> None:
    vectors = drawn(3, 4).requires_grad_()
    found = entropy(vectors, torch.tensor(labels))
    found.backward()
    assert vectors.grad is not None
    assert torch.isfinite(found)
    assert torch.isfinite(vectors.grad).all()
    assert degenerate(vectors, torch.tensor(labels)).item() == 1.0


def test_vectors_on_a_line_are_degenerate_however_many_there_are_and_spread_ones_are_not() -> None:
    labels = torch.tensor([1.0, -1.0] * 100)
    spread, line = drawn(200, 4) * 0.3, drawn(200, 1) @ drawn(1, 4, seed=1)
    assert degenerate(spread, labels).item() == 0.0
    assert degenerate(line, labels).item() == 1.0
    assert torch.isfinite(entropy(line, labels))
    one_sign = torch.where((labels > 0).unsqueeze(1), spread, line)
    assert degenerate(one_sign, labels).item() == 1.0


def test_the_jitter_is_said_to_decide_where_moving_it_moves_the_entropy(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = torch.tensor([1.0, -1.0] * 100)
    vectors = {"spread": drawn(200, 4) * 0.3, "line": drawn(200, 1) @ drawn(1, 4, seed=1)}
    before = {name: entropy(x, labels).item() for name, x in vectors.items()}
    monkeypatch.setattr(mmilb, "JITTER", 2 * JITTER)
    moved = {name: entropy(x, labels).item() - before[name] for name, x in vectors.items()}
    assert 0 < moved["spread"] < 0.01
    assert moved["line"] == pytest.approx(2 * 0.25 * 3 * math.log(2), rel=1e-2)  # two signs, three directions each


def test_the_entropys_projection_is_never_trained() -> None:
    bound = MMILB(6, 8)
    assert {n for n, p in bound.named_parameters() if not p.requires_grad} == {"project.weight", "project.bias"}
    assert bound.projected(torch.zeros(2, 8)).shape == (2, 2)


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_info_nce_is_the_mean_over_the_valid_with_the_valid_as_negatives(temperature: float) -> None:
    asking, answering = drawn(7, 5), drawn(7, 5, seed=1)
    valid = torch.tensor([True, False, True, True, True, False, True])
    rows = [i for i in range(7) if valid[i]]
    unit = [[v.numpy() / np.linalg.norm(v.numpy()) for v in side] for side in (asking, answering)]
    losses = []
    for i in rows:
        scores = [float(unit[0][i] @ unit[1][j]) / temperature for j in rows]
        losses.append(-float(unit[0][i] @ unit[1][i]) / temperature + math.log(sum(map(math.exp, scores))))
    found = info_nce(asking, answering, valid, temperature).item()
    assert found == pytest.approx(sum(losses) / len(rows), rel=1e-5)  # the vectors are compared in float32


def test_info_nce_lies_at_the_log_of_the_batch_for_equal_vectors_and_below_for_matching_ones() -> None:
    valid = torch.ones(8, dtype=torch.bool)
    same = torch.ones(8, 4)
    assert info_nce(same, same, valid).item() == pytest.approx(math.log(8), rel=1e-5)
    apart = torch.eye(8)
    assert info_nce(apart, apart, valid, 0.1).item() < 0.01
    assert info_nce(apart, apart.roll(1, 0), valid, 0.1).item() > 9
    assert info_nce(apart, apart, ~valid).item() == 0.0


def test_cpc_asks_with_the_modality_and_answers_from_the_fused_vector() -> None:
    cpc, x, z = CPC(5, 3), drawn(6, 5).float(), drawn(6, 3, seed=1).float()
    valid = torch.ones(6, dtype=torch.bool)
    weight, bias = cpc.predict.weight, cpc.predict.bias
    assert cpc(x, z, valid).item() == pytest.approx(info_nce(x, z @ weight.T + bias, valid).item(), rel=1e-6)
