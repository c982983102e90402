"""MLA: the projector against a dense oracle, turns that move what they should, the fusion, exact resume."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pgm.cache.errors import UserError
from pgm.trainer import Run
from pgm.trainer.batch import Inputs
from pgm.trainer.methods import Look, Method, MethodOutput, Shape, Stage, choose
from pgm.trainer.methods.alternation import AlternationConfig, SharedHead, turns
from pgm.trainer.methods.hgm import Projector, alpha_at
from pgm.trainer.methods.mla import MLA, MLAConfig
from pgm.trainer.methods.pgm_mla import PgMMLA, PgMMLAConfig
from pgm.trainer.methods.weighting import GRID_POINTS, entropy, grid, points, shares_of, validated
from pgm.trainer.run.events import BatchFinished, Event
from pgm.trainer.run.request import Request, resolve
from pgm.trainer.run.training import Execution, carry_out
from torch import Tensor

from ..conftest import copies, step_of

SHAPE = Shape({"audio": 7, "text": 6, "vision": 5}, 4)
SIZES = {"dim": 8, "heads": 2, "feedforward": 16, "dropout": 0.0}
STAGE = Stage("task", 1)


def build(method: str = "mla", **settings: object) -> Method:
    torch.manual_seed(0)
    choice, rest = choose(method, "small", SHAPE, {**SIZES, **settings})
    assert not rest
    return choice.build(SHAPE)


def batch(count: int = 6, missing: tuple[str, ...] = (), seed: int = 1) -> Inputs:
    """Three tokens a modality; the first sample lacks the named ones."""
    generator = torch.Generator().manual_seed(seed)
    tokens = {m: torch.randn(count, 3, width, generator=generator) for m, width in SHAPE.widths.items()}
    masks = {m: torch.ones(count, 3, dtype=torch.bool) for m in SHAPE.widths}
    for name in missing:
        masks[name][0] = False
    return Inputs(tokens, masks)


@pytest.mark.parametrize("normalise", ["none", "fro", "trace"])
@pytest.mark.parametrize("dim", [1, 16, 64])
def test_the_projector_is_the_inverse_of_a_dense_float64_matrix(dim: int, normalise: str) -> None:
    generator = torch.Generator().manual_seed(dim)
    projector = Projector(dim, normalise)  # type: ignore[arg-type]
    inverse = torch.eye(dim, dtype=torch.float64)
    for t in range(300):
        mean = torch.randn(dim, generator=generator) * 0.3 + 0.5
        alpha = alpha_at("released", (t % 10) / 10)
        projector.observe(mean, alpha)
        inverse = inverse + torch.outer(mean, mean).double() / alpha
        if normalise == "fro":
            inverse = inverse * torch.linalg.inv(inverse).norm()
        elif normalise == "trace":
            inverse = inverse * torch.linalg.inv(inverse).trace() / dim
    expected = torch.linalg.inv(inverse)
    assert torch.allclose(projector.matrix.double(), expected, rtol=2e-3, atol=2e-5 * float(expected.norm()))
    assert torch.equal(projector.matrix, projector.matrix.T)


def test_alpha_falls_from_a_tenth_to_a_hundredth_in_every_epoch() -> None:
    assert alpha_at("released", 0.0) == pytest.approx(0.1)
    assert alpha_at("released", 1.0) == pytest.approx(0.01)
    assert alpha_at("constant", 0.7) == 0.1


@pytest.mark.parametrize(
    ("optimiser", "projection", "holds"),
    [
        (torch.optim.SGD, "gradient", True),
        (torch.optim.SGD, "update", True),
        (torch.optim.AdamW, "update", True),
        (torch.optim.AdamW, "gradient", False),  # why "update" is the default
    ],
)
def test_a_turn_leaves_the_answers_to_earlier_means_nearly_unchanged(
    optimiser: type[torch.optim.Optimizer], projection: str, holds: bool
) -> None:
    def drift(hgm: str) -> tuple[float, float]:
        """How far the answer to the first mean moved in the second turn, and to the second turn's own samples."""
        torch.manual_seed(3)
        config = AlternationConfig(hgm=hgm, projection=projection)  # type: ignore[arg-type]
        head = SharedHead(8, 4, config)
        step = step_of(head, batch(16), optimiser=optimiser, lr=0.05)
        generator = torch.Generator().manual_seed(5)
        first = torch.randn(16, 8, generator=generator) + torch.randn(8, generator=generator)
        second = torch.randn(16, 8, generator=generator) + torch.randn(8, generator=generator)
        head.turn(step, lambda: first, step.targets)
        weight, mean = head.linear.weight.detach().clone(), first.mean(dim=0)
        head.turn(step, lambda: second, step.targets)
        change = head.linear.weight.detach() - weight
        return float((change @ mean).norm()), float((change @ second.T).norm())

    (plain, _), (kept, learned) = drift("off"), drift("rls")
    assert (kept < 0.05 * plain) == holds
    assert learned > 1e-3


@pytest.mark.parametrize(
    ("statistics", "observed"),
    [("previous", [0, 1]), ("current", [1, 2])],  # by the third turn's step; "current" skips the first turn
)
@pytest.mark.parametrize("normalise", ["none", "fro"])
def test_the_third_turns_step_is_the_gradient_times_p_of_these_means(
    statistics: str, observed: list[int], normalise: str
) -> None:
    torch.manual_seed(0)
    head = SharedHead(8, 4, AlternationConfig(statistics=statistics, normalise=normalise))  # type: ignore[arg-type]
    step = step_of(head, batch(16), lr=0.5)
    given = [torch.randn(16, 8, generator=torch.Generator().manual_seed(seed)) + 0.5 for seed in range(3)]
    oracle = Projector(8, normalise)  # type: ignore[arg-type]
    for turn in observed:
        oracle.observe(given[turn].mean(dim=0), 0.1)
    for turn, vectors in enumerate(given):
        before = copies(head)
        logits = torch.nn.functional.linear(vectors, before["linear.weight"], before["linear.bias"]).requires_grad_()
        torch.nn.functional.cross_entropy(logits, step.targets).backward()
        assert logits.grad is not None
        head.turn(step, lambda x=vectors: x, step.targets)  # type: ignore[misc]
        gradient = logits.grad.T @ vectors
        expected = -0.5 * (gradient if turn == 0 else gradient @ oracle.matrix)
        if turn != 1:
            assert torch.allclose(head.linear.weight - before["linear.weight"], expected, atol=1e-6)
        assert torch.allclose(head.linear.bias - before["linear.bias"], -0.5 * logits.grad.sum(dim=0), atol=1e-6)


def test_a_turn_moves_its_learner_and_the_head_and_nothing_else() -> None:
    method = build()
    assert isinstance(method, MLA)
    inputs = batch(missing=("text", "vision"))
    only_audio = Inputs(inputs.tokens, {m: v if m == "audio" else torch.zeros_like(v) for m, v in inputs.masks.items()})
    step = step_of(method, only_audio, optimiser=torch.optim.AdamW, lr=0.01)
    for _ in range(2):  # the second time momentum and weight decay could move the others
        before = copies(method)
        losses = method.update(STAGE, step)
        assert set(losses) == {"loss", "task_audio", "hgm_free"}
        moved = {name.split(".")[1] for name, p in method.named_parameters() if not torch.equal(p, before[name])}
        assert moved == {"audio", "linear"}


def test_a_sample_without_a_modality_has_no_part_in_its_turn() -> None:
    with_gap, without = build(), build()
    inputs = batch(missing=("text",))
    rest = Inputs({"text": inputs.tokens["text"][1:]}, {"text": inputs.masks["text"][1:]})
    vectors = with_gap.trunks["text"](inputs.tokens["text"], inputs.masks["text"])[1:].detach()
    step = step_of(with_gap, inputs)
    shown = Inputs(inputs.tokens, {m: v if m == "text" else torch.zeros_like(v) for m, v in inputs.masks.items()})
    with_gap.update(STAGE, step_of(with_gap, shown))
    trunk = without.trunks["text"]
    without.head.turn(
        step_of(without, inputs), lambda: trunk(rest.tokens["text"], rest.masks["text"]), step.targets[1:]
    )
    assert all(
        torch.allclose(a, b, atol=1e-6) for a, b in zip(with_gap.parameters(), without.parameters(), strict=True)
    )
    oracle = Projector(8)
    oracle.observe(vectors.mean(dim=0), 0.1)
    assert torch.allclose(with_gap.head.projector.matrix, oracle.matrix, atol=1e-5)


def test_the_head_a_turn_sees_is_the_one_the_turns_before_left() -> None:
    ends = {order: copies(build(order=order, hgm="off")) for order in ("fixed", "reversed")}
    assert all(torch.equal(a, b) for a, b in zip(ends["fixed"].values(), ends["reversed"].values(), strict=True))
    for order in ends:
        method = build(order=order, hgm="off")
        method.update(STAGE, step_of(method, batch()))
        ends[order] = copies(method)
    assert not torch.equal(ends["fixed"]["head.linear.weight"], ends["reversed"]["head.linear.weight"])
    assert not torch.equal(
        ends["fixed"]["trunks.vision.project.weight"], ends["reversed"]["trunks.vision.project.weight"]
    )


@pytest.mark.parametrize(
    ("modalities", "order", "expected"),
    [
        (("audio", "text", "vision"), "released", ["audio", "vision", "text"]),
        (("audio", "text", "video"), "released", ["audio", "video", "text"]),
        # Of image and text, the released configurations put the text in the audio slot.
        (("image", "text"), "released", ["text", "image"]),
        (("audio", "vision"), "released", ["audio", "vision"]),
        (("audio", "gait", "text"), "released", ["audio", "text", "gait"]),
        (("audio", "text", "vision"), "fixed", ["audio", "text", "vision"]),
        (("audio", "text", "vision"), "reversed", ["vision", "text", "audio"]),
        (("audio", "text", "vision"), "text+audio+vision", ["text", "audio", "vision"]),
    ],
)
def test_turns_come_in_the_stated_order(modalities: tuple[str, ...], order: str, expected: list[str]) -> None:
    assert turns(modalities, order) == expected


@pytest.mark.parametrize("name", ["mla", "pgm+mla"])
def test_as_released_turns_are_audio_visual_text_and_order_says_any(name: str) -> None:
    def order_of(**settings: str) -> str:
        config = choose(name, "small", SHAPE, settings)[0]
        return config.order if isinstance(config, MLAConfig) else config.alternation.order  # type: ignore[attr-defined]

    assert order_of(mla_preset="as_released") == "released"
    assert order_of(mla_preset="as_released", order="fixed") == "fixed"
    assert order_of(order="text+vision+audio") == "text+vision+audio"
    for wrong in ("text+vision", "text+vision+adio", "text+text+vision", "fixd"):
        with pytest.raises(UserError, match=r"order is one of fixed, .*, or every modality once"):
            order_of(order=wrong)
    with pytest.raises(UserError, match=r"Did you mean 'fixed'\?"):
        order_of(order="fixd")


def test_entropy_weights_are_the_papers_formula_over_present_modalities() -> None:
    logits = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0)) * 3
    present = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 1]]).bool()
    found = shares_of("entropy", logits, present, torch.ones(3) / 3)
    for row in range(5):
        e = [float(-(p := logits[row, m].softmax(0)).dot(p.log())) for m in range(3)]
        raw = [math.exp(max(e) - e[m]) if present[row, m] else 0.0 for m in range(3)]
        expected = torch.tensor([r / max(sum(raw), 1e-9) for r in raw])
        assert torch.allclose(found[row], expected, atol=1e-5)
    sure = torch.full((1, 2, 4), -1e4)
    sure[..., 0] = 1e4
    assert torch.equal(entropy(sure), torch.zeros(1, 2))
    assert found[3].sum() == 0


def test_the_released_entropy_depends_on_the_batch_and_the_papers_does_not() -> None:
    logits = torch.randn(6, 2, 4, generator=torch.Generator().manual_seed(0)) * 3
    present, constants = torch.ones(6, 2, dtype=torch.bool), torch.ones(2) / 2
    whole = shares_of("batch_entropy", logits, present, constants)
    assert torch.equal(whole, whole[:1].expand(6, -1))
    assert not torch.allclose(whole[:2], shares_of("batch_entropy", logits[:2], present[:2], constants))
    alone = shares_of("entropy", logits[:2], present[:2], constants)
    assert torch.allclose(alone, shares_of("entropy", logits, present, constants)[:2])


def test_constant_weights_find_the_modality_that_knows() -> None:
    targets = torch.arange(40) % 4
    knows = torch.nn.functional.one_hot(targets, 4).float() * 4
    noise = torch.randn(40, 4, generator=torch.Generator().manual_seed(0)) * 4
    present = torch.ones(40, 2, dtype=torch.bool)
    found = validated(torch.stack([noise, knows], 1), present, targets, torch.nn.functional.cross_entropy)
    assert found[1] > 0.9
    assert (found > 0).all()
    for modalities in (2, 3, 5):
        listed = list(grid(modalities))
        assert len(listed) <= GRID_POINTS
        assert all(sum(p) == pytest.approx(1) and min(p) >= 0 for p in listed)
    assert len(list(grid(3))) == points(20, 3) == 231


@pytest.mark.parametrize(("weighting", "chosen"), [("validated", True), ("entropy", False)])
def test_constant_weights_are_chosen_between_epochs_on_validation(weighting: str, chosen: bool) -> None:
    method = build(weighting=weighting)
    assert isinstance(method, MLA)
    seen: list[str] = []

    def batches(split: str) -> Iterator[tuple[Inputs, Tensor]]:
        seen.append(split)
        yield batch(), torch.arange(6) % 4
        yield batch(seed=2), torch.arange(6) % 4

    with torch.no_grad():
        method.between_epochs(STAGE, Look(0, batches, torch.nn.functional.cross_entropy))
    assert seen == ["val"] * chosen
    assert (not torch.allclose(method.constants, torch.full((3,), 1 / 3))) == chosen
    assert float(method.constants.sum()) == pytest.approx(1)


def test_presets_set_the_switches_and_a_switch_beside_one_wins() -> None:
    def config(**settings: object) -> MLAConfig:
        chosen = choose("mla", "small", SHAPE, settings)[0]
        assert isinstance(chosen, MLAConfig)
        return chosen

    assert (config().hgm, config().projection, config().weighting) == ("rls", "update", "entropy")
    paper = config(mla_preset="paper")
    assert (paper.hgm, paper.projection, paper.ridge) == ("rls", "gradient", "constant")
    released = config(mla_preset="as_released")
    assert (released.hgm, released.weighting, released.dim) == ("off", "batch_entropy", 64)
    assert config(mla_preset="as_released", weighting="equal").weighting == "equal"
    with pytest.raises(UserError, match="mla_preset is one of corrected, paper, as_released"):
        config(mla_preset="papr")
    with pytest.raises(UserError, match="needs class probabilities"):
        config().build(Shape(SHAPE.widths, 1))
    with pytest.raises(UserError, match="text is the only one"):
        choose("mla", "small", Shape({"text": 6}, 4), {})


@pytest.mark.parametrize("settings", [{"learner": "mlp"}, {"weighting": "validated", "order": "random"}, {}])
def test_it_learns_from_incomplete_samples(
    toy: Path, tmp_path: Path, quick: Callable[..., Run], settings: dict[str, str]
) -> None:
    run = quick(toy, tmp_path, "mla", settings={"epochs": 8, "lr": 5e-3, **settings})
    assert run.test["accuracy"] > run.result["floors"]["majority"]["accuracy"] + 0.1
    first, last = run.metrics[0]["losses"], run.metrics[-1]["losses"]
    assert all(last[f"task_{m}"] < first[f"task_{m}"] for m in ("text", "vision"))


@pytest.mark.parametrize("settings", [{"order": "random"}, {"weighting": "validated", "mla_preset": "paper"}])
def test_an_interrupted_run_ends_with_the_same_bits(
    toy: Path, tmp_path: Path, settings: dict[str, str], quick: Callable[..., Run]
) -> None:
    sizes = {"dim": 8, "heads": 2, "feedforward": 16, "pretrain_epochs": 1, "epochs": 3, "batch": 16}
    seen = 0

    def stop(event: Event) -> None:
        nonlocal seen
        seen += isinstance(event, BatchFinished)
        if seen == 15:
            signal.raise_signal(signal.SIGINT)

    def run(where: str, listener: Callable[[Event], None]) -> Run:
        request = Request(toy, tmp_path / where, method="mla", settings={**sizes, **settings})
        return carry_out(resolve(request), Execution(listener=listener, checkpoint_seconds=0))

    whole = run("whole", lambda event: None)
    with pytest.raises(KeyboardInterrupt):
        run("cut", stop)
    again = run("cut", lambda event: None)
    assert again.weights.read_bytes() == whole.weights.read_bytes()
    assert again.predictions_path("test").read_bytes() == whole.predictions_path("test").read_bytes()


def test_what_it_cannot_do_it_refuses_with_the_way_out(
    tmp_path: Path, make_toy: Callable[..., Path], quick: Callable[..., Run]
) -> None:
    pairs = make_toy(tmp_path / "pairs", task="retrieval")
    with pytest.raises(UserError, match=r"cannot do 'toy', a retrieval dataset. Choose a fusion method"):
        quick(pairs, tmp_path / "runs", "mla")
    scores = make_toy(tmp_path / "scores", task="sentiment")
    with pytest.raises(UserError, match="sentiment=classes"):
        quick(scores, tmp_path / "runs", "mla")
    assert json.dumps(quick(scores, tmp_path / "runs", "mla", settings={"weighting": "equal"}).test)
    found = quick(scores, tmp_path / "runs", "mla", settings={"sentiment": "classes"})
    assert found.test["acc3"] > found.result["floors"]["majority"]["acc3"]


# pgm+mla

TINY = {"dim": 8, "heads": 2, "feedforward": 16, "batch": 16}
PGM_SIZES = {"pretrain_epochs": 2, "epochs": 3}


@pytest.mark.parametrize("shared", [True, False])
def test_turns_move_uni_modal_learners_and_the_joint_step_all_else(shared: bool) -> None:
    method = build("pgm+mla", share_learners=shared)
    assert isinstance(method, PgMMLA)
    inputs = batch(missing=("text",))
    step = step_of(method, inputs)
    learned: list[set[str]] = []

    def joint() -> MethodOutput:
        learned.append({name for name, p in method.named_parameters() if not torch.equal(p, before[name])})
        before.update(copies(method))
        output: MethodOutput = method(inputs)
        assert output.pretraining is not None
        return output

    before = copies(method)
    losses = method.train().update(STAGE, replace(step, output=joint))
    assert {"loss", "task", "ufc", "task_audio", "task_text", "task_vision", "hgm_free"} <= set(losses)
    moved = {name for name, p in method.named_parameters() if not torch.equal(p, before[name])}
    assert learned[0]
    assert all(name.startswith(("pgm.uni_learners.", "auxiliary.")) for name in learned[0])
    assert not any(name.startswith(("pgm.uni_learners.", "auxiliary.")) for name in moved)
    assert {name.split(".")[1] for name in moved if name.startswith("pgm.")} >= {"partitioners", "paired_learners"}
    if not shared:
        assert {n.split(".")[2] for n in learned[0] if n.startswith("pgm.")} == set(SHAPE.widths)


def test_pgm_mla_shares_stage_one_with_pgm_and_resumes_exactly(
    toy: Path, tmp_path: Path, quick: Callable[..., Run]
) -> None:
    whole = quick(toy, tmp_path / "whole", "pgm+mla", settings=PGM_SIZES)
    quick(toy, tmp_path / "cut", "pgm", settings=PGM_SIZES)
    stages: list[str] = []

    def stop(event: Event) -> None:
        if isinstance(event, BatchFinished):
            stages.append(event.stage)
            if len(stages) == 9:
                signal.raise_signal(signal.SIGINT)

    request = Request(toy, tmp_path / "cut", method="pgm+mla", settings={**TINY, **PGM_SIZES})
    with pytest.raises(KeyboardInterrupt):
        carry_out(resolve(request), Execution(listener=stop, checkpoint_seconds=0))
    assert set(stages) == {"task"}
    assert (tmp_path / "cut" / whole.id / "checkpoint.pt").exists()
    again = quick(toy, tmp_path / "cut", "pgm+mla", settings=PGM_SIZES)
    assert again.weights.read_bytes() == whole.weights.read_bytes()
    assert {"task_text", "task_vision", "ufc", "loss"} <= set(whole.metrics[-1]["losses"])


def test_pgm_mla_needs_uni_modal_learners() -> None:
    choice, _ = choose("pgm+mla", "small", SHAPE, {**SIZES, "mla_preset": "paper", "fusion": "add"})
    config = choice
    assert isinstance(config, PgMMLAConfig)
    assert (config.fusion.fusion, config.alternation.projection) == ("add", "gradient")
    for module in ("partitioner", "uni_learner"):
        with pytest.raises(UserError, match=f"without={module} leaves none"):
            choose("pgm+mla", "small", SHAPE, {**SIZES, "without": (module,)})
