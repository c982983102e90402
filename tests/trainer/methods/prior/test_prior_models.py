"""The prior models as methods: what each trains, what PgM in the fusion's place changes, and exact resume."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pgm.cache.errors import UserError
from pgm.trainer import Run, train
from pgm.trainer.batch import Inputs
from pgm.trainer.data.sequence import Context
from pgm.trainer.methods import Method, Shape, Stage, Step, choose
from pgm.trainer.methods.prior.contrastive import info_nce
from pgm.trainer.methods.prior.mmim import MMIM
from pgm.trainer.methods.prior.self_mm import SelfMM
from pgm.trainer.methods.prior.unimeec import UniMEEC
from pgm.trainer.methods.prior.unimse import UNKNOWN, polarities
from pgm.trainer.protocol import Protocol
from pgm.trainer.run.inference import evaluate_run
from pgm.trainer.run.request import Request, resolve
from pgm.trainer.run.training import Execution, carry_out
from safetensors.torch import load_file
from torch import Tensor

from ... import conftest
from ...conftest import copies

PGM = {"dim": 8, "heads": 2, "feedforward": 16, "length": 2}
OWN: dict[str, dict[str, Any]] = {
    "self_mm": {"hidden": 4, "out": 4, "fused": 8, "post": 4},
    "mmim": {"hidden": 4, "out": 4, "fused": 8},
    "unimse": {"hidden": 4, "out": 4, "bottleneck": 4, "projected": 4},
    "unimeec": {"dim": 8, "attention": 2, "feedforward": 16, "graph": 8, "window": 2},
}
MODELS = [*OWN, *(f"{name}+pgm" for name in OWN)]
SHORT = {"pretrain_epochs": 1, "epochs": 2, "batch": 16}
SCORE = Shape({"audio": 7, "text": 6, "vision": 5}, 1)
EMOTIONS = Shape({"audio": 7, "text": 6, "vision": 5}, 3, ("joy", "neutral", "surprise"))


def settings_of(name: str) -> dict[str, Any]:
    return {**(PGM if name.endswith("+pgm") else {}), **OWN[name.removesuffix("+pgm")]}


def build(name: str, shape: Shape | None = None, **settings: Any) -> Any:
    shape = shape or (EMOTIONS if name.startswith("unimeec") else SCORE)
    choice, rest = choose(name, "small", shape, {**settings_of(name), **settings})
    assert not rest
    torch.manual_seed(0)
    method = choice.build(shape)
    method.start(targets_for(shape, 8))
    return method.train()


def targets_for(shape: Shape, count: int) -> Tensor:
    return torch.linspace(-2, 3, count) if shape.outputs == 1 else torch.arange(count) % shape.outputs


def batch(count: int = 8, missing: str | None = None, seed: int = 0) -> Inputs:
    """Three tokens a modality in two dialogues; the first two samples lack `missing`."""
    generator = torch.Generator().manual_seed(seed)
    tokens = {m: torch.randn(count, 3, width, generator=generator) for m, width in SCORE.widths.items()}
    masks = {m: torch.ones(count, 3, dtype=torch.bool) for m in tokens}
    if missing is not None:
        masks[missing][:2] = False
    turns = torch.arange(count)
    return Inputs(tokens, masks, None, turns // (count // 2), turns % (count // 2))


def step_of(method: Method, inputs: Inputs, targets: Tensor, **how: Any) -> Step:
    criterion = mean_error if targets.is_floating_point() else torch.nn.functional.cross_entropy
    return conftest.step_of(method, inputs, targets, criterion=criterion, **how)


def mean_error(logits: Tensor, targets: Tensor) -> Tensor:
    return (logits.squeeze(1) - targets).abs().mean()


def moved(method: Method, before: dict[str, Tensor]) -> set[str]:
    return {name for name, value in method.named_parameters() if not torch.equal(value, before[name])}


TASK = Stage("task", 1)


@pytest.mark.parametrize("missing", ["audio", "text"])
@pytest.mark.parametrize("name", MODELS)
def test_a_step_is_finite_and_what_it_does_not_have_changes_nothing(name: str, missing: str) -> None:
    method, inputs = build(name), batch(missing=missing)
    targets = targets_for(EMOTIONS if name.startswith("unimeec") else SCORE, 8)
    for epoch in range(3):
        for passed in range(method.stages(Protocol(pretrain_epochs=1, epochs=2))[-1].passes):
            losses = method.update(TASK, step_of(method, inputs, targets, epoch=epoch, passed=passed))
            assert all(torch.isfinite(value).all() for value in losses.values())
    assert all(torch.isfinite(value).all() for value in method.state_dict().values())
    method.eval()
    other = batch(missing=missing)
    for modality, tokens in other.tokens.items():
        tokens[~other.masks[modality]] = 77.0
    assert torch.allclose(method(inputs).logits, method(other).logits, atol=1e-6)


@pytest.mark.parametrize("name", list(OWN))
def test_pgm_takes_the_fusions_place_and_nothing_else(name: str) -> None:
    def outside(method: Method) -> dict[str, tuple[int, ...]]:
        return {n: tuple(p.shape) for n, p in method.named_parameters() if not n.startswith("fusion.")}

    plain, placed = build(name), build(f"{name}+pgm")
    one, other = outside(plain), outside(placed)
    assert set(one) == set(other)
    # Only layers that read the fused vector may differ, and only in how wide it is.
    reading = {n for n in one if one[n] != other[n]}
    for n in reading:
        assert one[n][0] == other[n][0]
        assert one[n][1] - other[n][1] == plain.fusion.width - placed.fusion.width
    expected = {
        "self_mm": {"head.feature.1.weight"},
        "mmim": {"fuse.1.weight"},
        "unimse": {"answering.weight", "polarity.weight"},
        "unimeec": {f"graphs.{i}.project.weight" for i in range(3)},
    }
    assert reading == expected[name]


@pytest.mark.parametrize("name", ["self_mm", "mmim", "unimse"])
def test_its_pgm_starts_as_in_the_method_pgm_and_shares_its_first_stage(
    name: str, make_toy: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_toy(tmp_path / "features", task="sentiment", counts={"train": 48, "val": 16, "test": 16})
    alone = train(root, method="pgm", runs=tmp_path / "runs", settings={**SHORT, **PGM})
    stages = sorted((tmp_path / "runs/stages").iterdir())
    run = train(root, method=f"{name}+pgm", runs=tmp_path / "runs", settings={**SHORT, **settings_of(f"{name}+pgm")})
    fresh = train(root, method=f"{name}+pgm", runs=tmp_path / "other", settings={**SHORT, **settings_of(f"{name}+pgm")})
    assert sorted((tmp_path / "runs/stages").iterdir()) == stages
    assert run.weights.read_bytes() == fresh.weights.read_bytes()
    assert run.metrics[0]["losses"] == fresh.metrics[0]["losses"] == alone.metrics[0]["losses"]


def test_self_mms_modalities_do_not_count_in_epoch_1_and_do_after(
    make_toy: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_toy(tmp_path / "features", task="sentiment", counts={"train": 48, "val": 16, "test": 16}, missing=0.1)
    run = train(root, method="self_mm", runs=tmp_path / "runs", settings={**SHORT, **OWN["self_mm"]})
    first, second, third = (entry["losses"] for entry in run.metrics)
    assert first["task_text"] == first["task_vision"] == 0.0
    assert first["loss"] == first["task"]
    # A batch's labels move after its step: epoch 2 makes them, epoch 3 is the first that learns from them.
    assert second["task_text"] == 0.0
    assert third["task_text"] > 0
    assert third["loss"] > third["task"]
    saved = load_file(run.weights)
    assert not any("ulgm" in name for name in saved)
    assert evaluate_run(run, "test", None, "auto", "auto")["metrics"] == run.test


def test_self_mm_moves_the_heads_of_modalities_by_their_own_labels_only() -> None:
    method, targets = build("self_mm"), targets_for(SCORE, 8)
    assert isinstance(method, SelfMM)
    before = copies(method)
    method.update(TASK, step_of(method, batch(), targets))
    assert not any(name.startswith("heads.") for name in moved(method, before) if method_has_gradient(method, name))
    method.ulgm.labels("audio").add_(1.0)
    before = copies(method)
    method.update(TASK, step_of(method, batch(), targets, epoch=0))
    changed = {name.split(".")[1] for name in moved(method, before) if name.startswith("heads.")}
    assert changed == {"audio"}


def method_has_gradient(method: Method, name: str) -> bool:
    gradient = method.get_parameter(name).grad
    return gradient is not None and bool(gradient.any())


def test_mmims_pass_a_moves_its_estimators_alone_and_pass_b_all_but_them() -> None:
    method, inputs, targets = build("mmim"), batch(), targets_for(SCORE, 8)
    assert isinstance(method, MMIM)
    estimators = {n for n, p in method.named_parameters() if n.startswith("bounds.") and p.requires_grad}
    before = copies(method)
    losses = method.update(TASK, step_of(method, inputs, targets, passed=0))
    assert moved(method, before) == estimators
    assert set(losses) == {"bound"}
    before = copies(method)
    method.update(TASK, step_of(method, inputs, targets, passed=1))
    after = moved(method, before)
    assert not after & {n for n in before if n.startswith("bounds.")}
    assert {n.split(".")[0] for n in after} == {"encoder", "fuse", "head", "contrasts"}


def test_mmims_entropy_counts_from_the_third_batch_of_an_epoch_on() -> None:
    method, targets = build("mmim"), targets_for(SCORE, 8)
    for _ in range(2):
        found = []
        for done in (0.0, 0.3, 0.6, 0.9):
            step = step_of(method, batch(seed=int(done * 10)), targets, passed=1, done=done)
            found.append(method.update(TASK, step)["entropy"].item())
        assert found[0] == found[1] == 0.0
        assert found[2] != 0.0
        assert found[3] != 0.0


def test_mmim_passes_twice_over_the_data_and_says_how_often_a_covariance_was_singular(
    make_toy: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_toy(tmp_path / "features", task="sentiment", counts={"train": 64, "val": 16, "test": 16})
    settings = {**SHORT, **OWN["mmim"], "batch": 4, "out": 24}
    run = train(root, method="mmim", runs=tmp_path / "runs", settings=settings)
    for entry in run.metrics:
        assert {"bound", "nce", "likelihood", "entropy", "degenerate"} < set(entry["losses"])
        assert 0 < entry["losses"]["degenerate"] <= 1
    bounds = [entry["losses"]["bound"] for entry in run.metrics]
    assert bounds[-1] < bounds[0]


def test_unimse_reads_polarity_from_scores_and_from_the_names_of_classes() -> None:
    assert polarities(("joy", "Neutral", "surprise", "anger"), 4).tolist() == [2, 1, UNKNOWN, 0]
    assert polarities((), 2).tolist() == [UNKNOWN, UNKNOWN]
    scores, classes = build("unimse"), build("unimse", EMOTIONS)
    assert scores.polarities(torch.tensor([-0.2, 0.0, 3.0])).tolist() == [0, 1, 2]
    assert classes.polarities(torch.tensor([0, 1, 2])).tolist() == [2, 1, UNKNOWN]


@pytest.mark.parametrize("shape", [SCORE, EMOTIONS])
def test_unimse_adds_up_its_heads_and_half_of_each_contrast(shape: Shape) -> None:
    method, inputs, targets = build("unimse", shape).eval(), batch(), targets_for(shape, 8)
    fused = method.fusion({}, inputs.tokens, inputs.masks).vector.detach()
    logits = method.answering(fused).detach().double()
    if shape.outputs == 1:  # intensity
        answer, polarity = (logits[:, 0] - targets).abs().mean(), targets.sign().long() + 1
    else:  # emotion
        answer = -logits.log_softmax(1)[torch.arange(8), targets].mean()
        polarity = torch.tensor([2, 1, UNKNOWN])[targets]
    known = polarity != UNKNOWN
    polar = -method.polarity(fused).detach().double().log_softmax(1)[known].gather(1, polarity[known, None]).mean()
    means = {m: layer(inputs.tokens[m]).mean(dim=1).detach() for m, layer in method.compared.items()}
    everyone = torch.ones(8, dtype=torch.bool)
    contrast = sum(info_nce(means["text"], means[m], everyone, 0.1).item() for m in ("audio", "vision"))
    before = copies(method)
    losses = method.update(TASK, step_of(method, inputs, targets))
    assert losses["loss"].item() == pytest.approx(answer.item() + polar.item() + 0.5 * contrast, rel=1e-5)
    assert {name.split(".")[0] for name in moved(method, before)} == {"fusion", "compared", "answering", "polarity"}


def test_unimse_takes_the_polarity_of_a_column_before_that_of_a_name(
    make_toy: Callable[..., Path], tmp_path: Path
) -> None:
    method = build("unimse", EMOTIONS)
    assert method.polarities(torch.tensor([0, 1, 2]), torch.tensor([-1, 1, 0])).tolist() == [0, 2, 1]
    assert method.polarities(torch.tensor([0, 1, 2]), torch.tensor([-2.5, 0.0, 0.2])).tolist() == [0, 1, 2]
    signs = np.random.default_rng(0).integers(-1, 2, 80)
    columns = {"without": {}, "with": {"sentiment": signs}, "words": {"sentiment": signs.astype(str)}}
    runs = {}
    for name, more in columns.items():
        root = make_toy(tmp_path / name, task="emotion", counts={"train": 48, "val": 16, "test": 16}, more=more)
        runs[name] = train(root, method="unimse", runs=tmp_path / "runs", settings={**SHORT, **OWN["unimse"]})
    # The toy's classes have names without a polarity; a column of words is not one of sentiments.
    assert runs["words"].id == runs["without"].id != runs["with"].id
    assert runs["without"].metrics[0]["losses"]["polarity"] == 0.0
    assert runs["with"].metrics[0]["losses"]["polarity"] > 0.5


@pytest.mark.parametrize("name", ["unimse", "unimse+pgm"])
def test_unimse_trains_emotions(name: str, make_toy: Callable[..., Path], tmp_path: Path) -> None:
    root = make_toy(tmp_path / "features", task="emotion", counts={"train": 48, "val": 16, "test": 16}, missing=0.1)
    run = train(root, method=name, runs=tmp_path / "runs", settings={**SHORT, **settings_of(name)})
    assert {"accuracy", "weighted_f1"} <= set(run.test)
    assert evaluate_run(run, "test", None, "auto", "auto")["metrics"] == run.test


@pytest.mark.parametrize("name", [name for name in MODELS if not name.startswith("mmim")])
def test_text_alone_is_enough_for_all_but_mmim(name: str) -> None:
    shape = Shape({"text": 6}, 3 if name.startswith("unimeec") else 1)
    method, inputs = build(name, shape), batch().restricted("text")
    before = copies(method)
    losses = method.update(TASK, step_of(method, inputs, targets_for(shape, 8)))
    assert torch.isfinite(losses["loss"])
    assert moved(method, before)


def test_unimeecs_answers_follow_from_the_dialogue_and_not_from_the_batch() -> None:
    method = build("unimeec").eval()
    whole = batch(8)
    alone = Inputs(
        {m: x[:4] for m, x in whole.tokens.items()},
        {m: x[:4] for m, x in whole.masks.items()},
        None,
        whole.dialogues[:4],  # type: ignore[index]
        whole.turns[:4],  # type: ignore[index]
    )
    assert torch.allclose(method(whole).logits[:4], method(alone).logits, atol=1e-6)


@pytest.mark.parametrize("name", ["unimeec", "unimeec+pgm"])
def test_unimeec_sees_three_windows_far_and_no_other_dialogue(name: str) -> None:
    method, inputs = build(name, window=1).eval(), batch(16)
    before = method(inputs).logits
    for tokens in inputs.tokens.values():
        tokens[0] += 5.0
    changed = (method(inputs).logits - before).abs().amax(dim=1) > 1e-6
    # Three graphs of one turn each; the second dialogue begins at 8.
    assert changed.tolist() == [True] * 4 + [False] * 12


def test_unimeec_trains_whole_dialogues_with_causes_where_there_are_labels(
    make_toy: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = {"train": 48, "val": 16, "test": 16}
    shown: list[tuple[int, Inputs]] = []
    update = UniMEEC.update

    def watched(method: UniMEEC, stage: Stage, step: Step) -> Any:
        shown.append((step.epoch, step.inputs()))
        return update(method, stage, step)

    monkeypatch.setattr(UniMEEC, "update", watched)
    causes = np.random.default_rng(0).integers(0, 2, 80)
    roots = {
        "with": make_toy(tmp_path / "with", task="emotion", counts=counts, groups=6, more={"cause": causes}),
        "other": make_toy(tmp_path / "other", task="emotion", counts=counts, groups=6, more={"cause": 1 - causes}),
        "without": make_toy(tmp_path / "without", task="emotion", counts=counts, groups=6),
    }
    settings = {**SHORT, **OWN["unimeec"]}
    runs = {k: train(root, method="unimeec", runs=tmp_path / "runs", settings=settings) for k, root in roots.items()}
    assert len({run.id for run in runs.values()}) == 3, "cause labels are in the name"
    assert "cause" in runs["with"].metrics[0]["losses"]
    assert "cause" not in runs["without"].metrics[0]["losses"]
    for run in runs.values():
        assert evaluate_run(run, "test", None, "mapped", "auto")["metrics"] == run.test
    for epoch in range(3):
        met = [
            (dialogue, turns.tolist())
            for when, inputs in shown[: len(shown) // 3]  # of the first run
            if when == epoch and inputs.dialogues is not None and inputs.turns is not None
            for dialogue in inputs.dialogues.unique().tolist()
            for turns in [inputs.turns[inputs.dialogues == dialogue]]
        ]
        assert sorted(dialogue for dialogue, _ in met) == list(range(6)), "each dialogue once, in one batch"
        assert all(turns == list(range(len(turns))) for _, turns in met), "whole and in order"
        assert sum(len(turns) for _, turns in met) == 48


def test_what_a_model_is_not_made_for_is_said(make_toy: Callable[..., Path], tmp_path: Path) -> None:
    for name in ("self_mm", "mmim"):
        with pytest.raises(UserError, match="3 classes"):
            choose(name, "small", EMOTIONS, {})
    with pytest.raises(UserError, match="UniMEEC classifies emotions"):
        choose("unimeec", "small", SCORE, {})
    with pytest.raises(UserError, match="text is the only modality here, and MMIM bounds"):
        choose("mmim", "small", Shape({"text": 6}, 1), {})
    with pytest.raises(UserError, match="Without its partitioner nothing of PgM is left"):
        choose("mmim+pgm", "small", SCORE, {"without": "partitioner"})
    root = make_toy(tmp_path / "features", task="emotion", counts={"train": 48, "val": 16, "test": 16})
    with pytest.raises(UserError, match=r"reads whole videos or dialogues.*no column 'group'"):
        train(root, method="unimeec", runs=tmp_path / "runs", settings={**SHORT, **OWN["unimeec"]})


KILLED = """
import os, signal, sys
from pathlib import Path
from pgm.trainer.run.events import BatchFinished, EpochFinished
from pgm.trainer.run.request import Request, resolve
from pgm.trainer.run.training import Execution, carry_out

seen = 0

def kill(event):
    global seen
    seen += isinstance(event, EpochFinished)
    if isinstance(event, BatchFinished) and seen == 2 and event.done > event.total // 2:
        os.kill(os.getpid(), signal.SIGKILL)

request = Request(Path(sys.argv[1]), Path(sys.argv[2]), method=sys.argv[3], settings=eval(sys.argv[4]))
carry_out(resolve(request), Execution(listener=kill, checkpoint_seconds=0))
"""


@pytest.mark.parametrize("name", ["self_mm", "mmim"])
def test_killed_without_warning_it_ends_with_the_same_bits(
    name: str, make_toy: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_toy(tmp_path / "features", task="sentiment", counts={"train": 64, "val": 16, "test": 16}, missing=0.1)
    settings = {**SHORT, "epochs": 4, **OWN[name]}

    def now(runs: Path) -> Run:
        request = Request(root, runs, method=name, settings=settings)
        return carry_out(resolve(request), Execution(checkpoint_seconds=0))

    whole = now(tmp_path / "whole")
    arguments = [str(root), str(tmp_path / "cut"), name, repr(settings)]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    cut = tmp_path / "cut" / whole.id
    state = torch.load(cut / "checkpoint.pt", weights_only=True)["model"]
    assert any(".ulgm.labels_" in key for key in state) == (name == "self_mm")
    run = now(tmp_path / "cut")
    assert run.weights.read_bytes() == whole.weights.read_bytes()
    assert [e["losses"] for e in run.metrics] == [e["losses"] for e in whole.metrics]
    assert run.predictions_path("test").read_bytes() == whole.predictions_path("test").read_bytes()


@pytest.mark.parametrize("name", ["self_mm", "mmim+pgm", "pgm", "concat"])
def test_a_sequence_of_the_group_is_another_run_and_is_read_back_to_the_bit(
    name: str, make_toy: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_toy(
        tmp_path / "features",
        task="sentiment",
        counts={"train": 48, "val": 16, "test": 16},
        longest=1,
        groups=6,
        missing=0.1,
    )
    settings = {**SHORT, **(settings_of(name) if name[0] in "sm" else {"dim": 8, "heads": 2, "feedforward": 16})}
    found = {
        context: train(root, method=name, runs=tmp_path / "runs", settings=settings, context=context)
        for context in (None, Context(2), Context(3))
    }
    assert len({run.id for run in found.values()}) == 3
    assert "sequence" not in found[None].config
    assert found[Context(2)].config["sequence"] == {"by": "group", "context": 2}
    for run in found.values():
        for feed in ("resident", "mapped"):
            assert evaluate_run(run, "test", None, feed, "auto")["metrics"] == run.test
