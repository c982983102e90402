"""Balance methods: the defining property of each, what they do without a modality, learning, exact resume, refusals."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pgm.cache.errors import UserError
from pgm.trainer import Run
from pgm.trainer.batch import Inputs
from pgm.trainer.methods import Look, Method, Shape, Stage, Step, choose, known_methods
from pgm.trainer.methods.gblend import LEAST_GAIN, GBlend, blend
from pgm.trainer.methods.joint import Joint
from pgm.trainer.methods.mmpareto import MMPareto, pareto
from pgm.trainer.methods.modality_dropout import kept
from pgm.trainer.methods.ogm_ge import OGMGE, coefficients
from pgm.trainer.methods.pmr import PMR, nearness, rebalance
from pgm.trainer.methods.qmf import by_energy, confidence, ranking_loss
from pgm.trainer.methods.reconboost import ReconBoost, residual_loss
from pgm.trainer.methods.umt import UMT
from pgm.trainer.protocol import Protocol
from pgm.trainer.run.events import BatchFinished, Event
from pgm.trainer.run.request import Request, resolve
from pgm.trainer.run.training import Execution, carry_out
from torch import Tensor

from ..conftest import copies, step_of

SHAPE = Shape({"text": 6, "vision": 5}, 4)
THREE = Shape({"audio": 7, "text": 6, "vision": 5}, 4)
SIZES = {"dim": 8, "heads": 2, "feedforward": 16, "dropout": 0.0}
TASK = Stage("task", 1)


def build(name: str, shape: Shape = SHAPE, **settings: object) -> Method:
    torch.manual_seed(0)
    choice, rest = choose(name, "small", shape, {**SIZES, **settings})
    assert not rest
    return choice.build(shape).train()


def batch(shape: Shape = SHAPE, count: int = 8, missing: tuple[str, ...] = ()) -> Inputs:
    """Three tokens a modality; the named ones are missing for every sample."""
    generator = torch.Generator().manual_seed(1)
    tokens = {m: torch.randn(count, 3, width, generator=generator) for m, width in shape.widths.items()}
    return Inputs(tokens, {m: torch.full((count, 3), m not in missing) for m in shape.widths})


def updated(method: Method, step: Step) -> dict[str, Tensor]:
    """What one update reports, without its graph; of a method without its own, one step on its answer's loss."""
    losses = method.update(TASK, step)
    if losses is None:
        losses = step.losses(step.output())
        step.descend(losses["loss"])
    return {name: torch.as_tensor(value).detach() for name, value in losses.items()}


def moves(method: Method, step: Step) -> dict[str, Tensor]:
    """What one update does to every parameter."""
    before = copies(method)
    updated(method, step)
    return {name: p.detach() - before[name] for name, p in method.named_parameters()}


# OGM-GE


def test_ogm_ge_slows_the_dominant_learner_and_no_other() -> None:
    rates = coefficients(torch.tensor([0.8, 0.2]), 0.3)
    assert rates[0] == pytest.approx(1 - math.tanh(0.3 * 4))
    assert rates[1] == 1
    assert torch.equal(coefficients(torch.tensor([0.5, 0.5]), 0.3), torch.ones(2))
    assert torch.equal(coefficients(torch.tensor([0.5, 0.0]), 0.3), torch.ones(2)), "nothing to compare with"
    three = coefficients(torch.tensor([0.6, 0.3, 0.3]), 0.5)
    assert three[0] == pytest.approx(1 - math.tanh(0.5 * 2))
    assert torch.equal(three[1:], torch.ones(2))


@pytest.mark.parametrize("modulate", ["update", "gradient"])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_ogm_ge_scales_what_reaches_the_weights(modulate: str, kind: type[torch.optim.Optimizer]) -> None:
    reference, modulated = build("joint"), build("ogm_ge", noise=False, ogm_alpha=0.5, modulate=modulate)
    assert isinstance(modulated, OGMGE)
    for method in (reference, modulated):  # text knows the answer better
        with torch.no_grad():
            method.heads["text"].weight.mul_(4)
    step = step_of(modulated, batch(), optimiser=kind, lr=0.01)
    scores = modulated.scores(modulated.parts(step.inputs()), step.targets)
    rates = dict(zip(SHAPE.modalities, coefficients(scores, 0.5).tolist(), strict=True))
    assert min(rates.values()) < 1 == max(rates.values())
    expected = moves(reference, step_of(reference, batch(), optimiser=kind, lr=0.01))
    found = moves(modulated, step)
    for modality, rate in rates.items():
        name = f"trunks.{modality}.project.weight"
        scaled = torch.allclose(found[name], rate * expected[name], rtol=1e-3, atol=1e-7)
        # AdamW makes every gradient the same size again: the factor must go on its step.
        assert scaled == (rate == 1 or modulate == "update" or kind is torch.optim.SGD)
    assert torch.allclose(found["heads.text.weight"], expected["heads.text.weight"], atol=1e-7)


def test_ogm_ge_noise_has_the_size_of_the_step() -> None:
    quiet, noisy = (moves(m, step_of(m, batch())) for m in (build("ogm_ge", noise=False), build("ogm_ge")))
    name = "trunks.text.project.weight"
    extra = noisy[name] - quiet[name]
    assert 0.5 < float(extra.std() / quiet[name].std()) < 3
    assert torch.equal(noisy["bias"], quiet["bias"])


# modality dropout


def test_modality_dropout_keeps_one_and_drops_at_its_rate() -> None:
    torch.manual_seed(0)
    present = torch.ones(4000, 3, dtype=torch.bool)
    present[:1000, 0] = False
    present[3999] = False
    keep = kept(present, 0.4)
    assert not (keep & ~present).any()
    assert torch.equal(keep.any(dim=1), present.any(dim=1))
    # Two of 1000..3998 stay with .6, and one always: P(kept) = .6 + .4^3 / 3.
    assert float(keep[1000:3999].float().mean()) == pytest.approx(0.6 + 0.4**3 / 3, abs=0.02)
    assert torch.equal(kept(present, 0.0), present)


def test_modality_dropout_answers_with_everything() -> None:
    method = build("modality_dropout", modality_rate=0.9)
    reference = build("joint")
    with torch.no_grad():
        assert not torch.equal(method(batch()).logits, reference(batch()).logits)
        assert torch.equal(method.eval()(batch()).logits, reference.eval()(batch()).logits)


def test_the_joint_answer_is_scaled_over_what_is_there() -> None:
    method = build("joint", THREE).eval()
    assert isinstance(method, Joint)
    with torch.no_grad():
        method.bias.fill_(0.5)
        parts = method.parts(batch(THREE, missing=("audio",)))
        found = method(batch(THREE, missing=("audio",))).logits
    assert torch.allclose(found, (parts.logits[:, 1] + parts.logits[:, 2]) * 1.5 + 0.5, atol=1e-6)


# UMT


def test_umt_pulls_students_to_frozen_teachers() -> None:
    method = build("umt", distil=5.0)
    assert isinstance(method, UMT)
    step = step_of(method, batch(), optimiser=torch.optim.AdamW, lr=0.01)
    before, first = copies(method), updated(method, step)
    for _ in range(40):
        last = updated(method, step)
    assert last["distil"] < 0.5 * first["distil"]
    moved = {name for name, p in method.named_parameters() if not torch.equal(p, before[name])}
    assert {n for n in before if not n.startswith("teachers.")} == moved


def test_umt_teachers_answer_without_dropout() -> None:
    method = build("umt", dropout=0.5)
    assert isinstance(method, UMT)
    assert torch.equal(method.taught(batch()), method.taught(batch()))


def test_umt_trains_each_teacher_alone_and_shows_it_when_alone() -> None:
    method = build("umt", THREE)

    stages = method.stages(Protocol())
    assert [s.name for s in stages] == ["teacher-audio", "teacher-text", "teacher-vision", "task"]
    assert [s.part for s in stages] == ["teachers.audio", "teachers.text", "teachers.vision", None]
    alone = batch(THREE).restricted("text")
    before = copies(method)
    method.update(stages[1], step_of(method, alone))
    assert {n.split(".")[1] for n, p in method.named_parameters() if not torch.equal(p, before[n])} == {"text"}
    with torch.no_grad():
        expected = method.teachers["text"](alone.tokens["text"], alone.masks["text"])[1]
        assert torch.equal(method(alone).logits, expected)
    nobody = Inputs(alone.tokens, {"text": torch.zeros_like(alone.masks["text"])})
    assert method.update(stages[1], step_of(method, nobody)) == {}


# QMF


def test_qmf_weights_logits_by_energy_and_lets_no_gradient_into_the_weight() -> None:
    logits = torch.randn(5, 2, 4, requires_grad=True)
    present = torch.tensor([[1, 1], [1, 0], [0, 1], [1, 1], [0, 0]]).bool().unsqueeze(-1)
    answer = by_energy(logits, present)
    weight = logits.detach().exp().sum(-1).log() / 10
    expected = [weight[0, 0] * logits[0, 0] + weight[0, 1] * logits[0, 1], 2 * weight[1, 0] * logits[1, 0]]
    assert torch.allclose(answer[:2], torch.stack(expected))
    assert torch.equal(answer[4], torch.zeros(4))
    answer[0, 0].backward()
    assert logits.grad is not None
    assert torch.allclose(logits.grad[0, :, 0], weight[0])
    assert not logits.grad[0, :, 1:].any()


def test_qmf_asks_for_less_confidence_in_the_harder_sample() -> None:
    targets = torch.tensor([0, 0])
    sure = torch.tensor([[8.0, 0.0], [0.0, 0.0]])  # right and sure; undecided
    wrong = torch.tensor([[8.0, 8.0], [9.0, 0.0]])  # the harder sample has the lower energy of the two by little
    assert confidence(sure)[0] > confidence(sure)[1]
    assert ranking_loss(torch.tensor([[0.0, 30.0], [5.0, 0.0]]), targets) > ranking_loss(sure, targets)
    assert ranking_loss(sure[:1], targets[:1]) == 0
    # Equally sure of both, of which it has one 30 nats wrong: the losses' scale is not what is asked for.
    assert float(ranking_loss(torch.tensor([[-15.0, 15.0], [15.0, -15.0]]), targets)) == pytest.approx(1)
    free = wrong.clone().requires_grad_()
    ranking_loss(free, targets).backward()
    assert free.grad is not None
    assert free.grad[0].sum() > 0 > free.grad[1].sum(), "descent lowers the harder one's confidence"


# G-Blend


def test_gblend_weighs_by_gain_over_squared_overfitting() -> None:
    start = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    end = torch.tensor([[0.4, 0.5, 0.2], [0.6, 0.6, 0.8]])
    gain, overfit = torch.tensor([0.4, 0.4, 0.2]), torch.tensor([0.2, 0.1, 0.6])
    expected = gain / overfit**2
    assert torch.allclose(blend(start, end), expected / expected.sum(), rtol=1e-4)
    worse = blend(start, torch.tensor([[0.4, 0.5, 0.2], [0.6, 0.6, 1.5]]))
    assert 0 < worse[2] < LEAST_GAIN
    assert worse.sum() == pytest.approx(1)


def test_gblend_measures_each_classifier_over_its_own_samples_and_blends_the_losses() -> None:
    method = build("gblend", super_epoch=2)
    assert isinstance(method, GBlend)
    inputs = batch()
    inputs.masks["vision"][2:] = False
    step = step_of(method, inputs)
    seen: list[str] = []

    def batches(split: str) -> list[tuple[Inputs, Tensor]]:
        seen.append(split)
        return [(inputs, step.targets)]

    look = Look(0, batches, step.criterion)  # type: ignore[arg-type]
    with torch.no_grad():
        method.between_epochs(TASK, look)
        parts = method.parts(inputs)
        vision = step.criterion(method.auxiliary["vision"](parts.vectors[:2, 1]), step.targets[:2])
        assert float(method.measured[1, 1]) == pytest.approx(float(vision), rel=1e-5)
        assert torch.allclose(method.weights, torch.full((3,), 1 / 3)), "one measurement tells nothing yet"
    told = updated(method, step)
    parts_sum = (told["task"] + told["task_text"] + told["task_vision"]) / 3
    assert float(told["loss"]) == pytest.approx(float(parts_sum), rel=1e-5)
    with torch.no_grad():
        method.between_epochs(TASK, replace(look, epoch=1))
        assert seen == ["train", "val"], "not the end of a super-epoch"
        method.between_epochs(TASK, replace(look, epoch=2))
    assert not torch.allclose(method.weights, torch.full((3,), 1 / 3), atol=1e-3)
    assert float(method.weights.sum()) == pytest.approx(1)


# MMPareto


def test_the_pareto_direction_hurts_neither_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    conflicts = 0
    for _ in range(300):
        joint = torch.randn(6, generator=generator) * 3
        single = torch.randn(6, generator=generator) - 0.4 * joint
        found = pareto(joint, single)
        conflicts += bool(joint @ single < 0)
        assert found @ joint >= -1e-4
        assert found @ single >= -1e-4
        assert found.norm() >= (joint + single).norm() * 0.999
        if joint @ single >= 0:
            assert torch.equal(found, joint + single)
    assert conflicts > 100
    assert pareto(torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 0.0])).isfinite().all()
    # A short gradient inside the other's shadow: the hull's nearest point is the short one itself.
    assert torch.allclose(pareto(torch.tensor([9.0, 0.0]), torch.tensor([-0.1, 0.1]))[1:] > 0, torch.tensor([True]))


def test_mmpareto_gives_each_learner_the_combined_gradient() -> None:
    method = build("mmpareto")
    assert isinstance(method, MMPareto)
    step = step_of(method, batch())
    parts = method.parts(batch())
    task = step.criterion(method.combined(parts), step.targets)
    alone = method.losses_alone(step.criterion, parts, step.targets)
    expected = {}
    for modality, trunk in method.trunks.items():
        parameters = list(trunk.parameters())
        joint, single = (
            torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters, retain_graph=True)])
            for loss in (task, alone[modality])
        )
        expected[modality] = pareto(joint, single)
    told = updated(method, step)
    for modality, trunk in method.trunks.items():
        found = torch.cat([p.grad.flatten() for p in trunk.parameters() if p.grad is not None])
        assert torch.allclose(found, expected[modality], atol=1e-5)
    assert {"task_text", "task_vision"} <= set(told)
    assert all(p.grad is not None for p in method.parameters())


# PMR


def test_pmr_pulls_the_slow_modality_and_unsettles_the_dominant_one() -> None:
    slow, dominant = rebalance(torch.tensor([0.6, 0.4]))
    assert slow.tolist() == pytest.approx([0.0, 0.5])
    assert dominant.tolist() == pytest.approx([0.5, 0.0])
    assert [float(c.sum()) for c in rebalance(torch.tensor([0.9, 0.1]))] == [1.0, 1.0], "clipped at 1"
    assert not torch.cat(rebalance(torch.tensor([0.9, 0.0]))).any()


def test_pmr_prototypes_are_class_means_and_nearness_prefers_the_nearest() -> None:
    method = build("pmr", momentum=0.25)
    assert isinstance(method, PMR)
    inputs, step = batch(), step_of(method, batch(), lr=0.0)
    inputs.masks["vision"][3] = False  # the fourth sample, of class 3
    step = replace(step, inputs=lambda: inputs)
    first = updated(method, step)
    assert float(first["prototypes"]) == 0, "no prototypes in the first epoch"
    look = Look(0, lambda split: iter(()), step.criterion)
    with torch.no_grad():
        method.between_epochs(TASK, look)
        vectors = method.parts(inputs).vectors
    assert torch.allclose(method.prototypes[0, 1], vectors[[1, 5], 0].mean(dim=0), atol=1e-6)
    assert torch.allclose(method.prototypes[1, 3], vectors[7, 1], atol=1e-6)
    assert not method.counts.any()
    old = method.prototypes.clone()
    method.update(TASK, step)
    method.sums.mul_(2)
    with torch.no_grad():
        method.between_epochs(TASK, look)
    assert torch.allclose(method.prototypes, 0.25 * old + 0.75 * 2 * old, atol=1e-5)
    distances = nearness(old[0], old[0], torch.tensor([True, True, True, False]))
    assert distances[:3].argmax(dim=1).tolist() == [0, 1, 2]
    assert not distances[:, 3].exp().any()
    second = updated(method, step)
    assert float(second["prototypes"]) > 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())


def test_pmr_raises_the_dominant_entropy_in_its_first_epochs_only() -> None:
    losses = {}
    for epoch in (0, 2):
        method = build("pmr", undecided=2, pmr_mu=0.5)
        assert isinstance(method, PMR)
        with torch.no_grad():
            vectors = method.parts(batch()).vectors
            method.known.fill_(True)
            method.prototypes[0].copy_(vectors[:4, 0])  # text knows its classes, vision's are all alike
        losses[epoch] = updated(method, replace(step_of(method, batch(), lr=0.0), epoch=epoch))
    assert float(losses[0]["entropy"]) > 0
    assert float(losses[2]["loss"] - losses[0]["loss"]) == pytest.approx(0.5 * float(losses[0]["entropy"]), rel=1e-3)


# ReconBoost


def test_reconboost_fits_what_the_others_leave() -> None:
    logits, targets = torch.zeros(2, 3, requires_grad=True), torch.tensor([0, 1])
    said = torch.tensor([[0.9, 0.05, 0.05], [0.0, 0.0, 0.0]])
    residual_loss(logits, targets, 0.5 * said).backward()
    assert logits.grad is not None
    wanted = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]) - 0.5 * said
    assert torch.allclose(logits.grad, -(wanted - wanted.sum(1, keepdim=True) / 3) / 2, atol=1e-6)
    assert -logits.grad[0, 0] < -logits.grad[1, 1], "the sample that is answered weighs less"
    plain = torch.nn.functional.cross_entropy(logits, targets)
    assert torch.allclose(residual_loss(logits, targets, torch.zeros(2, 3)), plain)
    ruled_out = torch.tensor([[0.0, -50.0, -50.0]], requires_grad=True)
    bounded = residual_loss(ruled_out, targets[:1], torch.tensor([[0.0, 0.2, 0.2]]))
    assert bounded.detach() > 0.4 * math.log(1e-3) - 0.01
    bounded.backward()
    assert ruled_out.grad is not None
    assert ruled_out.grad.abs().max() < 1e-9, "nothing is gained by ruling a class out further"


def test_reconboost_reads_the_others_and_never_itself() -> None:
    method = build("reconboost", reconcile=0.5, rectify=False)
    assert isinstance(method, ReconBoost)
    inputs = batch()
    inputs.masks["vision"][0] = False  # nothing else is said about the first sample
    step = step_of(method, inputs)
    with torch.no_grad():
        logits, _ = method.outputs(inputs)
        said = logits[:, 1].softmax(dim=1)
        said[0] = 0
        expected = residual_loss(logits[:, 0], step.targets, 0.5 * said)
    assert float(updated(method, step)["residual_text"]) == pytest.approx(float(expected), rel=1e-5)


def test_reconboost_moves_members_in_turn_and_all_in_the_end() -> None:
    turns_only = build("reconboost", rectify=False)
    text_only = batch(missing=("vision",))
    found = moves(turns_only, step_of(turns_only, text_only, optimiser=torch.optim.AdamW))
    assert {n.split(".")[1] for n, change in found.items() if change.any()} == {"text"}
    both = build("reconboost", rectify=False)
    told = both.update(TASK, step_of(both, batch()))
    assert {"residual_text", "residual_vision"} <= set(told)
    rectified = build("reconboost")
    rectified.update(TASK, step_of(rectified, batch()))
    assert not torch.equal(next(iter(both.parameters())), next(iter(rectified.parameters())))


# all of them

KIN = ("mla", "pgm+mla")
NAMES = [name for name, config in known_methods(()).items() if config.several and name not in KIN]


@pytest.mark.parametrize("name", NAMES)
def test_an_update_without_a_modality_leaves_its_learner_alone(name: str) -> None:
    method = build(name, THREE)
    shown = batch(THREE, missing=("text",))
    losses = updated(method, step_of(method, shown))
    assert all(value.isfinite() for value in losses.values())
    reference = build(name, THREE)
    for (key, parameter), start in zip(method.named_parameters(), reference.parameters(), strict=True):
        learner = key.startswith(("trunks.text", "members.text.trunk"))
        assert parameter.isfinite().all()
        assert not learner or torch.equal(parameter, start), key


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_from_incomplete_samples(name: str, toy: Path, tmp_path: Path, quick: Callable[..., Run]) -> None:
    run = quick(toy, tmp_path, name, settings={"epochs": 8, "lr": 5e-3})
    assert run.test["accuracy"] > run.result["floors"]["majority"]["accuracy"] + 0.1
    assert "loss" in run.metrics[-1]["losses"]


@pytest.mark.parametrize("name", [n for n in NAMES if n != "joint"])
def test_an_interrupted_run_ends_with_the_same_bits(name: str, toy: Path, tmp_path: Path) -> None:
    sizes = {"dim": 8, "heads": 2, "feedforward": 16, "pretrain_epochs": 1, "epochs": 3, "batch": 16}
    sizes |= {"super_epoch": 1} if name == "gblend" else {}
    seen, at = 0, 60 if name == "umt" else 15  # batches: in the joint stage, past the first checkpoints

    def stop(event: Event) -> None:
        nonlocal seen
        seen += isinstance(event, BatchFinished)
        if seen == at:
            signal.raise_signal(signal.SIGINT)

    def run(where: str, listener: Callable[[Event], None]) -> Run:
        request = Request(toy, tmp_path / where, method=name, settings=sizes)
        return carry_out(resolve(request), Execution(listener=listener, checkpoint_seconds=0))

    whole = run("whole", lambda event: None)
    with pytest.raises(KeyboardInterrupt):
        run("cut", stop)
    assert (tmp_path / "cut" / whole.id / "checkpoint.pt").exists()
    again = run("cut", lambda event: None)
    assert again.weights.read_bytes() == whole.weights.read_bytes()
    assert again.predictions_path("test").read_bytes() == whole.predictions_path("test").read_bytes()
    assert [e["losses"] for e in again.metrics] == [e["losses"] for e in whole.metrics]


def test_what_makes_no_sense_is_refused_with_the_way_out(
    tmp_path: Path, make_toy: Callable[..., Path], quick: Callable[..., Run]
) -> None:
    pairs = make_toy(tmp_path / "pairs", task="retrieval")
    scores = make_toy(tmp_path / "scores", task="sentiment")
    for name in NAMES:
        if name in ("joint", "modality_dropout"):
            found = quick(pairs, tmp_path / "runs", name, settings={"epochs": 1})
            assert found.test["map"] > found.result["floors"]["majority"]["map"]
        else:
            with pytest.raises(UserError, match="a retrieval dataset"):
                quick(pairs, tmp_path / "runs", name)
        if name in ("ogm_ge", "qmf", "pmr", "reconboost"):
            with pytest.raises(UserError, match=r"predicts a score.*sentiment=classes"):
                quick(scores, tmp_path / "runs", name)
        else:
            found = quick(scores, tmp_path / "runs", name, settings={"epochs": 1})
            assert found.test["mae"] < found.result["floors"]["majority"]["mae"]
        with pytest.raises(UserError, match="the only one"):
            choose(name, "small", Shape({"text": 6}, 4), {})


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("ogm_ge", {"ogm_alpha": -1.0}),
        ("modality_dropout", {"modality_rate": 1.0}),
        ("umt", {"distil": -1.0}),
        ("qmf", {"ranking": -1.0}),
        ("gblend", {"super_epoch": 0}),
        ("pmr", {"momentum": 1.0}),
        ("reconboost", {"reconcile": 1.0}),
    ],
)
def test_a_value_that_cannot_be_is_refused(name: str, setting: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(setting))):
        choose(name, "small", SHAPE, setting)
