"""Retrieval never embeds a sample from both members of its pair, and learns its null tokens."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from pgm.cache.errors import UserError
from pgm.trainer import Run
from pgm.trainer.batch import Having, Inputs
from pgm.trainer.run.model import Model, NullTokens
from pgm.trainer.run.request import Request, resolve
from pgm.trainer.run.training import build_model
from pgm.trainer.studies.engine.plan import plan_table
from pgm.trainer.studies.engine.rows import Row, TableSpec
from pgm.trainer.tasks.retrieval import contrastive


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory, make_toy: Callable[..., Path]) -> Path:
    return make_toy(tmp_path_factory.mktemp("pairs"), task="retrieval", missing=0.05)


@pytest.mark.parametrize("method", ["pgm", "concat", "late"])
def test_an_embedding_does_not_know_the_other_member_of_the_pair(pairs: Path, method: str) -> None:
    resolved = resolve(Request(pairs, Path("unused"), method=method))
    model: Model = build_model(resolved).eval()
    generator = torch.Generator().manual_seed(0)
    tokens = {"text": torch.randn(6, 4, 6, generator=generator), "vision": torch.randn(6, 4, 5, generator=generator)}
    masks = {name: torch.ones(6, 4, dtype=torch.bool) for name in tokens}
    with torch.no_grad():
        views = resolved.data.task.views(model, Inputs(tokens, masks))
        for changed, kept in (("text", "vision"), ("vision", "text")):
            other = {**tokens, changed: torch.randn(6, 4, tokens[changed].shape[2], generator=generator)}
            again = resolved.data.task.views(model, Inputs(other, masks))
            assert torch.equal(again[kept], views[kept])
            assert not torch.equal(again[changed], views[changed])


def test_the_null_token_stands_in_and_is_trained(pairs: Path, tmp_path: Path, quick: Callable[..., Run]) -> None:
    null = NullTokens({"text": 3})
    with torch.no_grad():
        null.tokens["text"].copy_(torch.tensor([1.0, 2.0, 3.0]))
    given = Inputs({"text": torch.zeros(2, 4, 3)}, {"text": torch.tensor([[True] * 4, [False] * 4])})
    shown = null(given)
    assert shown.masks["text"].tolist() == [[True] * 4, [True, False, False, False]]
    assert shown.tokens["text"][1, 0].tolist() == [1.0, 2.0, 3.0]
    assert not shown.tokens["text"][0].any()
    from safetensors.torch import load_file

    weights = load_file(quick(pairs, tmp_path, "concat").weights)
    assert weights["null.tokens.text"].abs().sum() > 0
    assert weights["null.tokens.vision"].abs().sum() > 0


@pytest.mark.parametrize("method", ["pgm", "concat", "ensemble"])
def test_retrieval_learns_categories_across_modalities(
    pairs: Path, tmp_path: Path, method: str, quick: Callable[..., Run]
) -> None:
    run = quick(pairs, tmp_path, method, settings={"epochs": 6, "lr": 5e-3})
    floor = run.result["floors"]["majority"]["map"]
    assert run.test["map"] > floor + 0.3
    assert run.test["map"] == pytest.approx((run.test["map_text_to_vision"] + run.test["map_vision_to_text"]) / 2)
    table = pq.read_table(run.predictions_path("test"))
    assert {"id", "target", "embedding_text", "embedding_vision"} == set(table.column_names)


def test_a_single_modality_cannot_retrieve_across_two(pairs: Path) -> None:
    with pytest.raises(UserError, match="needs exactly two; here: text"):
        resolve(Request(pairs, Path("unused"), method="text"))


@pytest.mark.parametrize("method", ["mla", "pgm+mla", "qmf"])
def test_a_method_without_a_vector_is_refused_before_anything_starts(pairs: Path, tmp_path: Path, method: str) -> None:
    refused = rf"Method '{re.escape(method)}' .* cannot do 'toy', a retrieval dataset. Choose a fusion method"
    request = Request(pairs, tmp_path / "runs", dataset="toy", method=method)
    both = TableSpec("Both", (Row("Concat", "concat"), Row("Other", method)), "Concat")
    with pytest.raises(UserError, match=refused):
        resolve(request)
    # A table with such a row neither trains the other rows first nor gets as far as its plan.
    with pytest.raises(UserError, match=refused):
        plan_table(both, request, seeds=2)
    assert not (tmp_path / "runs").exists()


def test_the_contrastive_loss_prefers_true_pairs_and_skips_unpaired_samples() -> None:
    left = torch.eye(4)
    paired = Having(torch.ones(4, dtype=torch.bool), 4)
    assert contrastive(left, left, paired) < 0.01 < 5 < contrastive(left, left.roll(1, 0), paired)
    few = Having(torch.tensor([True, False, False, False]), 1)
    assert contrastive(left, left, few) == 0
    broken = left.clone()
    broken[3] = 1e6
    some = Having(torch.tensor([True, True, True, False]))
    assert torch.equal(contrastive(broken, left, some), contrastive(left, left, some))


def test_samples_without_a_modality_are_left_out_of_its_side(pairs: Path) -> None:
    task = resolve(Request(pairs, Path("unused"), method="concat")).data.task
    views = {"text": np.eye(3, dtype=np.float32), "vision": np.eye(3, dtype=np.float32)}
    views["text"][2] = np.nan
    found = task.metrics(views, np.array([0, 1, 2]))
    assert found["map_text_to_vision"] == 1.0
    assert found["p10_text_to_vision"] == pytest.approx(0.1)
    assert found["map_vision_to_text"] == pytest.approx(2 / 3)
    assert (found["r1_text_to_vision"], found["r1_vision_to_text"]) == (1.0, pytest.approx(2 / 3))
    assert found["r1"] == pytest.approx(5 / 6)


def test_a_training_step_runs_the_decoder_once(pairs: Path) -> None:
    """Three passes a step, and only the full one pretrains, for all iterations in one call."""
    resolved = resolve(Request(pairs, Path("unused"), method="pgm", settings={"iterations": 3, "dim": 8, "heads": 2}))
    model: Model = build_model(resolved).train()
    calls: list[str] = []
    decoder = model.method.get_submodule("pgm.decoders.shared")
    decoder.register_forward_hook(lambda *_: calls.append("decoder"))
    tokens = {"text": torch.randn(6, 4, 6), "vision": torch.randn(6, 4, 5)}
    inputs = Inputs(tokens, {name: torch.ones(6, 4, dtype=torch.bool) for name in tokens})
    loss, output, _ = resolved.data.task.loss(model, inputs, torch.arange(6) % 4)
    assert len(calls) == 1
    assert output.pretraining is not None
    assert torch.isfinite(loss)
