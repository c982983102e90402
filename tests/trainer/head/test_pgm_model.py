"""PgM as a whole: shapes, padding, missing modalities, gradients, determinism, learning, saving, tracing, precision."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pgm.cache.errors import UserError
from pgm.trainer.head import FusionConfig, FusionHead, PgM, PgMConfig
from torch import Tensor

Batch = tuple[dict[str, Tensor], dict[str, Tensor]]


def model_for(widths: dict[str, int], **switches: Any) -> PgM:
    torch.manual_seed(3)
    settings = {"dim": 16, "heads": 4, "feedforward": 24, "dropout": 0.0} | switches
    return PgM(PgMConfig(widths, **settings))


def fusion_for(widths: dict[str, int], **switches: Any) -> FusionHead:
    torch.manual_seed(4)
    settings = {"dim": 16, "heads": 4, "feedforward": 24, "dropout": 0.0, "classes": 3, "length": 4} | switches
    return FusionHead(FusionConfig(tuple(widths), **settings))


def test_declared_shapes_hold_when_checked_at_run_time() -> None:
    """Every jaxtyping annotation of the package, checked by beartype on a ragged batch."""
    code = """
import torch
from jaxtyping import install_import_hook
torch.set_num_threads(1)
modules = "block decoder dropout fusion gates layout learner losses model partitioner".split()
with install_import_hook([f"pgm.trainer.head.{name}" for name in modules], "beartype.beartype"):
    from pgm.trainer.head import FusionConfig, FusionHead, PgM, PgMConfig
sizes = {"dim": 16, "heads": 4, "feedforward": 24}
widths = {"text": 12, "vision": 16}
tokens = {"text": torch.randn(3, 5, 12), "vision": torch.randn(3, 4, 16)}
masks = {"text": torch.arange(5) < torch.tensor([5, 0, 2])[:, None]}
for switches in (
    {}, {"gate_scope": "token"}, {"mask": "channel"}, {"mask": "token"}, {"mask": "qk"}, {"loss_level": "token"},
    {"share_learners": False, "share_decoder": False}, {"decoder": "ffn"},
):
    model = PgM(PgMConfig(widths, **sizes, **switches))
    for given in ({}, masks):
        out = model(tokens, given)
for axis in ("feature", "sequence", "pooled"):
    FusionHead(FusionConfig(tuple(widths), **sizes, axis=axis))(out.uni, out.paired, masks)
try:
    model({"text": torch.randn(5, 12)})
except Exception as error:
    assert "jaxtyping" in type(error).__module__, error
    print("checked")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "checked", done.stderr


def test_output_shapes_and_names(widths: dict[str, int], batch: Batch) -> None:
    model = model_for(widths, iterations=2)
    tokens, masks = batch
    out = model(tokens, masks)
    for m, x in tokens.items():
        shape = (5, x.shape[1], 16)
        assert out.uni[m].shape == out.paired[m].shape == out.reconstructions[m].shape == shape
        assert [g[m].uni.shape for g in out.gates] == [(5, 1, 16)] * 2
        if m in masks:
            assert (out.uni[m][~masks[m]] == 0).all()
    torch.testing.assert_close(out.pretraining_loss, sum(out.losses.values()))


@pytest.mark.parametrize("mask", ["feature", "channel", "token", "qk"])
@pytest.mark.parametrize("axis", ["feature", "sequence", "pooled"])
def test_padding_and_neighbours_change_nothing(mask: str, axis: str, widths: dict[str, int], batch: Batch) -> None:
    model = model_for(widths, mask=mask, gate_scope="token").eval()
    fusion = fusion_for(widths, axis=axis).eval()
    tokens, masks = batch
    out = model(tokens, masks)
    fused = fusion(out.uni, out.paired, masks)
    longer = {m: torch.cat([x, torch.full((5, 3, x.shape[2]), float("nan"))], 1) for m, x in tokens.items()}
    real = {m: masks.get(m, torch.ones(5, x.shape[1], dtype=torch.bool)) for m, x in tokens.items()}
    longer_masks = {m: torch.cat([x, torch.zeros(5, 3, dtype=torch.bool)], 1) for m, x in real.items()}
    padded = model(longer, longer_masks)
    refused = fusion(padded.uni, padded.paired, longer_masks)
    torch.testing.assert_close(refused.logits, fused.logits)
    for m, x in tokens.items():
        torch.testing.assert_close(padded.uni[m][:, : x.shape[1]], out.uni[m])
    for b in range(5):
        one = model({m: x[b : b + 1] for m, x in tokens.items()}, {m: x[b : b + 1] for m, x in masks.items()})
        torch.testing.assert_close(one.paired["text"], out.paired["text"][b : b + 1])
        alone = fusion(one.uni, one.paired, {m: x[b : b + 1] for m, x in masks.items()})
        torch.testing.assert_close(alone.logits, fused.logits[b : b + 1])


def test_packed_and_traced_layouts_compute_the_same(
    widths: dict[str, int], batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_for(widths)
    tokens, masks = batch
    packed = model(tokens, masks)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    traced = model(tokens, masks)
    torch.testing.assert_close(traced.losses, packed.losses)
    for m in tokens:
        torch.testing.assert_close(traced.uni[m], packed.uni[m])


@pytest.mark.parametrize(
    "switches", [{}, {"mask": "channel"}, {"mask": "token", "gate_scope": "token"}, {"loss_level": "token"}]
)
def test_samples_and_batches_without_anything_stay_finite(switches: dict[str, Any], widths: dict[str, int]) -> None:
    model = model_for(widths, **switches)
    tokens = {m: torch.randn(3, 4, d) for m, d in widths.items()}
    some = {m: torch.ones(3, 4, dtype=torch.bool) for m in widths}
    for m in widths:
        some[m][1] = False
    nothing = {m: torch.zeros(3, 4, dtype=torch.bool) for m in widths}
    for masks in (some, nothing):
        for axis in ("feature", "sequence", "pooled"):
            fusion = fusion_for(widths, axis=axis)
            out = model(tokens, masks)
            logits = fusion(out.uni, out.paired, masks).logits
            loss = out.pretraining_loss + logits.square().mean()
            loss.backward()
            assert torch.isfinite(loss)
            assert torch.isfinite(logits).all()
            for p in [*model.parameters(), *fusion.parameters()]:
                assert p.grad is None or torch.isfinite(p.grad).all()


def test_a_missing_modality_changes_no_other_and_leaves_the_losses(widths: dict[str, int]) -> None:
    model = model_for(widths).eval()
    tokens = {m: torch.randn(4, 3, d) for m, d in widths.items()}
    masks = {"audio": torch.ones(4, 3, dtype=torch.bool)}
    masks["audio"][2:] = False
    whole, partial = model(tokens), model(tokens, masks)
    torch.testing.assert_close(partial.uni["text"], whole.uni["text"])
    assert (partial.uni["audio"][2:] == 0).all()
    halves = model({m: x[:2] for m, x in tokens.items()}, losses=True).losses["upr"]
    rest = model({m: x[2:] for m, x in tokens.items() if m != "audio"}, losses=True).losses["upr"]
    together = model(tokens, masks, losses=True).losses["upr"]
    # Text and vision average over four samples, audio over the two that have it.
    audio = halves - model({m: x[:2] for m, x in tokens.items() if m != "audio"}, losses=True).losses["upr"]
    others = (halves - audio + rest) / 2
    torch.testing.assert_close(together, others + audio)


def test_a_modality_may_be_left_out_of_the_call(widths: dict[str, int]) -> None:
    model, fusion = model_for(widths).eval(), fusion_for(widths).eval()
    tokens = {m: torch.randn(4, 3, d) for m, d in widths.items()}
    masks = {"audio": torch.zeros(4, 3, dtype=torch.bool)}
    explicit = model(tokens, masks)
    del tokens["audio"]
    implicit = model(tokens)
    torch.testing.assert_close(implicit.uni["text"], explicit.uni["text"])
    left_out = {"audio": torch.zeros(4, 1, dtype=torch.bool)}
    torch.testing.assert_close(
        fusion(implicit.uni, implicit.paired, left_out).logits, fusion(explicit.uni, explicit.paired, masks).logits
    )


@pytest.mark.parametrize("switches", [{}, {"mask": "channel"}, {"hard": "soft"}, {"decoder": "ffn"}])
def test_gradients_agree_with_finite_differences(switches: dict[str, Any]) -> None:
    """With soft or detached gates; a straight-through gradient is not the derivative of its forward pass."""
    switches = {"hard": "detached"} | switches
    model = model_for({"a": 6, "b": 8}, dim=8, heads=2, feedforward=8, iterations=2, **switches).double()
    x = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)
    y = torch.randn(2, 2, 8, dtype=torch.float64, requires_grad=True)
    masks = {"a": torch.tensor([[True, True, False], [True, True, True]])}

    def features(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        out = model({"a": a, "b": b}, masks, losses=True)
        # The reconstruction target is detached by design, so its loss is not a function of the input alone.
        return out.uni["a"], out.paired["b"], out.losses["ufc"], out.losses["pfc"], out.reconstructions["b"]

    assert torch.autograd.gradcheck(features, (x, y), eps=1e-6, atol=1e-5, fast_mode=True)


def test_the_task_loss_reaches_the_gates_and_every_part(widths: dict[str, int], batch: Batch) -> None:
    model, fusion = model_for(widths), fusion_for(widths)
    tokens, masks = batch
    out = model(tokens, masks, losses=False)
    assert not out.losses
    fusion(out.uni, out.paired, masks).logits.square().sum().backward()
    for m in widths:
        for gate in ("uni_gate", "paired_gate"):
            grad = model.get_parameter(f"partitioners.{m}.{gate}.weight").grad
            assert grad is not None
            assert grad.abs().max() > 0
    for name, p in fusion.named_parameters():
        assert p.grad is not None, name


def test_two_runs_of_one_seed_are_bitwise_the_same(widths: dict[str, int], batch: Batch) -> None:
    def trained() -> dict[str, Tensor]:
        model = model_for(widths, dropout=0.3).train()
        optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
        torch.manual_seed(11)
        for _ in range(3):
            optimizer.zero_grad()
            model(*batch).pretraining_loss.backward()
            optimizer.step()
        return model.state_dict()

    first, second = trained(), trained()
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_checkpointing_changes_neither_values_nor_gradients(widths: dict[str, int], batch: Batch) -> None:
    grads = []
    for checkpointing in (False, True):
        model = model_for(widths, dropout=0.2, checkpointing=checkpointing).train()
        torch.manual_seed(5)
        model(*batch).pretraining_loss.backward()
        grads.append([p.grad for p in model.parameters()])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


def test_it_fits_64_random_samples_completely() -> None:
    torch.manual_seed(0)
    widths = {"text": 24, "vision": 32}
    model = PgM(PgMConfig.small(widths, dropout=0.0))
    fusion = FusionHead(FusionConfig.small(tuple(widths), 4, dropout=0.0))
    tokens = {m: torch.randn(64, 5, d) for m, d in widths.items()}
    masks = {"text": torch.arange(5) < torch.randint(1, 6, (64, 1))}
    labels = torch.randint(0, 4, (64,))
    optimizer = torch.optim.AdamW([*model.parameters(), *fusion.parameters()], 1e-3)
    for _ in range(60):
        optimizer.zero_grad()
        out = model(tokens, masks)
        logits = fusion(out.uni, out.paired, masks).logits
        (torch.nn.functional.cross_entropy(logits, labels) + 0.5 * out.pretraining_loss).backward()
        optimizer.step()
        if (logits.argmax(1) == labels).all():
            return
    pytest.fail(f"only {(logits.argmax(1) == labels).sum()} of 64 fitted after 60 steps")


def test_saved_and_loaded_models_are_equal(widths: dict[str, int], batch: Batch, tmp_path: Path) -> None:
    model = model_for(widths, without=("uni_learner",), mask="qk").eval()
    model.save_pretrained(tmp_path / "head")
    assert {f.name for f in (tmp_path / "head").iterdir()} >= {"config.json", "model.safetensors"}
    assert json.loads((tmp_path / "head" / "config.json").read_text())["modalities"] == widths
    again = PgM.from_pretrained(tmp_path / "head").eval()
    assert again.config == model.config
    assert torch.equal(again(*batch).uni["text"], model(*batch).uni["text"])
    fusion = fusion_for(widths)
    fusion.save_pretrained(tmp_path / "fusion")
    assert FusionHead.from_pretrained(tmp_path / "fusion").config == fusion.config


def test_it_compiles_as_one_graph(widths: dict[str, int], batch: Batch) -> None:
    model = model_for(widths)
    compiled = torch.compile(copy.deepcopy(model), backend="aot_eager", fullgraph=True)
    found, wanted = compiled(*batch), model(*batch)
    torch.testing.assert_close(found.losses, wanted.losses)
    torch.testing.assert_close(found.uni, wanted.uni)
    found.pretraining_loss.backward()


def test_it_exports_with_free_batch_and_lengths(widths: dict[str, int], batch: Batch) -> None:
    model = model_for(widths).eval()
    tokens, _ = batch
    masks = {m: torch.ones(x.shape[:2], dtype=torch.bool) for m, x in tokens.items()}
    b = torch.export.Dim("batch", min=2, max=64)
    shapes = {m: {0: b, 1: torch.export.Dim(f"length_{m}", min=2, max=64)} for m in tokens}
    program = torch.export.export(model, (tokens, masks), dynamic_shapes=(shapes, shapes))
    other = {m: torch.randn(3, 2 + i * 3, d) for i, (m, d) in enumerate(widths.items())}
    ragged = {m: torch.arange(x.shape[1]) < torch.tensor([2, 1, 0])[:, None] for m, x in other.items()}
    found, wanted = program.module()(other, ragged), model(other, ragged)
    torch.testing.assert_close(found.uni, wanted.uni)
    torch.testing.assert_close(found.paired, wanted.paired)


def test_bfloat16_autocast_trains_close_to_float32(widths: dict[str, int], batch: Batch) -> None:
    model, fusion = model_for(widths), fusion_for(widths)
    tokens, masks = batch
    exact = model(tokens, masks)
    with torch.autocast("cpu", torch.bfloat16):
        out = model(tokens, masks)
        logits = fusion(out.uni, out.paired, masks).logits
    (out.pretraining_loss + logits.float().square().mean()).backward()
    torch.testing.assert_close(out.pretraining_loss.float(), exact.pretraining_loss, rtol=0.05, atol=0.05)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_float16_features_from_a_cache_are_taken_as_they_are(widths: dict[str, int], batch: Batch) -> None:
    model = model_for(widths).eval()
    tokens, masks = batch
    half = {m: x.half() for m, x in tokens.items()}
    torch.testing.assert_close(model(half, masks).uni, model({m: x.float() for m, x in half.items()}, masks).uni)


def test_one_modality_one_token_one_iteration() -> None:
    model, fusion = model_for({"only": 16}, iterations=1), fusion_for({"only": 16})
    out = model({"only": torch.randn(2, 1, 16)})
    assert out.losses["ufc"] == 0
    assert fusion(out.uni, out.paired).logits.shape == (2, 3)
    assert len(out.gates) == 1


def test_evaluation_skips_what_only_losses_need(widths: dict[str, int], batch: Batch) -> None:
    model = model_for(widths).eval()
    ran: list[str] = []
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    out = model(*batch)
    assert not any(name.startswith(("decoders.", "classifiers.")) for name in ran)
    with pytest.raises(UserError, match="losses=True"):
        _ = out.pretraining_loss
    asked = model(*batch, losses=True)
    torch.testing.assert_close(asked.uni, out.uni)
    assert asked.losses.keys() == {"ufc", "pfc", "upr"}


@pytest.mark.parametrize(
    ("switches", "branches"),
    [
        ({"without": ("uni_learner",)}, ("uni", "paired")),
        ({"without": ("uni_learner",), "ablation": "drop"}, ("paired",)),
        ({"without": ("paired_learner",), "ablation": "drop"}, ("uni",)),
        ({"without": ("partitioner",)}, ("uni", "paired")),
        ({"without": ("partitioner",), "ablation": "drop"}, ("uni",)),
    ],
)
def test_ablations_leave_the_branches_they_name_and_fuse(
    switches: dict[str, Any], branches: tuple[str, ...], widths: dict[str, int], batch: Batch
) -> None:
    model = model_for(widths, **switches)
    assert model.config.branches == branches
    out = model(*batch)
    assert (bool(out.uni), bool(out.paired)) == ("uni" in branches, "paired" in branches)
    fusion = fusion_for(widths, branches=branches)
    assert fusion(out.uni, out.paired, batch[1]).logits.shape == (5, 3)
    if "partitioner" in model.config.without:
        torch.testing.assert_close(out.uni["vision"], torch.nn.functional.layer_norm(batch[0]["vision"], (16,)))
        assert out.pretraining_loss == 0
        assert out.gates == ()


def test_parameter_groups_cover_every_parameter_once(widths: dict[str, int]) -> None:
    model = model_for(widths)
    groups = model.parameter_groups()
    assert list(groups) == ["learners", "decoder", "rest"]
    ids = [id(p) for group in groups.values() for p in group]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())
    assert {id(p) for p in groups["decoder"]} == {id(p) for p in model.decoders.parameters()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask": "featur"}, "Did you mean 'feature'"),
        ({"dim": 30, "heads": 4}, "cannot be split"),
        ({"gate_chunk": 5}, "does not divide"),
        ({"without": ("decoders",)}, "Did you mean 'decoder'"),
        ({"dropout": 1.0}, "below 1"),
        ({"iterations": 0}, "at least 1"),
        ({"without": ("uni_learner", "paired_learner"), "ablation": "drop"}, "nothing to fuse"),
    ],
)
def test_impossible_configurations_are_refused_with_the_reason(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        PgMConfig({"text": 768}, **changes)


@pytest.mark.parametrize(
    ("tokens", "masks", "message"),
    [
        ({"txt": torch.zeros(2, 3, 12)}, {}, "Did you mean 'text'"),
        ({"text": torch.zeros(2, 3, 11)}, {}, r"expected \(2, S, 12\)"),
        ({"text": torch.zeros(2, 3, 12), "vision": torch.zeros(3, 3, 16)}, {}, "shape"),
        ({"text": torch.zeros(2, 3, 12)}, {"text": torch.ones(2, 4, dtype=torch.bool)}, "mask"),
        ({"text": torch.zeros(2, 3, 12)}, {"text": torch.ones(2, 3)}, "torch.bool"),
        ({}, {}, "No tokens"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_with_the_reason(
    tokens: dict[str, Tensor], masks: dict[str, Tensor], message: str, widths: dict[str, int]
) -> None:
    with pytest.raises(UserError, match=message):
        model_for(widths)(tokens, masks)
