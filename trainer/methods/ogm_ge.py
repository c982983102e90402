"""OGM-GE: on-the-fly gradient modulation with generalisation enhancement (Peng et al., CVPR 2022).

Equations. With one linear classifier over concatenated vectors, modality m's own score of a batch is

    s_m = mean_i softmax(W_m h_m + b / M)[y_i],    rho_m = s_m / mean_{n != m} s_n

(for two modalities rho is the paper's ratio; it has no formula for more, where BalanceBenchmark divides by the
smallest score). The dominant modality's learner is slowed down, the others' are not (eq. 10):

    k_m = 1 - tanh(alpha rho_m)  where rho_m > 1,  else 1
    theta_m <- theta_m - eta (k_m g_m + noise),    noise ~ N(0, deviation of g_m's elements)

The noise (GE) stands for the gradient noise that smaller steps lose; every learner gets it, slowed or not. The
classifier is not modulated. Deviations are per parameter tensor.

Defaults. The authors' code asks for alpha (its page: 0.1 for VGGSound, 0.8 for CREMA-D; 0.3 lies between) and stops
modulating after epoch 50 of 100. Here modulation goes on to the end: trainings are short, and the epoch whose weights
are kept is chosen on validation.

Frozen features. The authors' code modulates the convolutions of its encoders; here the whole learner over cached
tokens is what is slowed, and the dominance it sees is that of the frozen encoders' features, which no gradient can
mend. It trains with SGD. AdamW divides a gradient by its own running size, so a factor on it nearly cancels; the
default `modulate=update` applies k and noise to the step AdamW takes, which for SGD without momentum is the same, and
`modulate=gradient` applies them to the gradient as printed.

Missing modalities: s_m is the mean over the samples that have m; one without any in a batch is not compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ..head.switches import Weight
from .base import Losses, Method, Shape, Stage, Step
from .joint import BalanceConfig, Joint, Parts, mean_present, others_mean


@dataclass(frozen=True)
class OGMGEConfig(BalanceConfig):
    """ogm_alpha: how strongly a dominant learner is slowed. noise: GE. modulate: what k multiplies."""

    names: ClassVar[tuple[str, ...]] = ("ogm_ge",)
    classes_for: ClassVar[str] = "OGM-GE compares the modalities' probabilities of the true class"
    ogm_alpha: Weight = 0.3
    noise: bool = True
    modulate: Literal["update", "gradient"] = "update"

    def build(self, shape: Shape) -> Method:
        return OGMGE(self, shape)


class OGMGE(Joint):
    """The joint network with modulated learners."""

    def __init__(self, config: OGMGEConfig, shape: Shape) -> None:
        super().__init__(config, shape)
        self.config = config

    def scores(self, parts: Parts, targets: Tensor) -> Tensor:
        """s_m (M,): the mean probability each modality alone gives the true class."""
        own = (parts.logits + self.bias / parts.logits.shape[1]).float().softmax(dim=-1)
        truth = targets[:, None, None].expand(-1, own.shape[1], 1)
        return mean_present(own.gather(2, truth).squeeze(2), parts.present)

    def update(self, stage: Stage, step: Step) -> Losses:
        with step.autocast():
            parts = self.parts(step.inputs())
            loss = step.criterion(self.combined(parts), step.targets)
        scores = self.scores(parts, step.targets).detach()
        rates = coefficients(scores, self.config.ogm_alpha)
        step.gradients(loss)
        groups = [(list(trunk.parameters()), k) for trunk, k in zip(self.trunks.values(), rates, strict=True)]
        if self.config.modulate == "gradient":
            modulate_gradients(groups, self.config.noise)
            step.optimiser.step()
        else:
            modulated_step(step, groups, self.config.noise)
        return {"loss": loss, "task": loss, **{f"rate_{m}": k for m, k in zip(self.trunks, rates, strict=True)}}


def coefficients(scores: Tensor, alpha: float) -> Tensor:
    """k_m (M,) from s_m (M,); 1 for a modality that no sample of the batch has, and for one that is not dominant."""
    others = others_mean(scores)
    ratio = torch.where((scores > 0) & (others > 0), scores / others.clamp(min=1e-12), 1.0)
    return torch.where(ratio > 1, 1 - torch.tanh(alpha * ratio), 1.0)


Groups = Sequence[tuple[list[nn.Parameter], Tensor]]


@torch.no_grad()
def modulate_gradients(groups: Groups, noise: bool) -> None:
    """g <- k g + noise, for each group of parameters and its k."""
    for parameters, k in groups:
        for parameter in parameters:
            if parameter.grad is not None:
                noise_size = deviation(parameter.grad)
                parameter.grad.mul_(k)
                if noise:
                    parameter.grad.add_(torch.randn_like(parameter.grad) * noise_size)


@torch.no_grad()
def modulated_step(step: Step, groups: Groups, noise: bool) -> None:
    """One step of the optimiser, of which each group takes k times its own, plus noise."""
    before = [[p.clone() for p in parameters] for parameters, _ in groups]
    step.optimiser.step()
    for (parameters, k), earlier in zip(groups, before, strict=True):
        for parameter, start in zip(parameters, earlier, strict=True):
            if parameter.grad is not None:
                change = parameter - start
                extra = torch.randn_like(change) * deviation(change) if noise else 0.0
                parameter.copy_(start + k * change + extra)


def deviation(values: Tensor) -> Tensor:
    """Standard deviation of a tensor's elements; 0 for a single one."""
    return values.std() if values.numel() > 1 else values.new_zeros(())
