"""The ground-truth generator: the information it claims is in the data, and nowhere else."""

from typing import Any

import pytest
import torch
from pgm.cache.errors import UserError
from pgm.trainer.data.synthetic import SyntheticConfig, SyntheticData, SyntheticTask, bayes_accuracy

MIXED = SyntheticConfig(unique={"a": 1, "b": 1}, redundant=1, synergistic=1, noise=1.5)


def readings(task: SyntheticTask, data: SyntheticData) -> dict[str, torch.Tensor]:
    """Each modality's carried bits by matched filter, as real numbers: sign is the bit."""
    return {m: x.mean(1) @ task.directions[m].T for m, x in data.tokens.items()}


def test_the_best_decoder_reaches_the_stated_accuracy() -> None:
    task = SyntheticTask(MIXED, seed=0)
    data = task.sample(20_000, seed=1)
    r = readings(task, data)
    bits = [
        r["a"][:, 0] > 0,
        r["b"][:, 0] > 0,
        r["a"][:, 1] + r["b"][:, 1] > 0,
        (r["a"][:, 2] > 0) ^ (r["b"][:, 2] > 0),
    ]
    guess = sum(bit.long() << i for i, bit in enumerate(bits))
    found = (guess == data.labels).float().mean().item()
    assert found == pytest.approx(bayes_accuracy(MIXED, ("a", "b")), abs=0.01)


def test_each_bit_is_where_its_kind_says_and_nowhere_else() -> None:
    """Correlation of every carried reading with every bit, on noise-free data."""
    config = SyntheticConfig(unique={"a": 1, "b": 1}, redundant=1, synergistic=1, noise=0.0)
    task = SyntheticTask(config, seed=3)
    data = task.sample(4000, seed=4)
    r = readings(task, data)

    def agreement(modality: str, column: int, bit: torch.Tensor) -> float:
        return ((r[modality][:, column] > 0) == bit.bool()).float().mean().item()

    unique_a, unique_b = data.bits["unique:a"][:, 0], data.bits["unique:b"][:, 0]
    redundant, synergistic = data.bits["redundant"][:, 0], data.bits["synergistic"][:, 0]
    assert agreement("a", 0, unique_a) == agreement("b", 0, unique_b) == 1
    assert agreement("a", 1, redundant) == agreement("b", 1, redundant) == 1
    for modality in ("a", "b"):
        for column in range(3):
            assert agreement(modality, column, synergistic) == pytest.approx(0.5, abs=0.04)
    for column in range(3):
        assert agreement("b", column, unique_a) == pytest.approx(0.5, abs=0.04)
    assert torch.equal(synergistic, data.halves["a"][:, 0] ^ data.halves["b"][:, 0])


def test_stated_information_and_accuracies() -> None:
    assert MIXED.information == {"unique:a": 1, "unique:b": 1, "redundant": 1, "synergistic": 1}
    assert MIXED.classes == 16
    clean = SyntheticConfig(unique={"a": 1, "b": 1}, redundant=1, synergistic=1, noise=0.0)
    assert bayes_accuracy(clean, ("a", "b")) == 1
    assert bayes_accuracy(clean, ("a",)) == 0.25
    assert bayes_accuracy(clean, ()) == 1 / 16


def test_seeds_decide_everything_and_the_task_is_shared_between_samples() -> None:
    one, two = (SyntheticTask(MIXED, seed=5).sample(50, seed=6) for _ in range(2))
    assert torch.equal(one.tokens["a"], two.tokens["a"])
    other = SyntheticTask(MIXED, seed=5).sample(50, seed=7)
    assert not torch.equal(one.labels, other.labels)


def test_missing_and_ragged_samples() -> None:
    config = SyntheticConfig(unique={"a": 1, "b": 1, "c": 0}, synergistic=1, missing=0.6, ragged=True, tokens=5)
    data = SyntheticTask(config, seed=0).sample(500, seed=0)
    present = torch.stack([mask.any(1) for mask in data.masks.values()])
    assert present.any(0).all()
    assert 0.3 < present.float().mean() < 0.6
    assert {int(n) for n in data.masks["a"].sum(1)} == set(range(6))
    for m, x in data.tokens.items():
        assert (x[~data.masks[m]] == 0).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"unique": {"a": 0, "b": 0}},
        {"unique": {"a": 1}, "synergistic": 1},
        {"unique": {"a": 9, "b": 0}, "dim": 8},
        {"missing": 1.0},
    ],
)
def test_impossible_tasks_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        SyntheticConfig(**wrong)
    with pytest.raises(UserError, match="Unknown modality"):
        bayes_accuracy(MIXED, ("a", "x"))
