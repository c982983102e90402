"""MMPareto: Pareto integration of the joint and the uni-modal gradient (Wei and Hu, ICML 2024).

Equations. Modality m's learner gets the gradient g of the joint loss and u of its own classifier's loss. Where they
agree (g . u >= 0) both count fully: d = g + u. Where they conflict, the point of their convex hull nearest to zero is
a direction that hurts neither:

    a = argmin |a g + (1 - a) u|^2 = clip((u - g) . u / |g - u|^2, 0, 1),    h = 2 (a g + (1 - a) u)
    d = h max(1, |g + u| / |h|)

d . g >= 0 and d . u >= 0. The rescaling gives the short vector the length of the plain sum, because the noise that a
large step carries is what generalises. Classifiers get the gradients of their own losses.

Left out and changed. The authors' code multiplies every d by gamma = 1.5; AdamW divides a constant factor out again,
so there is no gamma here. It rescales each parameter tensor to its part of |g + u|, which bends d away from the
direction that hurts neither; here a learner's whole d has one length.

Frozen features. "Learner" is what the paper calls the encoder: the small network over cached tokens. AdamW undoes most
of the rescaling, which is about the length of a step, and keeps the direction only up to its own scale per element; so
the guarantee holds for the gradient handed to the optimiser, and for the step under SGD.

Missing modalities: u is over the samples that have m; a modality that none has gets the joint gradient alone (zero).
Works for scores as for classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from .auxiliary import Supervised
from .base import Losses, Method, Shape, Stage, Step, clip_gradients
from .joint import BalanceConfig

SHORTEST = 1e-12


@dataclass(frozen=True)
class MMParetoConfig(BalanceConfig):
    names: ClassVar[tuple[str, ...]] = ("mmpareto",)

    def build(self, shape: Shape) -> Method:
        return MMPareto(self, shape)


class MMPareto(Supervised):
    """The joint network with auxiliary classifiers, whose two gradients meet in each learner."""

    def update(self, stage: Stage, step: Step) -> Losses:
        with step.autocast():
            parts = self.parts(step.inputs())
            task = step.criterion(self.combined(parts), step.targets)
            alone = self.losses_alone(step.criterion, parts, step.targets)
        step.optimiser.zero_grad(set_to_none=True)
        shared = [p for trunk in self.trunks.values() for p in trunk.parameters()]
        own = [p for loss_m in alone for p in self.auxiliary[loss_m].parameters()]
        uni = sum(alone.values(), torch.zeros_like(task))
        # A learner is reached by its own modality's loss only, so one pass over the sum gives every u at once.
        alone_grads = gradients_of(uni, [*shared, *own], retain=True) if alone else {}
        task.backward()  # type: ignore[no-untyped-call]
        conflicts = torch.zeros_like(task)
        for modality, trunk in self.trunks.items():
            if modality in alone:
                parameters = [p for p in trunk.parameters() if p in alone_grads and p.grad is not None]
                joint = flat([p.grad for p in parameters])
                single = flat([alone_grads[p] for p in parameters])
                conflicts = conflicts + (joint @ single < 0)
                unflatten(pareto(joint, single), parameters)
        for parameter in own:
            parameter.grad = alone_grads[parameter]
        clip_gradients(step.parameters, step.protocol.clip, step.norms)
        step.optimiser.step()
        losses = {f"task_{m}": loss for m, loss in alone.items()}
        return {"loss": task + uni, "task": task, "conflict": conflicts / len(self.trunks), **losses}


def pareto(joint: Tensor, single: Tensor) -> Tensor:
    """d (P,) from g and u (P,): their sum, or where they conflict the rescaled point of their hull nearest to zero."""
    difference = joint - single
    share = ((single - joint) @ single / difference.square().sum().clamp(min=SHORTEST)).clamp(0, 1)
    nearest = 2 * (share * joint + (1 - share) * single)
    # Of two exactly opposite gradients nothing is left to rescale.
    longer = (joint + single).norm() / nearest.norm().clamp(min=SHORTEST)
    combined = nearest * longer.clamp(min=1, max=1 / SHORTEST**0.5)
    return torch.where(joint @ single >= 0, joint + single, combined)


def gradients_of(loss: Tensor, parameters: Sequence[nn.Parameter], retain: bool) -> dict[nn.Parameter, Tensor]:
    """The gradients of a loss, of the parameters it reaches."""
    found = torch.autograd.grad(loss, list(parameters), retain_graph=retain, allow_unused=True)
    return {p: g for p, g in zip(parameters, found, strict=True) if g is not None}


def flat(tensors: Sequence[Tensor | None]) -> Tensor:
    """All elements in one vector."""
    return torch.cat([t.flatten() for t in tensors if t is not None])


def unflatten(vector: Tensor, parameters: Sequence[nn.Parameter]) -> None:
    """The inverse of `flat`, into the parameters' gradients."""
    for parameter, piece in zip(parameters, torch.split(vector, [p.numel() for p in parameters]), strict=True):
        parameter.grad = piece.view_as(parameter).clone()
