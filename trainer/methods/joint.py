"""The network the balance methods share: a trunk a modality and ONE linear classifier over all their vectors.

W [h_1; ...; h_M] + b is kept as a block W_m a modality, so that W_m h_m, modality m's part of the answer, can be read
off; OGM-GE and its kin are defined on it. A sample's missing modalities are skipped and the parts of the rest scaled
by M over their number. Trained plainly it is the method `joint`: what a balance method must be held against, because
it differs by the balancing alone (concat has a two-layer classifier).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ...cache.errors import UserError
from ..batch import Having, Inputs
from .base import Criterion, Method, MethodOutput, Shape
from .trunk import TrunkConfig, encode


@dataclass(frozen=True)
class JointConfig(TrunkConfig):
    names: ClassVar[tuple[str, ...]] = ("joint",)
    several: ClassVar[bool] = True

    def build(self, shape: Shape) -> Method:
        return Joint(self, shape)


@dataclass(frozen=True)
class BalanceConfig(TrunkConfig):
    """Sizes of a method that trains by more than the task's loss. `classes_for`: why it cannot predict a score."""

    several: ClassVar[bool] = True
    retrieves: ClassVar[bool] = False
    classes_for: ClassVar[str] = ""

    def check(self, shape: Shape) -> None:
        """Raise UserError for a task without classes where the method is defined on class probabilities."""
        if self.classes_for and shape.outputs < 2:
            raise UserError(
                f"This task predicts a score, and {self.classes_for}. "
                "Use --set sentiment=classes, or a method that needs no classes (concat, umt, gblend, mmpareto)."
            )


class Parts(NamedTuple):
    """vectors: (B, M, D); logits: (B, M, C), W_m h_m without the bias; present: (B, M) bool; having: the same, M."""

    vectors: Tensor
    logits: Tensor
    present: Tensor
    having: tuple[Having, ...]


class Joint(Method):
    """Parts of the answer a modality, and their sum."""

    def __init__(self, config: TrunkConfig, shape: Shape) -> None:
        super().__init__()
        self.trunks = config.trunks(shape.widths)
        self.heads = nn.ModuleDict({m: nn.Linear(config.dim, shape.outputs, bias=False) for m in shape.widths})
        self.bias = nn.Parameter(torch.zeros(shape.outputs))

    def parts(self, inputs: Inputs) -> Parts:
        """Every modality's vector, its part of the answer, and whether it is there."""
        vectors, present = encode(self.trunks, inputs)
        logits = [self.heads[m](vectors[:, i]) for i, m in enumerate(self.heads)]
        having = tuple(inputs.having(m) for m in self.heads)
        return Parts(vectors, torch.stack(logits, dim=1), present, having)

    def combined(self, parts: Parts) -> Tensor:
        """The answer (B, C)."""
        share = parts.present.shape[1] / parts.present.sum(dim=1, keepdim=True).clamp(min=1)
        return (parts.logits * parts.present.unsqueeze(-1)).sum(dim=1) * share + self.bias

    def forward(self, inputs: Inputs) -> MethodOutput:
        parts = self.parts(inputs)
        return MethodOutput(self.combined(parts), parts.vectors.flatten(1))


def present_loss(criterion: Criterion, logits: Tensor, targets: Tensor, having: Having) -> Tensor | None:
    """The task's loss over the samples that have a modality; None where none has. logits (B, C), targets (B,)."""
    return criterion(having.of(logits), having.of(targets)) if having.count else None


def mean_present(values: Tensor, present: Tensor) -> Tensor:
    """Mean over the samples that have each modality: (M,) from (B, M); 0 where none has."""
    return (values * present).sum(dim=0) / present.sum(dim=0).clamp(min=1)


def others_mean(scores: Tensor) -> Tensor:
    """For every modality the mean of the others' scores: (M,) from (M,); the other's score where there are two."""
    return (scores.sum() - scores) / (len(scores) - 1)
