"""Late average: every modality has its own classifier, and their outputs are averaged over those a sample has.

Trained jointly, on the averaged output. The ensemble (ensemble.py) is the same network with every member trained alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..batch import Inputs
from .base import Method, MethodOutput, Shape
from .trunk import TrunkConfig, classifier


@dataclass(frozen=True)
class LateConfig(TrunkConfig):
    names: ClassVar[tuple[str, ...]] = ("late",)

    def build(self, shape: Shape) -> Method:
        return Late(self, shape)


class Member(nn.Module):
    """(B, S, D) tokens and their mask to the task outputs of one modality."""

    def __init__(self, trunk: nn.Module, dim: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.trunk = trunk
        self.fuse, self.head = classifier(dim, dim, outputs, dropout)

    def forward(self, tokens: Tensor, mask: Tensor, total: int | None = None) -> Tensor:
        logits: Tensor = self.head(self.fuse(self.trunk(tokens, mask, total)))
        return logits


class Late(Method):
    """Mean of the members' outputs; retrieval compares these outputs too, as there is no joint vector."""

    skips_missing: ClassVar[bool] = True

    def __init__(self, config: TrunkConfig, shape: Shape) -> None:
        super().__init__()
        trunks = config.trunks(shape.widths)
        self.members = nn.ModuleDict(
            {name: Member(trunks[name], config.dim, shape.outputs, config.dropout) for name in shape.widths}
        )

    def encoders(self) -> Mapping[str, nn.Module]:
        return {name: member.get_submodule("trunk") for name, member in self.members.items()}

    def outputs(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """The outputs (B, M, outputs) and presence (B, M, 1) of the members whose modality is in the batch at all."""
        shown = [name for name in self.members if name in inputs.tokens]
        totals = inputs.totals
        logits = [self.members[name](inputs.tokens[name], inputs.masks[name], totals.get(name)) for name in shown]
        present = [inputs.present(name) for name in shown]
        return torch.stack(logits, dim=1), torch.stack(present, dim=1).unsqueeze(-1)

    def forward(self, inputs: Inputs) -> MethodOutput:
        logits, present = self.outputs(inputs)
        mean = (logits * present).sum(dim=1) / present.sum(dim=1).clamp(min=1)
        return MethodOutput(mean, mean)
