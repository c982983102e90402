"""ReconBoost: boosting modalities in turn, each against the others' residual (Hua et al., ICML 2024).

Equations. The answer is the sum of the modalities' logits, F = sum_m f_m. One modality learns at a time while the
others stand still; with q = softmax(sum_{n != m} f_n), detached, its loss is the cross-entropy minus a reconcilement
with what the others already say:

    L_m = CE(y, f_m) - lambda KL(q || softmax f_m) = -sum_k (y_k - lambda q_k) ln softmax(f_m)_k + const

so it fits the residual y - lambda q, which is gradient boosting's pseudo-residual for lambda = 1: samples the others
already answer weigh least. After the turns all members take one step on the sum's own loss (the global rectification).
Only the newest member of each modality is kept, as in the paper.

lambda. The authors' code weighs CE and reconcilement 5 : 1 (CREMA-D), 4 : 1 (AVE, ModelNet40) and 1 : 0.25 (MOSI,
MOSEI), which is lambda = 0.2 to 0.25. Of the sum over k it keeps the true class's term alone, (1 - lambda q_y) CE,
which cannot fall below zero. The whole sum can: -lambda q on a wrong class rewards pushing its probability down for
ever, and a member that can rule the class out does (seen: a loss of -2 and falling). So below a probability of 1e-3,
a floor of ours, there is no more reward.

Decided: turns and rectification within a batch, so that every modality sees the data once an epoch whatever their
number; the authors' code gives a modality 4 epochs, then all of them 4 epochs of rectification, hence M times as much
of that per turn, and starts from uni-modally trained members with one head for all of them. Here members start fresh,
as every method's learners do, and have heads of their own. The memory consolidation term is left out: in the authors'
code it compares with the modality trained before, and both sides are detached, so that it has no gradient.

Frozen features. A member is a learner over cached tokens with its own classifier, the late average's; what it can take
from the residual is limited by the frozen features, so that a weak modality fits the strong one's noise sooner.

Missing modalities: a member learns from the samples that have it; where a sample has nothing else, q is left out and
the loss is the plain cross-entropy. The sum over the present ones is scaled by M over their number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..batch import Inputs
from ..head.switches import Share
from .base import Losses, Method, MethodOutput, Shape, Stage, Step
from .joint import BalanceConfig
from .late import Late

RULED_OUT = 1e-3


@dataclass(frozen=True)
class ReconBoostConfig(BalanceConfig):
    """reconcile: lambda in [0, 1). rectify: whether all members then take a step on the sum's loss."""

    names: ClassVar[tuple[str, ...]] = ("reconboost",)
    version: ClassVar[int] = 2  # 1: reward without end for ruling out a wrong class
    classes_for: ClassVar[str] = "ReconBoost fits what is left of class probabilities"
    reconcile: Share = 0.25
    rectify: bool = True

    def build(self, shape: Shape) -> Method:
        return ReconBoost(self, shape)


class ReconBoost(Late):
    """The late average's members, summed, learning in turn."""

    def __init__(self, config: ReconBoostConfig, shape: Shape) -> None:
        super().__init__(config, shape)
        self.config = config

    def forward(self, inputs: Inputs) -> MethodOutput:
        answer = boosted(*self.outputs(inputs))
        return MethodOutput(answer, answer)

    def update(self, stage: Stage, step: Step) -> Losses:
        inputs, residuals = step.inputs(), {}
        with torch.no_grad(), step.autocast():
            logits, present = self.outputs(inputs)
        for i, modality in enumerate(self.members):
            having = inputs.having(modality)
            if not having.count:
                continue
            shown = having.of(inputs.tokens[modality]), having.of(inputs.masks[modality]), inputs.totals.get(modality)
            others = present.clone()
            others[:, i] = False
            with step.autocast():
                own = self.members[modality](*shown)
                answered = having.of((logits * others).sum(dim=1)).float().softmax(dim=1) * having.of(others.any(dim=1))
                loss = residual_loss(own, having.of(step.targets), self.config.reconcile * answered)
            step.descend(loss)
            residuals[f"residual_{modality}"] = loss.detach()
            # The members after this one see its newest answers.
            with torch.no_grad(), step.autocast():
                logits[having.index, i] = self.members[modality](*shown).to(logits.dtype)
        with step.autocast():
            task = step.criterion(boosted(*self.outputs(inputs)), step.targets)
        if self.config.rectify:
            step.descend(task)
        return {"loss": task, "task": task, **residuals}


def residual_loss(logits: Tensor, targets: Tensor, answered: Tensor) -> Tensor:
    """-mean sum_k (y_k - answered_k) ln softmax(f)_k, the negative part down to 1e-3.

    logits, answered (N, C), targets (N,).
    """
    wanted = torch.nn.functional.one_hot(targets, logits.shape[1]) - answered
    log_p = logits.float().log_softmax(dim=1)
    terms = wanted.clamp(min=0) * log_p + wanted.clamp(max=0) * log_p.clamp(min=math.log(RULED_OUT))
    return -terms.sum(dim=1).mean()


def boosted(logits: Tensor, present: Tensor) -> Tensor:
    """The answer (B, C): the sum over present modalities, M over their number times. (B, M, C), (B, M, 1)."""
    scale = present.shape[1] / present.sum(dim=1).clamp(min=1)
    return (logits * present).sum(dim=1) * scale
