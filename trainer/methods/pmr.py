"""PMR: prototypical modal rebalance (Fan et al., CVPR 2023).

Equations. c_k^m is modality m's prototype of class k, the mean vector of its samples. A sample's nearness gives class
probabilities, p_m(k) proportional to exp(-||h_m - c_k^m||), a cross-entropy against them, and a score of the modality:

    L_PCE^m = mean_i -ln p_m(y_i),    s_m = mean_i p_m(y_i),    r_m = s_m / mean_{n != m} s_n

    slow      beta_m  = clip(1 / r_m - 1, 0, 1)    pulls a slow modality to its prototypes
    dominant  gamma_m = clip(r_m - 1, 0, 1)        raises a dominant one's entropy H(p_m) early on

    L = L^T(joint answer) + pmr_alpha sum_m beta_m L_PCE^m - pmr_mu sum_m gamma_m H(p_m)

the last term during the first `undecided` epochs. For two modalities r_m is the paper's ratio; for more it is ours.

The authors' code differs: beta_m is 1 for the slower modality and 0 for the other, the entropy term is not in it, and
the pull ends at epoch 100 of 150; the clipped coefficients and the entropy are in BalanceBenchmark's PMR. Here the
pull goes on to the end. pmr_alpha = 1 and momentum = 0.2 (of the older prototypes) are the authors' defaults; pmr_mu
and `undecided` are ours (BalanceBenchmark: 0.01 of a sum over the batch, 10 of 70 epochs).

Decided: prototypes are means over the epoch's own training passes (no pass more), blended with the older ones by
`momentum`; the first epoch has none and is plain. The authors' code makes another pass, without dropout, over a tenth
of the training batches before the first epoch and after each; where it takes the validation split instead, this does
not. Prototypes and the running sums lie in buffers, hence in the checkpoint.

Frozen features. Prototypes of good frozen features are good from the first epoch, so that r_m says which encoder suits
the task more than which learner is ahead; the pull then costs little and gains little. Distances are of the learner's
vectors, whose scale LayerNorm in the trunk bounds.

Missing modalities: every mean is over the samples that have m; a class whose prototype is unknown takes no part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..head.switches import Count, Share, Weight
from .base import Look, Losses, Method, Shape, Stage, Step
from .joint import BalanceConfig, Joint, Parts, mean_present, others_mean

FAR = -1e30  # infinity would give nan where no class is known yet


@dataclass(frozen=True)
class PMRConfig(BalanceConfig):
    """pmr_alpha: weight of the pull. pmr_mu: of the entropy, for `undecided` epochs. momentum: of older prototypes."""

    names: ClassVar[tuple[str, ...]] = ("pmr",)
    version: ClassVar[int] = 2  # 1: means over the chosen rows alone, rounded in another order
    classes_for: ClassVar[str] = "PMR keeps a prototype of every class"
    pmr_alpha: Weight = 1.0
    pmr_mu: Weight = 0.1
    undecided: Count = 4
    momentum: Share = 0.2

    def build(self, shape: Shape) -> Method:
        return PMR(self, shape)


class PMR(Joint):
    """The joint network with prototypes (M, C, D), which of them are known (M, C), and the epoch's sums and counts."""

    prototypes: Tensor
    known: Tensor
    sums: Tensor
    counts: Tensor

    def __init__(self, config: PMRConfig, shape: Shape) -> None:
        super().__init__(config, shape)
        self.config = config
        size = (len(shape.widths), shape.outputs)
        self.register_buffer("prototypes", torch.zeros(*size, config.dim))
        self.register_buffer("known", torch.zeros(*size, dtype=torch.bool))
        self.register_buffer("sums", torch.zeros(*size, config.dim))
        self.register_buffer("counts", torch.zeros(*size))

    def update(self, stage: Stage, step: Step) -> Losses:
        with step.autocast():
            parts = self.parts(step.inputs())
            task = step.criterion(self.combined(parts), step.targets)
        pull, entropy = self.rebalancing(parts, step.targets)
        loss = task + self.config.pmr_alpha * pull
        if step.epoch < self.config.undecided:
            loss = loss - self.config.pmr_mu * entropy
        step.descend(loss)
        self.gather(parts, step.targets)
        return {"loss": loss, "task": task, "prototypes": pull, "entropy": entropy}

    def rebalancing(self, parts: Parts, targets: Tensor) -> tuple[Tensor, Tensor]:
        """sum_m beta_m L_PCE^m and sum_m gamma_m H(p_m)."""
        pulls, entropies, scores = [], [], []
        for m in range(parts.vectors.shape[1]):
            useful = parts.present[:, m] & self.known[m, targets]
            log_p = nearness(parts.vectors[:, m].float(), self.prototypes[m], self.known[m])
            true = log_p.gather(1, targets.unsqueeze(1)).squeeze(1).masked_fill(~useful, 0.0)
            entropy = -(log_p.exp() * log_p.masked_fill(~self.known[m], 0.0)).sum(dim=1)
            pulls.append(-mean_present(true, useful))
            entropies.append(mean_present(entropy, useful))
            scores.append(mean_present(true.detach().exp(), useful))
        slow, dominant = rebalance(torch.stack(scores))
        return (slow * torch.stack(pulls)).sum(), (dominant * torch.stack(entropies)).sum()

    @torch.no_grad()
    def gather(self, parts: Parts, targets: Tensor) -> None:
        """Add a batch's vectors to the sums of their classes."""
        for m in range(parts.vectors.shape[1]):
            has = parts.present[:, m].to(self.counts.dtype)
            vectors = parts.vectors[:, m].detach().to(self.sums.dtype)
            self.sums[m].index_add_(0, targets, vectors * has.unsqueeze(1))
            self.counts[m].index_add_(0, targets, has)

    def between_epochs(self, stage: Stage, look: Look) -> None:
        """Prototypes from the epoch's sums, which start anew."""
        seen = self.counts > 0
        means = self.sums / self.counts.clamp(min=1).unsqueeze(-1)
        old = torch.where(self.known.unsqueeze(-1), self.config.momentum, 0.0)
        blended = old * self.prototypes + (1 - old) * means
        self.prototypes.copy_(torch.where(seen.unsqueeze(-1), blended, self.prototypes))
        self.known.logical_or_(seen)
        self.sums.zero_()
        self.counts.zero_()


def nearness(vectors: Tensor, prototypes: Tensor, known: Tensor) -> Tensor:
    """ln p (N, C) of vectors (N, D) against prototypes (C, D); far below any other for an unknown one."""
    # The square root's slope is infinite at zero distance, which a class of one sample reaches.
    squares = (vectors[:, None] - prototypes).square().sum(dim=2)
    return (-(squares + 1e-12).sqrt()).masked_fill(~known, FAR).log_softmax(dim=1)


def rebalance(scores: Tensor) -> tuple[Tensor, Tensor]:
    """beta and gamma (M,) from s (M,); zero for a modality without a score, or without one to compare it with."""
    others = others_mean(scores)
    both = (scores > 0) & (others > 0)
    ratio = torch.where(both, scores / others.clamp(min=1e-12), 1.0)
    return (1 / ratio - 1).clamp(0, 1), (ratio - 1).clamp(0, 1)
