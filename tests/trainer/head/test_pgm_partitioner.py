"""Gates and masks of eqs. 1-6: monotone, bounded, contiguous, and the learner blind to what they hide."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pgm.trainer.head import Gates, Learner, Partitioner, PgMConfig, cumsoftmax
from pgm.trainer.head.layout import TokenLayout
from pgm.trainer.head.partitioner import gates_of, harden, ordered_sums, partition
from torch import Tensor


def random_gates(seed: int, scale: float, rows: int = 4, dim: int = 24, chunk: int = 1) -> Gates:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, rows, dim // chunk, generator=generator) * scale
    return gates_of(logits[0], logits[1], chunk=chunk)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([0.0, 0.1, 1.0, 10.0, 1000.0]), chunk=st.sampled_from([1, 4]))
def test_gates_are_monotone_and_end_exactly_at_zero_and_one(seed: int, scale: float, chunk: int) -> None:
    gates = random_gates(seed, scale, chunk=chunk)
    assert (gates.uni.diff(dim=-1) <= 0).all()
    assert (gates.paired.diff(dim=-1) >= 0).all()
    assert (gates.uni[:, -1] == 0).all()
    assert (gates.paired[:, -1] == 1).all()
    for gate in gates:
        assert ((gate >= 0) & (gate <= 1)).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([0.1, 1.0, 10.0]))
def test_hard_gates_are_a_prefix_and_a_suffix(seed: int, scale: float) -> None:
    uni, paired = random_gates(seed, scale).hard()
    assert (uni[:, 1:] <= uni[:, :-1]).all()
    assert (paired[:, 1:] >= paired[:, :-1]).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([0.1, 1.0, 10.0]))
def test_upper_downer_and_shared_add_up_to_both_gates_minus_the_overlap(seed: int, scale: float) -> None:
    gates = random_gates(seed, scale)
    upper, downer = gates.uni - gates.shared, gates.paired - gates.shared
    torch.testing.assert_close(upper + downer + gates.shared, gates.uni + gates.paired - gates.shared)
    torch.testing.assert_close(upper, gates.uni * (1 - gates.paired))
    torch.testing.assert_close(downer, gates.paired * (1 - gates.uni))


def test_cumsoftmax_equals_its_footnote() -> None:
    logits = torch.randn(3, 7, dtype=torch.float64)
    e = torch.exp(logits)
    expected = torch.stack([e[:, : i + 1].sum(1) / e.sum(1) for i in range(7)], 1)
    torch.testing.assert_close(cumsoftmax(logits), expected)


def test_sums_in_a_fixed_order_are_the_running_sums() -> None:
    shares = torch.randn(4, 768).softmax(-1)
    found = ordered_sums(shares)
    torch.testing.assert_close(found, shares.cumsum(-1), rtol=1e-5, atol=1e-6)
    assert (found.diff(dim=-1) >= 0).all()


def test_partition_takes_the_shared_part_from_the_original_representation() -> None:
    gates = random_gates(1, 1.0)
    zero, original = torch.zeros(4, 24), torch.randn(4, 24)
    u, p = partition(torch.stack([zero, zero]), original, torch.stack(gates))
    torch.testing.assert_close(u, gates.shared * original)
    torch.testing.assert_close(p, gates.shared * original)


def test_literal_gates_share_their_logits_at_the_first_iteration_and_sum_to_one() -> None:
    """Why eq. 1 to the letter cannot be what was run: Figure 4's shares sum to more than 100 %."""
    partitioner = Partitioner(PgMConfig({"a": 16}, dim=16, heads=2, gate_logits="literal"))
    x = torch.randn(5, 16)
    gates = partitioner(x, x, x)
    torch.testing.assert_close(gates.uni + gates.paired, torch.ones(5, 16))
    assert not list(partitioner.parameters())


@pytest.mark.parametrize("how", ["straight-through", "detached"])
def test_hard_gates_are_binary_and_pass_the_gradient_as_named(how: str) -> None:
    gate = torch.linspace(0, 1, 11, requires_grad=True)
    binary = harden(gate, how)  # type: ignore[arg-type]
    assert binary.tolist() == [0.0] * 5 + [1.0] * 6
    if how == "detached":
        assert not binary.requires_grad
    else:
        binary.sum().backward()
        assert gate.grad is not None
        assert gate.grad.tolist() == [1.0] * 11


def test_temperature_hardens_the_gates() -> None:
    logits = torch.randn(2, 50, 64)
    undecided = [
        ((g > 0.05) & (g < 0.95)).float().mean().item()
        for g in (gates_of(logits[0], logits[1], t).uni for t in (1.0, 0.1, 0.01))
    ]
    assert undecided[0] > undecided[1] > undecided[2]


def learner_and_gate(mask: str, cut: int = 9) -> tuple[Learner, Tensor, TokenLayout]:
    torch.manual_seed(0)
    learner = Learner(PgMConfig({"a": 16}, dim=16, heads=4, feedforward=24, dropout=0.0, mask=mask))  # type: ignore[arg-type]
    gate = torch.where(torch.arange(16) < cut, 0.8, 0.1).expand(15, 16)
    layout = TokenLayout.build([5], [None], 3, torch.device("cpu"))
    return learner, gate, layout


def test_a_feature_masked_learner_writes_exact_zeros_where_its_gate_is_zero() -> None:
    learner, gate, layout = learner_and_gate("feature")
    out = learner(torch.randn(15, 16), gate, layout)
    assert (out[:, 9:] == 0).all()
    assert (out[:, :9] != 0).all()


def test_a_feature_masked_learner_does_not_see_what_its_gate_hides() -> None:
    learner, gate, layout = learner_and_gate("feature")
    x = torch.randn(15, 16)
    changed = x.clone()
    changed[:, 9:] = torch.randn(15, 7) * 100
    assert torch.equal(learner(x, gate, layout), learner(changed, gate, layout))


@pytest.mark.parametrize("mask", ["channel", "qk", "none"])
def test_the_other_masks_leave_hidden_features_visible_through_the_residual(mask: str) -> None:
    """The difference between the readings of eq. 4, so that nobody takes one for another."""
    learner, gate, layout = learner_and_gate(mask)
    x = torch.randn(15, 16)
    changed = x.clone()
    changed[:, 9:] += 1
    assert not torch.allclose(learner(x, gate, layout), learner(changed, gate, layout))


def test_channel_attention_gives_hidden_features_no_weight_as_keys() -> None:
    learner, gate, layout = learner_and_gate("channel", cut=10)
    attention = learner.blocks[0].attention
    mask, _ = learner.masks(gate, layout)
    with torch.no_grad():
        # Head 2 holds features 8 to 11: only 8 and 9 are live. Its values at 10 and 11 must not matter.
        x = torch.randn(15, 16)
        before = attention(x, layout, mask)
        attention.qkv.bias[32 + 10 : 32 + 12] += 50.0
        assert torch.allclose(before, attention(x, layout, mask), atol=1e-5)
        attention.qkv.bias[32 + 8] += 50.0
        assert not torch.allclose(before, attention(x, layout, mask), atol=1e-2)


def test_a_head_whose_features_are_all_hidden_falls_back_to_unmasked_attention() -> None:
    learner, gate, layout = learner_and_gate("channel", cut=0)
    unmasked = Learner(learner.config)
    unmasked.load_state_dict(learner.state_dict())
    x = torch.randn(15, 16)
    torch.testing.assert_close(learner(x, gate, layout), unmasked(x, torch.ones(15, 16), layout))


def test_token_masks_do_nothing_when_the_gate_is_one_a_sample() -> None:
    token, gate, layout = learner_and_gate("token")
    none, _, _ = learner_and_gate("none")
    x = torch.randn(15, 16)
    torch.testing.assert_close(token(x, gate, layout), none(x, gate, layout))


def test_gates_stay_float32_under_bfloat16_logits() -> None:
    gates = gates_of(torch.randn(3, 64).bfloat16(), torch.randn(3, 64).bfloat16())
    assert gates.uni.dtype == torch.float32
