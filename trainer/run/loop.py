"""The training loop: stages, epochs, steps, selection on validation, one checkpoint an epoch. Read it top to bottom.

The test split never comes here. A stage that uses labels leaves the weights of its best validation epoch (the first of
equal ones); a stage without labels leaves its last. All randomness of an epoch follows from (seed, stage, epoch).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...cache.errors import RunFailed
from ..batch import Batch, Inputs
from ..data.feed import Feed
from ..methods import Criterion, Look, MethodOutput, Stage, Step
from ..protocol import Protocol
from ..randomness import derived
from ..tasks import Task
from .callbacks import Callback, consult
from .checkpoint import Checkpoints, Progress, copied
from .clock import Clock
from .evaluation import BATCH, evaluate
from .events import BatchFinished, EpochFinished, Listener
from .gradients import GradientNorms
from .model import Model
from .schedule import rate_factor
from .stages import SharedStages


@dataclass(frozen=True)
class Machine:
    """Where and how precisely the model runs. compile: the training step; answers are the plain model's, as loaded."""

    device: torch.device
    precision: str  # fp32 or bf16
    compile: bool = False

    def autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "bf16":
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()


@dataclass(frozen=True)
class Place:
    """A batch in its epoch: the share of the pass done, and passes before."""

    done: float = 0.0
    passed: int = 0


class Training:
    """One model through its stages."""

    def __init__(
        self,
        model: Model,
        task: Task,
        protocol: Protocol,
        seed: int,
        feeds: Mapping[str, Feed],
        machine: Machine,
        checkpoints: Checkpoints,
        listener: Listener,
        record: Callable[[dict[str, Any]], None],
        shared: SharedStages | None = None,
        watch_gradients: bool = True,
        further: Mapping[str, Tensor] | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.model, self.task, self.protocol, self.seed = model, task, protocol, seed
        self.feeds, self.machine, self.checkpoints = feeds, machine, checkpoints
        self.listener, self.record, self.shared = listener, record, shared
        self.callbacks = callbacks
        self.further = further or {}  # other labels of the training samples, (N,) each
        model.method.start(feeds["train"].targets.to(machine.device))
        self.stages = model.method.stages(protocol)
        self.gradients = GradientNorms(model.method.modality_parameters() if watch_gradients else {})
        self.progress = Progress()
        self.forward = torch.compile(model, dynamic=True) if machine.compile else model
        self.optimiser_state: Mapping[str, Any] | None = None
        self.seconds_per_sample: dict[str, float] = {}

    @property
    def total_epochs(self) -> int:
        return sum(stage.epochs for stage in self.stages)

    def resume(self) -> None:
        """Take up the checkpoint if there is one."""
        saved = self.checkpoints.load()
        if saved is None:
            return
        self.progress, weights, self.optimiser_state = saved
        self.model.load_state_dict(weights)
        for entry in self.progress.history:
            self.record(entry)

    def run(self) -> None:
        """Train what is left; afterwards the model holds the selected weights."""
        while self.progress.stage < len(self.stages):
            stage = self.stages[self.progress.stage]
            if self.progress.epoch or not self.take_over(stage):
                self.train_stage(stage)
            if self.progress.best is not None:
                self.model.load_state_dict(self.progress.best)
            self.progress.stage += 1
            self.progress.epoch = self.progress.stale = 0
            self.progress.best = self.progress.best_val = self.optimiser_state = None
            # The next stage has another optimiser: what is saved from here on starts there.
            self.save(None)

    def take_over(self, stage: Stage) -> bool:
        """Load the stage's outcome if a run with the same stage has left it."""
        if self.shared is None or stage.shares is None:
            return False
        found = self.shared.load(stage, self.model)
        if found is None:
            return False
        for entry in found:
            self.note(entry)
        return True

    def train_stage(self, stage: Stage) -> None:
        """All epochs that are left of one stage."""
        optimiser = build_optimiser(self.model, stage, self.protocol, self.machine.device)
        if self.optimiser_state is not None:
            optimiser.load_state_dict(dict(self.optimiser_state))
        while self.progress.epoch < stage.epochs:
            entry, clock = self.train_epoch(stage, optimiser)
            self.look(stage)
            improved = self.validate(stage, entry)
            self.progress.epoch += 1
            self.progress.stale = 0 if improved or not stage.labels else self.progress.stale + 1
            self.timed(entry, clock)
            stopped = consult(self.callbacks, self.progress.history, entry)
            self.note(entry)
            self.report(stage, entry, clock, improved)
            if stopped or 0 < self.protocol.patience <= self.progress.stale:
                break
            if self.checkpoints.due():
                self.save(optimiser.state_dict())
        if self.shared is not None and stage.shares is not None:
            self.shared.save(stage, self.model, [e for e in self.progress.history if e["stage"] == stage.name])

    def train_epoch(self, stage: Stage, optimiser: torch.optim.Optimizer) -> tuple[dict[str, Any], Clock]:
        """One pass over the training split; returns its record and its clock."""
        feed, epoch = self.feeds["train"], self.progress.epoch
        torch.manual_seed(derived(self.seed, stage.name, epoch, "dropout"))
        self.model.train()
        sums: dict[str, Tensor] = {}  # left on the device until the epoch ends
        clock = Clock(time.perf_counter())
        for passed in range(stage.passes):
            order = feed.training_order(self.protocol.batch, self.order_seed(stage, passed))
            for step, batch in enumerate(clock.timed(feed.batches(order))):
                steps = stage.passes * len(order)
                share = (epoch * steps + passed * len(order) + step) / (stage.epochs * steps)
                set_rates(optimiser, rate_factor(self.protocol, share))
                where = Place(step / len(order), passed)
                for name, value in self.step(stage, batch, optimiser, where).items():
                    sums[name] = sums.get(name, 0.0) + value.detach().float() * len(batch)
                self.listener(BatchFinished(stage.name, clock.samples, stage.passes * len(feed)))
        values = torch.stack(list(sums.values())).tolist() if sums else []
        losses = {name: value / len(feed) for name, value in zip(sums, values, strict=True)}
        bad = [name for name, value in losses.items() if value != value or value in (float("inf"), float("-inf"))]
        if bad:
            raise RunFailed(
                f"The loss {bad[0]!r} became {losses[bad[0]]} in stage {stage.name}, epoch {epoch + 1}. "
                "Try a smaller learning rate (--set lr=1e-4) or --precision fp32."
            )
        gradients = self.gradients.take()
        known = {"gradients": gradients} if gradients else {}
        return {"stage": stage.name, "epoch": epoch + 1, "losses": losses, **known}, clock

    def order_seed(self, stage: Stage, passed: int) -> int:
        """Of the batches of a pass; the first pass of an epoch is that of an epoch with one."""
        which = ("order", passed) if passed else ("order",)
        return derived(self.seed, stage.name, self.progress.epoch, *which)

    def step(self, stage: Stage, batch: Batch, optimiser: torch.optim.Optimizer, where: Place) -> Mapping[str, Tensor]:
        """One update by the method."""
        inputs = batch.inputs.restricted(stage.modality) if stage.modality else batch.inputs

        def objective() -> tuple[Tensor, Mapping[str, Tensor]]:
            return self.objective(stage, inputs, batch.targets)

        moved = [p for group in optimiser.param_groups for p in group["params"]]
        step = Step(
            objective=objective,
            optimiser=optimiser,
            parameters=moved,
            clip=self.protocol.clip,
            autocast=self.machine.autocast,
            inputs=lambda: self.model.prepared(inputs),
            targets=batch.targets,
            criterion=self.criterion(stage, inputs),
            epoch=self.progress.epoch,
            done=where.done,
            samples=batch.samples,
            alpha=self.protocol.alpha,
            beta=self.protocol.beta,
            passed=where.passed,
            further={name: labels.index_select(0, batch.samples) for name, labels in self.further.items()},
            watch=self.gradients if self.gradients.owned else None,
        )
        return self.model.method.update(stage, step)

    def criterion(self, stage: Stage, inputs: Inputs) -> Criterion:
        """beta L^T of logits the method has computed by itself."""
        task = self.task.alone() if stage.modality else self.task

        def loss(logits: Tensor, targets: Tensor) -> Tensor:
            known = MethodOutput(logits, logits)
            return self.protocol.beta * task.loss(lambda inputs, losses=True: known, inputs, targets)[0]

        return loss

    def look(self, stage: Stage) -> None:
        """Let the method look at the training and validation splits between two epochs."""

        def batches(split: str) -> Iterator[tuple[Inputs, Tensor]]:
            feed = self.feeds[split]
            for batch in feed.batches(feed.evaluation_order(BATCH)):
                shown = batch.inputs.restricted(stage.modality) if stage.modality else batch.inputs
                yield self.model.prepared(shown), batch.targets

        self.model.eval()
        with torch.no_grad(), self.machine.autocast():
            look = Look(self.progress.epoch, batches, self.criterion(stage, Inputs({}, {})))
            self.model.method.between_epochs(stage, look)

    def objective(self, stage: Stage, inputs: Inputs, targets: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        """L^P in a stage without labels (eq. 11), alpha L^P + beta L^T in one with them (eq. 12), and all parts."""
        if not stage.labels:
            loss, parts = self.model.method.pretrain(self.model.prepared(inputs))
            return loss, {"loss": loss, **parts}
        task = self.task.alone() if stage.modality else self.task
        supervised, output, told = task.loss(self.forward, inputs, targets)
        loss = self.protocol.beta * supervised
        if output.pretraining is not None:
            loss = loss + self.protocol.alpha * output.pretraining
        return loss, {"loss": loss, "task": supervised, **told, **output.losses}

    def validate(self, stage: Stage, entry: dict[str, Any]) -> bool:
        """Score the epoch on validation and keep its weights if they are the best so far."""
        if not stage.labels:
            return False
        task = self.task.alone() if stage.modality else self.task
        entry["val"] = evaluate(self.model, task, self.feeds["val"], self.machine, stage.modality).metrics
        improved = task.better(entry["val"], self.progress.best_val)
        if improved:
            self.progress.best, self.progress.best_val = copied(self.model.state_dict()), entry["val"]
        return improved

    def note(self, entry: dict[str, Any]) -> None:
        """Keep an epoch's record, and write it down."""
        self.progress.history.append(entry)
        self.record(entry)

    def timed(self, entry: dict[str, Any], clock: Clock) -> None:
        """Add an epoch's time to its record and to the run's."""
        seconds = time.perf_counter() - clock.started
        entry |= {"seconds": round(seconds, 4), "waiting": round(clock.waited / clock.training, 5)}
        self.progress.seconds += clock.training
        self.progress.waited += clock.waited
        self.progress.samples += clock.samples

    def save(self, optimiser: Mapping[str, Any] | None) -> None:
        self.checkpoints.save(self.progress, self.model.state_dict(), optimiser)

    def report(self, stage: Stage, entry: Mapping[str, Any], clock: Clock, best: bool) -> None:
        """Tell the listener how the epoch went."""
        seconds = time.perf_counter() - clock.started
        self.seconds_per_sample[stage.name] = seconds / max(1, clock.samples)
        left = [(s, s.epochs - (self.progress.epoch if s is stage else 0)) for s in self.stages[self.progress.stage :]]
        pace = max(self.seconds_per_sample.values())
        eta = sum(epochs * self.seconds_per_sample.get(s.name, pace) for s, epochs in left) * len(self.feeds["train"])
        self.listener(
            EpochFinished(
                stage=stage.name,
                epoch=entry["epoch"],
                epochs=stage.epochs,
                losses=entry["losses"],
                val=entry.get("val", {}),
                best=best,
                samples_per_second=clock.samples / clock.training,
                waiting=clock.waited / clock.training,
                seconds=seconds,
                eta=eta,
            )
        )


def build_optimiser(model: Model, stage: Stage, protocol: Protocol, device: torch.device) -> torch.optim.Optimizer:
    """AdamW over the stage's part of the model, each parameter at the rate its method gives it."""
    part = f"method.{stage.part}." if stage.part else ""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if name.startswith(part):
            groups.setdefault(model.method.rate(name.removeprefix("method."), protocol), []).append(parameter)
    listed = [{"params": parameters, "lr": rate, "base": rate} for rate, parameters in groups.items()]
    return torch.optim.AdamW(listed, weight_decay=protocol.weight_decay, fused=device.type in ("cpu", "cuda"))


def set_rates(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Each group's learning rate is its own, times the schedule's factor."""
    for group in optimiser.param_groups:
        group["lr"] = group["base"] * factor
