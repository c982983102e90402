"""UMT: uni-modal teacher (Du et al., "On Uni-Modal Feature Learning in Supervised Multi-Modal Learning", ICML 2023).

Joint training stops learning a modality's features once another one explains the labels. So each modality first gets
a network trained alone, and its frozen features t_m are the target of the joint model's features h_m:

    L = L^T(joint answer) + lambda sum_m mean_i ||h_m(x_i) - t_m(x_i)||^2 / D

(features before the classifier, by their mean squared error). One stage a teacher, on its modality alone, selected by
its own validation score; then the stage of the joint model, which starts from fresh weights. Only the joint model
answers. lambda is 1, as in BalanceBenchmark's UMT; which is best depends on the scale of the features.

Frozen features. The paper's teachers are whole encoders; here teacher and student are learners of the same size over
the same cached tokens, so a teacher cannot hold more than a learner can extract: what is left to gain is only what
joint training fails to extract. Costs the ensemble's training on top of the joint one's, and twice the parameters,
teachers included in the count, while training; answers cost no more than the joint network's.

Missing modalities: teachers are trained on, and students are compared for, the samples that have the modality.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..batch import Inputs
from ..head.switches import Weight
from ..protocol import Protocol
from .base import Losses, Method, MethodOutput, Shape, Stage, Step
from .joint import BalanceConfig, Joint, present_loss
from .trunk import Trunk, TrunkConfig


@dataclass(frozen=True)
class UMTConfig(BalanceConfig):
    """distil: lambda, the weight of the teachers' features."""

    names: ClassVar[tuple[str, ...]] = ("umt",)
    distil: Weight = 1.0

    def build(self, shape: Shape) -> Method:
        return UMT(self, shape)


class Teacher(nn.Module):
    """One modality's learner with a classifier of its own: (B, S, D) tokens and mask to vector and logits."""

    def __init__(self, width: int, outputs: int, config: TrunkConfig) -> None:
        super().__init__()
        self.trunk = Trunk(width, config)
        self.head = nn.Linear(config.dim, outputs)

    def forward(self, tokens: Tensor, mask: Tensor, total: int | None = None) -> tuple[Tensor, Tensor]:
        vectors = self.trunk(tokens, mask, total)
        return vectors, self.head(vectors)


class UMT(Joint):
    """The joint network and the teachers; shown one modality only (as in a teacher's stage), its teacher answers."""

    def __init__(self, config: UMTConfig, shape: Shape) -> None:
        super().__init__(config, shape)
        self.distil = config.distil
        self.teachers = nn.ModuleDict({m: Teacher(w, shape.outputs, config) for m, w in shape.widths.items()})

    def stages(self, protocol: Protocol) -> tuple[Stage, ...]:
        alone = (Stage(f"teacher-{m}", protocol.budget, modality=m, part=f"teachers.{m}") for m in self.teachers)
        return (*alone, Stage("task", protocol.budget))

    def forward(self, inputs: Inputs) -> MethodOutput:
        if len(inputs.tokens) == len(self.teachers):
            return super().forward(inputs)
        (modality,) = inputs.tokens
        total = inputs.totals.get(modality)
        vectors, logits = self.teachers[modality](inputs.tokens[modality], inputs.masks[modality], total)
        return MethodOutput(logits, vectors)

    def update(self, stage: Stage, step: Step) -> Losses:
        return self.learn(step) if stage.modality is None else self.teach(stage.modality, step)

    def teach(self, modality: str, step: Step) -> Losses:
        """A teacher's step; none where no sample of the batch has its modality."""
        inputs = step.inputs()
        with step.autocast():
            loss = present_loss(step.criterion, self(inputs).logits, step.targets, inputs.having(modality))
        if loss is None:
            return {}
        step.descend(loss)
        return {"loss": loss, "task": loss}

    def learn(self, step: Step) -> Losses:
        """The joint model's step; the teachers stand still, as they get no gradients."""
        inputs = step.inputs()
        with step.autocast():
            parts = self.parts(inputs)
            task = step.criterion(self.combined(parts), step.targets)
            distance = feature_distance(parts.vectors, self.taught(inputs), parts.present)
            loss = task + self.distil * distance
        step.descend(loss)
        return {"loss": loss, "task": task, "distil": distance}

    @torch.no_grad()
    def taught(self, inputs: Inputs) -> Tensor:
        """The teachers' vectors (B, M, D), without dropout."""
        self.teachers.eval()
        named, totals = self.teachers.items(), inputs.totals
        return torch.stack([t(inputs.tokens[m], inputs.masks[m], totals.get(m))[0] for m, t in named], dim=1)


def feature_distance(students: Tensor, teachers: Tensor, present: Tensor) -> Tensor:
    """Mean squared difference over each modality's samples, summed over modalities: () from (B, M, D) and (B, M)."""
    squares = (students.float() - teachers.float()).square().mean(dim=2) * present
    return (squares.sum(dim=0) / present.sum(dim=0).clamp(min=1)).sum()
