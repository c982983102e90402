"""The fast module equals the equations: every switch against the loop-by-loop oracle, values and gradients."""

from types import ModuleType
from typing import Any

import pytest
import torch
from pgm.trainer.head import PgM, PgMConfig
from torch import Tensor

Batch = tuple[dict[str, Tensor], dict[str, Tensor]]

SWITCHES: list[dict[str, Any]] = [
    {},
    {"mask": "channel"},
    {"mask": "token", "gate_scope": "token"},
    {"mask": "token"},
    {"mask": "qk"},
    {"mask": "none"},
    {"gate_scope": "token"},
    {"gate_scope": "token", "mask": "channel"},
    {"gate_scope": "token", "mask": "qk", "share_partitioner": True, "share_learners": False},
    {"gate_logits": "shared"},
    {"gate_logits": "shared", "share_partitioner": True, "gate_chunk": 2},
    {"gate_logits": "literal"},
    {"gate_logits": "literal", "gate_chunk": 4},
    {"gate_temperature": 0.25},
    {"gate_chunk": 4},
    {"hard": "detached"},
    {"hard": "soft"},
    {"hard": "soft", "mask": "channel", "mask_constant": -3.0},
    {"hard": "soft", "mask": "token", "gate_scope": "token", "mask_constant": -3.0},
    {"share_partitioner": True},
    {"share_learners": False},
    {"share_decoder": False},
    {"learner_layers": 2},
    {"feedback": "partition"},
    {"decoder": "ffn"},
    {"loss_level": "token"},
    {"pfc": "paired"},
    {"iterations": 1},
    {"without": ("partitioner",)},
    {"without": ("uni_learner",)},
    {"without": ("paired_learner",)},
    {"without": ("decoder",)},
    {"without": ("partitioner",), "ablation": "drop"},
    {"without": ("uni_learner",), "ablation": "drop"},
    {"without": ("paired_learner",), "ablation": "drop", "decoder": "ffn"},
    {"checkpointing": True},
]


def model_for(widths: dict[str, int], **switches: Any) -> PgM:
    torch.manual_seed(3)
    settings = {"dim": 16, "heads": 4, "feedforward": 24, "dropout": 0.0} | switches
    return PgM(PgMConfig(widths, **settings))


def named(switches: dict[str, Any]) -> str:
    return "-".join(f"{k}={v}" for k, v in switches.items()) or "defaults"


@pytest.mark.parametrize("switches", SWITCHES, ids=named)
def test_values_and_losses_equal_the_equations_in_float32(
    switches: dict[str, Any], widths: dict[str, int], batch: Batch, oracle: ModuleType
) -> None:
    """The oracle runs in float64, so that the whole difference is the module's."""
    model = model_for(widths, **switches)
    tokens, masks = batch
    out = model(tokens, masks)
    exact = {name: value.detach().double() for name, value in model.named_parameters()}
    expected = oracle.Oracle(model.config, exact).forward({m: x.double() for m, x in tokens.items()}, masks)
    close = {"rtol": 1e-5, "atol": 1e-5, "check_dtype": False}
    for found, wanted in (
        (out.uni, expected.uni),
        (out.paired, expected.paired),
        (out.losses, expected.losses),
        (out.reconstructions, expected.reconstructions),
    ):
        assert found.keys() == wanted.keys()
        for key, value in found.items():
            torch.testing.assert_close(value, wanted[key], **close)
    assert len(out.gates) == len(expected.gates)
    for gates, wanted_gates in zip(out.gates, expected.gates, strict=True):
        for m, (g_u, g_p) in wanted_gates.items():
            real = masks[m][..., None] if m in masks and model.config.gate_scope == "token" else torch.tensor(True)
            torch.testing.assert_close(gates[m].uni, g_u.masked_fill(~real, 0), **close)
            torch.testing.assert_close(gates[m].paired, g_p.masked_fill(~real, 0), **close)


@pytest.mark.parametrize("switches", SWITCHES, ids=named)
def test_gradients_equal_the_equations_in_float64(
    switches: dict[str, Any], widths: dict[str, int], batch: Batch, oracle: ModuleType
) -> None:
    model = model_for(widths, **switches).double()
    tokens, masks = {m: x.double() for m, x in batch[0].items()}, batch[1]
    parameters = dict(model.named_parameters())
    if not parameters:
        pytest.fail("every configuration here has parameters")

    def objective(out: Any) -> Tensor:
        features = [*out.uni.values(), *out.paired.values()]
        return sum(((x**3).sum() for x in features), start=sum(out.losses.values(), start=torch.zeros(())))

    values = list(parameters.values())
    found = torch.autograd.grad(objective(model(tokens, masks)), values, allow_unused=True)
    expected = oracle.Oracle(model.config, parameters).forward(tokens, masks)
    wanted = torch.autograd.grad(objective(expected), values, allow_unused=True)
    for name, a, b in zip(parameters, found, wanted, strict=True):
        zero = torch.zeros_like(parameters[name])
        a, b = zero if a is None else a, zero if b is None else b
        assert torch.allclose(a, b, rtol=1e-7, atol=1e-8), f"{name}: off by {(a - b).abs().max():.1e}"


def test_every_sample_alone_equals_the_batch(widths: dict[str, int], batch: Batch, oracle: ModuleType) -> None:
    """The oracle on one sample's real tokens, without any padding, equals that sample's rows of the ragged batch."""
    model = model_for(widths).eval()
    tokens, masks = batch
    out = model(tokens, masks)
    reference = oracle.Oracle(model.config, dict(model.named_parameters()))
    for b in range(5):
        real = {m: x[b : b + 1, masks[m][b]] if m in masks else x[b : b + 1] for m, x in tokens.items()}
        here = {m: x for m, x in real.items() if x.shape[1]}
        alone = reference.forward(here, {})
        for m, x in here.items():
            torch.testing.assert_close(out.uni[m][b : b + 1, : x.shape[1]], alone.uni[m], rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(out.paired[m][b : b + 1, : x.shape[1]], alone.paired[m], rtol=1e-5, atol=1e-5)
