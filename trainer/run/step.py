"""How a model trains, from top to bottom: an epoch, its batches from the feed, and of each the forward pass, losses,
backward, clip, step; at the end the means of the losses.

Two things may differ. A method that trains by other than one loss and one step (turns, several steps, modulated
gradients) overrides `Method.update`; a task whose loss takes several passes overrides `Task.loss`. No step waits for
the device, so losses stay there until the epoch ends. All randomness of an epoch follows from (seed, stage, epoch).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import torch
from torch import Tensor

from ...cache.errors import RunFailed
from ..batch import Batch
from ..data.feed import Feed
from ..methods import Criterion, Stage, Step
from ..methods.base import clip_gradients
from ..protocol import Protocol
from ..randomness import derived
from ..tasks import Task
from .clock import Clock
from .events import BatchFinished, Listener, silent
from .gradients import GradientNorms
from .machine import Machine
from .model import Model
from .optimiser import set_rates

Losses = Mapping[str, Tensor]  # name -> (), on the device


class Trainer:
    """A model and its training split.

    norms: takes the gradients' norms by modality. labels: columns of the samples besides the task's, (N,) each.
    """

    def __init__(
        self,
        model: Model,
        task: Task,
        protocol: Protocol,
        seed: int,
        feed: Feed,
        machine: Machine,
        listener: Listener = silent,
        norms: GradientNorms | None = None,
        labels: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.model, self.task, self.protocol, self.seed = model, task, protocol, seed
        self.feed, self.machine, self.listener = feed, machine, listener
        self.norms, self.labels = norms, labels or {}
        self.forward = torch.compile(model, dynamic=True) if machine.compile else model
        self.stages = model.method.stages(protocol)
        model.method.start(feed.targets.to(machine.device))

    def epoch(self, stage: Stage, epoch: int, optimiser: torch.optim.Optimizer) -> tuple[dict[str, float], Clock]:
        """Train one epoch of a stage, counted from 0: the mean of every loss, and how long it took."""
        torch.manual_seed(derived(self.seed, stage.name, epoch, "dropout"))
        self.model.train()
        sums: dict[str, Tensor] = {}
        clock = Clock(time.perf_counter())
        for passed in range(stage.passes):
            # The first pass of an epoch is in the order of an epoch that has one.
            seed = derived(self.seed, stage.name, epoch, "order", *([passed] if passed else []))
            order = self.feed.training_order(self.protocol.batch, seed)
            for i, batch in enumerate(clock.timed(self.feed.batches(order))):
                steps = stage.passes * len(order)
                share = (epoch * steps + passed * len(order) + i) / (stage.epochs * steps)
                set_rates(optimiser, self.protocol, share)
                losses = self.step(stage, batch, optimiser, epoch, passed, i / len(order))
                for name, value in losses.items():
                    sums[name] = sums.get(name, 0.0) + value.detach().float() * len(batch)
                self.listener(BatchFinished(stage.name, clock.samples, stage.passes * len(self.feed)))
        return finite_means(sums, len(self.feed), f"stage {stage.name}, epoch {epoch + 1}"), clock

    def step(
        self,
        stage: Stage,
        batch: Batch,
        optimiser: torch.optim.Optimizer,
        epoch: int = 0,
        passed: int = 0,
        done: float = 0.0,
    ) -> Losses:
        """Train on one batch, at the share `done` of a pass over the split; the losses to report."""
        inputs = batch.inputs.restricted(stage.modality)
        task = self.task_of(stage)
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        step = Step(
            inputs=lambda: self.model.prepared(inputs),
            output=lambda: self.forward(inputs),
            targets=batch.targets,
            samples=batch.samples,
            labels={name: column.index_select(0, batch.samples) for name, column in self.labels.items()},
            criterion=weighted(task, self.protocol),
            protocol=self.protocol,
            optimiser=optimiser,
            parameters=parameters,
            autocast=self.machine.autocast,
            norms=self.norms,
            epoch=epoch,
            passed=passed,
            done=done,
        )
        own = self.model.method.update(stage, step) if stage.labels else None
        if own is not None:
            return own

        with self.machine.autocast():
            if stage.labels:  # alpha L^P + beta L^T, eq. 12
                supervised, output, parts = task.loss(self.forward, inputs, batch.targets)
                loss = self.protocol.beta * supervised
                if output.pretraining is not None:
                    loss = loss + self.protocol.alpha * output.pretraining
                losses = {"loss": loss, "task": supervised, **parts, **output.losses}
            else:  # L^P, eq. 11
                loss, parts = self.model.method.pretrain(self.model.prepared(inputs))
                losses = {"loss": loss, **parts}
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        clip_gradients(parameters, self.protocol.clip, self.norms)
        optimiser.step()
        return losses

    def task_of(self, stage: Stage) -> Task:
        """What a stage is trained and judged on."""
        return self.task.alone() if stage.modality else self.task


def weighted(task: Task, protocol: Protocol) -> Criterion:
    """beta L^T of logits."""
    return lambda logits, targets: protocol.beta * task.criterion(logits, targets)


def finite_means(sums: Losses, samples: int, where: str) -> dict[str, float]:
    """Sums over an epoch as means, read from the device at once. Raises RunFailed for one that is no number."""
    values = torch.stack(list(sums.values())).tolist() if sums else []
    means = {name: value / samples for name, value in zip(sums, values, strict=True)}
    if bad := [name for name, value in means.items() if not math.isfinite(value)]:
        raise RunFailed(
            f"The loss {bad[0]!r} became {means[bad[0]]} in {where}. "
            "Try a smaller learning rate (--set lr=1e-4) or --precision fp32."
        )
    return means
