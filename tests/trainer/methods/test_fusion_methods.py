"""Every method takes masked tokens of any S, any padding and missing modalities, and rebuilds from its description."""

from __future__ import annotations

import json
import operator
from dataclasses import replace

import pytest
import torch
from pgm.cache.store.identity import canonical_json
from pgm.trainer.batch import Inputs
from pgm.trainer.methods import Method, MethodConfig, Shape, choose, known_methods, modalities_of, restored

SHAPE = Shape({"audio": 7, "text": 6, "vision": 5}, 4)
NAMES = list(known_methods(("text",)))
SETTINGS = {"dim": 8, "heads": 2, "feedforward": 16}


SCORES = ("self_mm", "mmim")  # made for a score, not for classes
# What no part of the answer comes from: null vectors move only when a modality is missing; teachers, auxiliary
# classifiers and what prior models learn beside the answer are trained by losses of their own.
ASIDE = {
    "self_mm": ("heads.",),
    "mmim": ("bounds.", "contrasts."),
    "unimse": ("compared.", "polarity."),
    "unimeec": ("cause.",),
}


def chosen(name: str) -> tuple[MethodConfig, Shape]:
    """The method for these modalities, at small sizes where its sizes are switches."""
    widths = {m: SHAPE.widths[m] for m in modalities_of(name, SHAPE.modalities)}
    shape = Shape(widths, outputs_of(name))
    sizes = {} if name in ASIDE else SETTINGS
    choice, rest = choose(name, "small", shape, sizes)
    assert not rest
    return choice, shape


def outputs_of(name: str) -> int:
    return 1 if name.removesuffix("+pgm") in SCORES else 4


def build(name: str) -> Method:
    choice, shape = chosen(name)
    torch.manual_seed(0)
    return choice.build(shape)


def inputs_of(method_name: str, lengths: dict[str, list[int]], padding: int = 0, filler: float = 0.0) -> Inputs:
    """Random tokens with these lengths, `padding` more padded positions, whatever in the padding."""
    tokens, masks = {}, {}
    for name in modalities_of(method_name, SHAPE.modalities):
        generator = torch.Generator().manual_seed(len(name))
        longest = max(1, *lengths[name]) + padding
        masks[name] = torch.arange(longest) < torch.tensor(lengths[name])[:, None]
        real = torch.randn(len(lengths[name]), max(1, *lengths[name]), SHAPE.widths[name], generator=generator)
        padded = torch.full((len(lengths[name]), longest, SHAPE.widths[name]), filler)
        padded[:, : real.shape[1]] = real
        tokens[name] = torch.where(masks[name].unsqueeze(-1), padded, filler)
    apart = torch.arange(len(next(iter(masks.values()))))
    return Inputs(tokens, masks, None, apart, torch.zeros_like(apart))


RAGGED = {"audio": [3, 1, 0, 0], "text": [2, 5, 4, 0], "vision": [6, 6, 6, 6]}


@pytest.mark.parametrize("name", NAMES)
def test_padding_changes_nothing_and_missing_modalities_stay_finite(name: str) -> None:
    method = build(name).eval()
    with torch.no_grad():
        plain = method(inputs_of(name, RAGGED))
        padded = method(inputs_of(name, RAGGED, padding=3, filler=77.0))
    assert plain.logits.shape == (4, outputs_of(name))
    assert plain.logits.isfinite().all()
    assert plain.fused.isfinite().all()
    assert torch.allclose(plain.logits, padded.logits, atol=1e-5)
    assert torch.allclose(plain.fused, padded.fused, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_is_not_affected_by_its_neighbours(name: str) -> None:
    method = build(name).eval()
    inputs = inputs_of(name, RAGGED)
    with torch.no_grad():
        together = method(inputs).logits
        alone = [method(inputs.mapped(operator.itemgetter(slice(i, i + 1)))).logits for i in range(4)]
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_task_reaches_every_parameter_it_should(name: str) -> None:
    method = build(name).train()
    inputs = inputs_of(name, {"audio": [3, 2], "text": [2, 5], "vision": [4, 4]})
    output = method(replace(inputs, dialogues=torch.zeros(2), turns=torch.arange(2)))
    loss = output.logits.square().mean() + (0 if output.pretraining is None else output.pretraining)
    loss.backward()
    silent = [n for n, p in method.named_parameters() if p.grad is None or not p.grad.any()]
    aside = ("null", "teachers", "auxiliary", *ASIDE.get(name.removesuffix("+pgm"), ()))
    if name in ("self_mm+pgm", "mmim+pgm"):
        aside = (*aside, "encoder.")  # PgM reads tokens; the vectors are left to the losses beside the answer
    assert [n for n in silent if not any(word in n for word in aside)] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_description_in_json_rebuilds_the_same_module(name: str) -> None:
    choice, shape = chosen(name)
    again = restored(json.loads(canonical_json(choice.describe())), shape.modalities)
    assert again.name == choice.name
    shapes = [{n: tuple(p.shape) for n, p in c.build(shape).named_parameters()} for c in (choice, again)]
    assert shapes[0] == shapes[1]
    assert again.describe() == choice.describe() or json.loads(canonical_json(again.describe())) == json.loads(
        canonical_json(choice.describe())
    )


def test_fusions_do_what_their_names_say() -> None:
    vectors = {"audio": [1.0, 5.0], "text": [3.0, 2.0], "vision": [0.0, 0.0]}

    class Fixed(torch.nn.Module):
        def __init__(self, value: list[float]) -> None:
            super().__init__()
            self.value = torch.tensor(value)

        def forward(self, tokens: torch.Tensor, mask: torch.Tensor, total: int | None) -> torch.Tensor:
            return self.value.expand(len(tokens), -1) * mask.any(1, keepdim=True)

    lengths = {"audio": [1, 1], "text": [1, 1], "vision": [1, 0]}
    expected = {
        "add": [[4.0, 7.0], [6.0, 10.5]],  # the second sample's two vectors count for three
        "max": [[3.0, 5.0], [3.0, 5.0]],
    }
    for name, rows in expected.items():
        choice, _ = choose(name, "small", SHAPE, {"dim": 2, "heads": 1, "feedforward": 2})
        method = choice.build(SHAPE).eval()
        method.trunks = torch.nn.ModuleDict({m: Fixed(v) for m, v in vectors.items()})
        method.fuse = torch.nn.Identity()
        fused = method(inputs_of(name, lengths)).fused
        assert torch.allclose(fused, torch.tensor(rows)), name


def test_late_average_leaves_the_missing_modality_out() -> None:
    method = build("late").eval()
    both = inputs_of("late", {"audio": [2], "text": [0], "vision": [3]})
    with torch.no_grad():
        singles = [method.members[m](both.tokens[m], both.masks[m]) for m in ("audio", "vision")]
        assert torch.allclose(method(both).logits, sum(singles) / 2, atol=1e-6)
