"""QMF: quality-aware multi-modal fusion, late fusion weighted by energy (Zhang et al., ICML 2023).

Equations. Each modality has a classifier f_m. Its confidence in a sample is its negative energy, and the answer is the
confidence-weighted sum of the logits:

    w_m(x) = (log sum_k exp f_m(x)_k) / T,    f(x) = M / |present| sum_{m present} w_m(x) f_m(x)

The weights carry no gradient. Training: L = L^T(f) + sum_m L^T(f_m) + lambda sum_m L_rank, where L_rank asks that of
two samples the one the modality finds harder gets the lower confidence. With kappa_i the sample's own loss under
modality m, scaled to [0, 1], and neighbours i, j in the batch (a batch rolled by one):

    L_rank = mean max(0, sign(kappa_i - kappa_j) (w_i - w_j) + |kappa_i - kappa_j|)

In this term alone the confidence does carry a gradient. The authors' code has T = 10 and lambda = 1, as here; it sums
kappa over the training so far and scales by the least and the greatest of all training samples. That needs a table of
all samples in the checkpoint: here kappa is the loss of the current step, scaled by the batch's extremes. In that code
the sign before |kappa_i - kappa_j| comes out as minus, which forgives a wrong order up to a margin instead of asking
for one; the plus is that of the ranking loss it builds on (Moon et al., ICML 2020). The authors' image-text model keeps
gradients out of the weights, as here; their RGB-D model does not.

Frozen features. Confidence is about the learner over the cached tokens; noise the frozen encoder has already absorbed
or amplified cannot be seen by it.

Missing modalities are skipped in the fusion and in every loss; the scale keeps complete and incomplete samples alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..batch import Inputs
from ..head.switches import Weight
from .base import Losses, Method, MethodOutput, Shape, Stage, Step
from .joint import BalanceConfig, present_loss
from .late import Late

TEMPERATURE = 10.0
SMALLEST = 1e-6  # of the spread of a batch's losses


@dataclass(frozen=True)
class QMFConfig(BalanceConfig):
    """ranking: lambda, the weight of the confidence's order."""

    names: ClassVar[tuple[str, ...]] = ("qmf",)
    version: ClassVar[int] = 2  # 1: confidences ranked by losses in nats
    classes_for: ClassVar[str] = "QMF weights modalities by the energy of their class logits"
    ranking: Weight = 1.0

    def build(self, shape: Shape) -> Method:
        return QMF(self, shape)


class QMF(Late):
    """The members of the late average, weighted by their confidence in each sample."""

    def __init__(self, config: QMFConfig, shape: Shape) -> None:
        super().__init__(config, shape)
        self.ranking = config.ranking

    def forward(self, inputs: Inputs) -> MethodOutput:
        answer = by_energy(*self.outputs(inputs))
        return MethodOutput(answer, answer)

    def update(self, stage: Stage, step: Step) -> Losses:
        with step.autocast():
            inputs = step.inputs()
            logits, present = self.outputs(inputs)
            task = step.criterion(by_energy(logits, present), step.targets)
            alone, order = logits.new_zeros(()), logits.new_zeros(())
            for m, modality in enumerate(self.members):
                having = inputs.having(modality)
                own = present_loss(step.criterion, logits[:, m], step.targets, having)
                if own is not None:
                    alone = alone + own
                    order = order + ranking_loss(having.of(logits[:, m]), having.of(step.targets))
            loss = task + alone + self.ranking * order
        step.descend(loss)
        return {"loss": loss, "task": task, "alone": alone, "ranking": order}


def confidence(logits: Tensor) -> Tensor:
    """Negative energy over T: (...) from (..., C)."""
    return logits.float().logsumexp(dim=-1) / TEMPERATURE


def by_energy(logits: Tensor, present: Tensor) -> Tensor:
    """The answer (B, C) from logits (B, M, C) and presence (B, M, 1)."""
    weights = confidence(logits.detach()).unsqueeze(-1) * present
    scale = present.shape[1] / present.sum(dim=1).clamp(min=1)
    return (weights * logits).sum(dim=1) * scale


def ranking_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """L_rank of one modality's logits (N, C); 0 for a single sample, which is its own neighbour."""
    sure = confidence(logits)
    hard = torch.nn.functional.cross_entropy(logits.detach().float(), targets, reduction="none")
    # A gap in nats would ask for energies T times as far apart, and losses have no bound.
    least, greatest = hard.aminmax()
    kappa = (hard - least) / (greatest - least).clamp(min=SMALLEST)
    gap = kappa - kappa.roll(1)
    return (gap.sign() * (sure - sure.roll(1)) + gap.abs()).clamp(min=0).mean()
