"""Uni-modally pre-trained ensemble: every modality's network is trained alone, then their outputs are averaged.

The strongest cheap competitor on frozen features, and missing from most comparisons. One stage a modality, each
selected on that modality's own validation score; nothing is trained jointly. Every member gets as many epochs as any
other method.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..batch import Inputs
from ..protocol import Protocol
from .base import Method, Shape, Stage
from .late import Late
from .trunk import TrunkConfig


@dataclass(frozen=True)
class EnsembleConfig(TrunkConfig):
    names: ClassVar[tuple[str, ...]] = ("ensemble",)

    def build(self, shape: Shape) -> Method:
        return Ensemble(self, shape)


class Ensemble(Late):
    """Late average whose members never see each other while they are trained."""

    def modality_vectors(self, inputs: Inputs) -> Mapping[str, Tensor]:
        """None: members trained apart share no space."""
        return {}

    def stages(self, protocol: Protocol) -> tuple[Stage, ...]:
        return tuple(Stage(f"alone-{m}", protocol.budget, modality=m, part=f"members.{m}") for m in self.members)
