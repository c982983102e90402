"""Alternating turns on one shared head: MLA's training, which the methods mla and pgm+mla have in common.

In a batch every modality has its turn, in a stated order. Its loss moves its own learner and the shared head, which
the turns before have already moved; a modality that no sample of the batch has loses its turn.

Decided: one AdamW whose gradients are None outside the turn. AdamW keeps its moments per parameter and skips what has
no gradient, so for the learners this is one optimiser a modality, without the drift of the released code, where
momentum and weight decay move every learner in every turn. The head has one set of moments.
`projection`: the paper multiplies the head's gradient by P, which is exact for plain SGD. AdamW divides each element
by its own scale and adds older gradients, so the step no longer is the projected one; "update" multiplies what the
optimiser did to the weight by P instead, which is the same for SGD and keeps the defining property for any optimiser.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...cache.errors import UserError
from ...cache.nearest import did_you_mean
from ..head.switches import Switches
from .base import Losses, Step
from .hgm import Normalise, Projector, Ridge, alpha_at

Preset = Literal["corrected", "paper", "as_released"]


@dataclass(frozen=True)
class AlternationConfig(Switches):
    """How turns go. The preset sets the others (mla.py); each can be set beside it.

    hgm: head gradient modification off, or by recursive least squares (hgm.py). statistics: the means that P holds when
    it is applied: those of the turns before ("previous"), or this turn's as well ("current", the released code).
    normalise: of P. ridge: alpha's schedule. projection: what P multiplies. order: of the modalities in a batch:
    "fixed" (the dataset's, by name), "reversed", "random", "released", or all of them by name, "vision+text".
    """

    mla_preset: Preset = "corrected"
    hgm: Literal["rls", "off"] = "rls"
    statistics: Literal["previous", "current"] = "previous"
    normalise: Normalise = "none"
    ridge: Ridge = "released"
    projection: Literal["update", "gradient"] = "update"
    order: str = "fixed"

    def check_order(self, modalities: Sequence[str]) -> None:
        """Raise UserError for an order that is none of these modalities."""
        if self.order not in ORDERS and sorted(self.order.split("+")) != sorted(modalities):
            raise UserError(
                f"order is one of {', '.join(ORDERS)}, or every modality once ({'+'.join(reversed(modalities))}), not "
                f"{self.order!r}.{did_you_mean(self.order, [*ORDERS, '+'.join(modalities)])}"
            )


ORDERS = ("fixed", "reversed", "random", "released")
# The slots of the released code, turn by turn.
SLOTS = {"audio": 0, "vision": 1, "visual": 1, "image": 1, "video": 1, "text": 2}
ALTERNATION: Mapping[str, Mapping[str, Any]] = {
    "corrected": {},
    "paper": {"ridge": "constant", "projection": "gradient"},
    "as_released": {"hgm": "off", "order": "released"},
}


def turns(modalities: Sequence[str], order: str) -> list[str]:
    """The modalities in the order of one batch; a random one follows from torch's generator, hence from the epoch."""
    if order == "random":
        return [modalities[i] for i in torch.randperm(len(modalities)).tolist()]
    if order == "released":
        return released(modalities)
    if order in ORDERS:
        return list(reversed(modalities)) if order == "reversed" else list(modalities)
    return order.split("+")


def released(modalities: Sequence[str]) -> list[str]:
    """Audio, visual, text; the configurations of image and text alone put the text in the audio slot, hence first.

    A modality the released code has no slot for comes last.
    """
    slots = SLOTS if "audio" in modalities else {**SLOTS, "text": SLOTS["audio"]}
    return sorted(modalities, key=lambda m: slots.get(m, len(SLOTS)))


class SharedHead(nn.Module):
    """One linear layer (B, D) -> (B, outputs) for every modality, and the projector of its turns."""

    turn_count: Tensor

    def __init__(self, dim: int, outputs: int, config: AlternationConfig) -> None:
        super().__init__()
        self.config = config
        self.linear = nn.Linear(dim, outputs)
        self.projector = Projector(dim, config.normalise) if config.hgm == "rls" else None
        self.register_buffer("turn_count", torch.zeros((), dtype=torch.int64))

    def forward(self, vectors: Tensor) -> Tensor:
        logits: Tensor = self.linear(vectors)
        return logits

    @property
    def reported(self) -> Losses:
        """What of the projector is worth a line in the metrics."""
        return {} if self.projector is None else {"hgm_free": self.projector.free}

    def turn(
        self,
        step: Step,
        vectors_of: Callable[[], Tensor],
        targets: Tensor,
        only: Sequence[nn.Parameter] | None = None,
    ) -> Tensor:
        """One modality's turn: its loss, which is returned detached, and one step of its learner and of this head.

        vectors_of: computes the modality's vectors (B', D), with their graph; targets (B',); B' >= 1. only: what moves.
        """
        with step.autocast():
            vectors = vectors_of()
            loss = step.criterion(self(vectors), targets)
        step.gradients(loss, only)
        if self.projector is None:
            step.optimiser.step()
        else:
            self.projected_step(step, self.projector, vectors.detach().float().mean(dim=0))
        return loss.detach()

    @torch.no_grad()
    def projected_step(self, step: Step, projector: Projector, mean: Tensor) -> None:
        """The optimiser's step with the head's part multiplied by P; the bias and the learner step as they are."""
        alpha = alpha_at(self.config.ridge, step.done)
        current = self.config.statistics == "current"
        # The first step of the run is plain and, in the released order, leaves nothing in P. Whether it is the first
        # is chosen on the device: the host would have to wait for it.
        first = self.turn_count == 0
        if current:
            projector.observe(mean, alpha, unless=first)
        weight = self.linear.weight
        if self.config.projection == "gradient":
            assert weight.grad is not None
            weight.grad = torch.where(first, weight.grad, projector.project(weight.grad))
            step.optimiser.step()
        else:
            before = weight.clone()
            step.optimiser.step()
            weight.copy_(torch.where(first, weight, before + projector.project(weight - before)))
        if not current:
            projector.observe(mean, alpha)
        self.turn_count += 1
