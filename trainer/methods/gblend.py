"""G-Blend: gradient blending by overfitting-to-generalisation ratios (Wang, Tran, Feiszli, CVPR 2020), online.

Equations. The joint classifier and one auxiliary classifier a modality are trained on

    L = w_joint L_joint + sum_m w_m L_m

For classifier k with training loss T and validation loss V, from the start to the end of a super-epoch,

    gain dG_k = V_start - V_end,    overfitting dO_k = (V_end - T_end) - (V_start - T_start)
    OGR_k = |dO_k / dG_k|,          w_k proportional to dG_k / dO_k^2,  summing to 1

which minimises OGR^2 for gradients with independent overfitting parts. Weights start equal and are measured anew
after every super-epoch, for the next one. A classifier that gained nothing has the gain floored, so its weight is small
and not negative (BalanceBenchmark takes |dG|, which rewards a loss that grew); a tiny dO is floored too, or a single
classifier would take all. The floors are ours.

Decided: BalanceBenchmark measures each classifier in a training of its own, on a copy of the network, before every
super-epoch; here the auxiliary and joint classifiers of the running training are measured, which costs one pass over
both splits a super-epoch instead of M + 1 trainings, and leaves the weights equal until there are two measurements.
Super-epochs have 3 epochs (BalanceBenchmark: 10 of 70), so that a training of a dozen epochs has several. The
validation split also selects the epoch, so the weights see nothing that selection does not; test data are never read.

Frozen features. Encoders cannot overfit, only the learners on top; dO is smaller and noisier than in the paper, and on
small validation splits the weights wander. They lie in the checkpoint with the last measurement.

Missing modalities: L_m and its measurement are over the samples that have m. Works for scores as for classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..head.switches import Positive
from .auxiliary import Supervised
from .base import Look, Losses, Method, Shape, Stage, Step
from .joint import BalanceConfig

LEAST_GAIN = 1e-3  # of dG and of |dO|, in units of the loss


@dataclass(frozen=True)
class GBlendConfig(BalanceConfig):
    """super_epoch: epochs between two measurements."""

    names: ClassVar[tuple[str, ...]] = ("gblend",)
    super_epoch: Positive = 3

    def build(self, shape: Shape) -> Method:
        return GBlend(self, shape)


class GBlend(Supervised):
    """weights (M + 1,): the modalities' in order, then the joint one; measured (2, M + 1): the last T and V."""

    weights: Tensor
    measured: Tensor
    measurements: Tensor

    def __init__(self, config: GBlendConfig, shape: Shape) -> None:
        super().__init__(config, shape)
        self.super_epoch = config.super_epoch
        count = len(shape.widths) + 1
        self.register_buffer("weights", torch.full((count,), 1 / count))
        self.register_buffer("measured", torch.zeros(2, count))
        self.register_buffer("measurements", torch.zeros((), dtype=torch.int64))

    def update(self, stage: Stage, step: Step) -> Losses:
        with step.autocast():
            parts = self.parts(step.inputs())
            task = step.criterion(self.combined(parts), step.targets)
            alone = self.losses_alone(step.criterion, parts, step.targets)
            weights = dict(zip(self.auxiliary, self.weights, strict=False))
            loss = self.weights[-1] * task + sum(weights[m] * own for m, own in alone.items())
        step.descend(loss)
        return {"loss": loss, "task": task, **{f"task_{m}": own for m, own in alone.items()}}

    def between_epochs(self, stage: Stage, look: Look) -> None:
        """Measure at the end of the first epoch and of every super-epoch after it; weights from the second on."""
        if look.epoch % self.super_epoch:
            return
        now = torch.stack([self.losses_of(look, split) for split in ("train", "val")])
        if int(self.measurements):
            self.weights.copy_(blend(self.measured, now))
        self.measured.copy_(now)
        self.measurements += 1

    def losses_of(self, look: Look, split: str) -> Tensor:
        """Mean loss of every classifier over a split: (M + 1,)."""
        sums, counts = torch.zeros_like(self.weights), torch.zeros_like(self.weights)
        for inputs, targets in look.batches(split):
            parts = self.parts(inputs)
            alone = self.losses_alone(look.criterion, parts, targets)
            for i, modality in enumerate(self.auxiliary):
                if modality in alone:
                    sums[i] += alone[modality] * parts.present[:, i].sum()
                    counts[i] += parts.present[:, i].sum()
            sums[-1] += look.criterion(self.combined(parts), targets) * len(targets)
            counts[-1] += len(targets)
        return sums / counts.clamp(min=1)


def blend(start: Tensor, end: Tensor) -> Tensor:
    """Weights (K,) from the training and validation losses (2, K) at the start and the end of a super-epoch."""
    gain = (start[1] - end[1]).clamp(min=LEAST_GAIN)
    overfit = ((end[1] - end[0]) - (start[1] - start[0])).abs().clamp(min=LEAST_GAIN)
    weights = gain / overfit.square()
    return weights / weights.sum()
