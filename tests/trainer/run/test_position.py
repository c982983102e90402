"""Position as a switch of every method: what it adds, that it tells order, and that off is off to the bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pgm.cache.errors import UserError
from pgm.trainer import Run
from pgm.trainer.batch import Inputs
from pgm.trainer.data.sequence import Context
from pgm.trainer.run.inference import evaluate_run
from pgm.trainer.run.position import PLACES, WIDTH, Positions, sinusoids
from pgm.trainer.run.request import Request, resolve
from pgm.trainer.run.training import build_model

from ..conftest import TINY


def ramps(length: int) -> Inputs:
    tokens = torch.arange(length, dtype=torch.float32).reshape(1, length, 1)
    return Inputs({"a": tokens}, {"a": torch.ones(1, length, dtype=torch.bool)})


def test_places_are_different_and_padding_stays_zero() -> None:
    table = sinusoids(torch.arange(200))
    assert table.shape == (200, WIDTH)
    assert torch.cdist(table, table).fill_diagonal_(9).min() > 0.02
    inputs = Inputs({"a": torch.ones(1, 4, 3)}, {"a": torch.tensor([[True, True, True, False]])})
    found = Positions("sinusoidal", ["a"])(inputs).tokens["a"]
    assert torch.equal(found[..., :3], inputs.tokens["a"])
    assert torch.equal(found[0, :3, 3:], table[:3])
    assert not found[0, 3, 3:].any()


def test_a_longer_sample_than_the_learned_table_shares_its_last_place() -> None:
    found = Positions("learned", ["a"])(ramps(PLACES + 2)).tokens["a"][0, :, 1:]
    assert torch.equal(found[-1], found[PLACES - 1])
    assert not torch.equal(found[0], found[1])


@pytest.mark.parametrize("method", ["pgm", "concat"])
def test_only_with_position_does_order_matter_and_without_nothing_changes(
    toy: Path, tmp_path: Path, method: str
) -> None:
    def built(**settings: object) -> torch.nn.Module:
        resolved = resolve(Request(toy, tmp_path, method=method, settings={**TINY, **settings}))
        return build_model(resolved).eval()

    generator = torch.Generator().manual_seed(0)
    tokens = {"text": torch.randn(2, 4, 6, generator=generator), "vision": torch.randn(2, 4, 5, generator=generator)}
    masks = {name: torch.ones(2, 4, dtype=torch.bool) for name in tokens}
    forth, back = Inputs(tokens, masks), Inputs({name: value.flip(1) for name, value in tokens.items()}, masks)
    for settings, told in (({}, False), ({"position": "sinusoidal"}, True), ({"position": "learned"}, True)):
        model = built(**settings)
        apart = (model(forth, losses=False).logits - model(back, losses=False).logits).abs().max()
        assert bool(apart > 1e-4) == told, settings
    plain, off = built(), built(position="none")
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), off.parameters(), strict=True))


@pytest.mark.parametrize("kind", ["sinusoidal", "learned"])
def test_a_run_with_position_is_named_and_restored(
    toy: Path, tmp_path: Path, quick: Callable[..., Run], kind: str
) -> None:
    run = quick(toy, tmp_path, "pgm", settings={"position": kind, "pretrain_epochs": 1, "epochs": 1})
    assert run.config["protocol"]["position"] == kind
    found = evaluate_run(run, "test", toy, "auto", "cpu")
    assert found["metrics"]["accuracy"] == run.test["accuracy"]
    assert found["metrics"]["auroc"] == run.test["auroc"]


def test_the_switch_is_in_the_name_only_where_it_is_on(toy: Path, tmp_path: Path) -> None:
    def asked(context: Context | None = None, **settings: object) -> str:
        settings |= {**TINY, "tokens": 1}
        return resolve(Request(toy, tmp_path, method="concat", settings=settings, context=context)).run.id

    names = [asked(), asked(position="none"), asked(position="learned"), asked(position="sinusoidal")]
    assert names[0] == names[1]
    assert len(set(names)) == 3
    with pytest.raises(UserError, match="told how far they lie already"):
        asked(position="learned", context=Context(2))
