"""One modality alone: the row every fusion has to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from torch import nn

from ..batch import Inputs
from ..head.switches import OF_THE_DATA, changed
from .base import Method, MethodConfig, MethodOutput, Settings, Shape
from .trunk import Trunk, TrunkConfig, classifier


@dataclass(frozen=True)
class SingleConfig(TrunkConfig):
    """`modality`: the one that is used."""

    names: ClassVar[tuple[str, ...]] = ("single",)
    modality: Annotated[str, OF_THE_DATA] = ""

    @classmethod
    def offered(cls, modalities: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
        """A name a modality."""
        return {f"single:{modality}": (modality,) for modality in modalities}

    @classmethod
    def made(cls, name: str, preset: str, shape: Shape, settings: Settings) -> tuple[MethodConfig, dict[str, Any]]:
        """Of the one modality there is."""
        (modality,) = shape.modalities
        return changed(cls(**cls.presets.get(preset, {}), modality=modality), settings)

    @property
    def own_name(self) -> str:
        return f"single:{self.modality}"

    def build(self, shape: Shape) -> Method:
        return Single(self, shape)


class Single(Method):
    """Trunk and classifier of one modality; a sample that lacks it gets the classifier's answer to a zero vector."""

    def __init__(self, config: SingleConfig, shape: Shape) -> None:
        super().__init__()
        self.modality = config.modality
        self.trunk = Trunk(shape.widths[config.modality], config)
        self.fuse, self.head = classifier(config.dim, config.dim, shape.outputs, config.dropout)

    def encoders(self) -> Mapping[str, nn.Module]:
        return {self.modality: self.trunk}

    def forward(self, inputs: Inputs) -> MethodOutput:
        m = self.modality
        fused = self.fuse(self.trunk(inputs.tokens[m], inputs.masks[m], inputs.totals.get(m)))
        return MethodOutput(self.head(fused), fused)
