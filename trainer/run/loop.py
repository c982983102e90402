"""A training: stages, epochs, selection on validation, one checkpoint an epoch. What an epoch does is in step.py.

The test split never comes here. A stage that uses labels leaves the weights of its best validation epoch (the first of
equal ones); a stage without labels leaves its last.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..batch import Inputs
from ..data.feed import Feed
from ..methods import Look, Stage
from .callbacks import Callback, consult
from .checkpoint import Checkpoints, Progress, copied
from .clock import Clock
from .evaluation import BATCH, evaluate
from .events import EpochFinished
from .optimiser import build_optimiser
from .stages import SharedStages
from .step import Trainer, weighted


class Training:
    """One model through its stages. record: takes every epoch's line."""

    def __init__(
        self,
        trainer: Trainer,
        val: Feed,
        checkpoints: Checkpoints,
        record: Callable[[dict[str, Any]], None],
        shared: SharedStages | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.trainer, self.feeds = trainer, {"train": trainer.feed, "val": val}
        self.model, self.task, self.protocol = trainer.model, trainer.task, trainer.protocol
        self.checkpoints, self.record, self.shared, self.callbacks = checkpoints, record, shared, callbacks
        self.stages = trainer.stages
        self.progress = Progress()
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
        optimiser = build_optimiser(self.model, stage, self.protocol, self.trainer.machine.device)
        if self.optimiser_state is not None:
            optimiser.load_state_dict(dict(self.optimiser_state))
        while self.progress.epoch < stage.epochs:
            losses, clock = self.trainer.epoch(stage, self.progress.epoch, optimiser)
            entry = {"stage": stage.name, "epoch": self.progress.epoch + 1, "losses": losses, **self.gradients()}
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

    def gradients(self) -> dict[str, Any]:
        """The epoch's gradient norms by modality, where somebody watches them and a step reached any."""
        found = self.trainer.norms.take() if self.trainer.norms else {}
        return {"gradients": found} if found else {}

    def look(self, stage: Stage) -> None:
        """Let the method look at the training and validation splits between two epochs."""

        def batches(split: str) -> Iterator[tuple[Inputs, Tensor]]:
            feed = self.feeds[split]
            for batch in feed.batches(feed.evaluation_order(BATCH)):
                yield self.model.prepared(batch.inputs.restricted(stage.modality)), batch.targets

        self.model.eval()
        with torch.no_grad(), self.trainer.machine.autocast():
            look = Look(self.progress.epoch, batches, weighted(self.trainer.task_of(stage), self.protocol))
            self.model.method.between_epochs(stage, look)

    def validate(self, stage: Stage, entry: dict[str, Any]) -> bool:
        """Score the epoch on validation and keep its weights if they are the best so far."""
        if not stage.labels:
            return False
        task = self.trainer.task_of(stage)
        entry["val"] = evaluate(self.model, task, self.feeds["val"], self.trainer.machine, stage.modality).metrics
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
        self.trainer.listener(
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
