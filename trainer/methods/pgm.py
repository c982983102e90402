"""PgM as a method: the partitioner-guided head of trainer/head and the fusion head on top, trained in two stages.

Stage 1 minimises L^P (eq. 11) without labels and never touches the fusion head, so what it leaves depends on the PgM
configuration alone and runs that differ in the fusion share it. Stage 2 minimises alpha L^P + beta L^T (eq. 12).
An ablation that leaves nothing of L^P trains its epochs on the task instead, so that it has as many as the others.
Learning rates by module: learners 1e-4, decoder 1e-3, everything else 3e-4 (section 4.2).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from ..batch import Inputs
from ..head import FusionConfig, FusionHead, PgM, PgMConfig
from ..head.switches import changed
from ..protocol import Protocol
from .base import Method, MethodConfig, MethodOutput, Settings, Shape, Stage


@dataclasses.dataclass(frozen=True)
class PgMMethodConfig(MethodConfig):
    """The two configurations; `head.modalities` and `fusion`'s sizes are those of the dataset."""

    version: ClassVar[int] = 2  # 1: dropout drawn for u and p apart, losses an iteration at a time
    names: ClassVar[tuple[str, ...]] = ("pgm",)
    head: PgMConfig
    fusion: FusionConfig

    @classmethod
    def made(cls, name: str, preset: str, shape: Shape, settings: Settings) -> tuple[MethodConfig, dict[str, Any]]:
        """A setting that both have (dim, heads, dropout) goes to both."""
        head, fusion, rest = heads_made(preset, shape, settings)
        return cls(head, fusion), rest

    def build(self, shape: Shape) -> Method:
        return PgMMethod(self)


class PgMMethod(Method):
    """PgM and FusionHead."""

    def __init__(self, config: PgMMethodConfig) -> None:
        super().__init__()
        self.config = config
        # First, so that its initial weights do not depend on the fusion head's.
        self.pgm = PgM(config.head)
        self.fusion = FusionHead(config.fusion)

    def forward(self, inputs: Inputs) -> MethodOutput:
        return self.output(inputs, losses=self.training)

    def answer(self, inputs: Inputs) -> MethodOutput:
        """Decoder and classifiers, which serve L^P alone, do not run."""
        return self.output(inputs, losses=False)

    def output(self, inputs: Inputs, losses: bool) -> MethodOutput:
        """PgM, with its losses or without, and the fusion of what comes out."""
        parts = self.pgm(inputs.tokens, inputs.masks, losses, inputs.totals)
        output = self.fusion(parts.uni, parts.paired, parts.masks)
        pretraining = parts.pretraining_loss if parts.losses else None
        return MethodOutput(output.logits, output.fused, parts.losses, pretraining)

    def pretrain(self, inputs: Inputs) -> tuple[Tensor, Mapping[str, Tensor]]:
        parts = self.pgm(inputs.tokens, inputs.masks, True, inputs.totals)
        return parts.pretraining_loss, parts.losses

    def stages(self, protocol: Protocol) -> tuple[Stage, ...]:
        if not protocol.pretrain_epochs or not self.pretrains:
            return (Stage("task", protocol.budget),)
        shares = pretraining_of(self.config.head)
        first = Stage("pretrain", protocol.pretrain_epochs, labels=False, part="pgm", shares=shares)
        return (first, Stage("task", protocol.epochs))

    @property
    def pretrains(self) -> bool:
        """Whether any of L^P is left."""
        return has_pretraining(self.config.head)

    def modality_parameters(self) -> Mapping[str, Sequence[nn.Parameter]]:
        """Projection and partitioner, and what else is not shared (`--set share_learners=false`)."""
        pgm = self.pgm
        kinds = (pgm.projections, pgm.partitioners, pgm.uni_learners, pgm.paired_learners, pgm.decoders)
        own = {m: [p for kind in kinds if m in kind for p in kind[m].parameters()] for m in self.config.head.modalities}
        return {m: parameters for m, parameters in own.items() if parameters}

    def modality_vectors(self, inputs: Inputs) -> Mapping[str, Tensor]:
        """The fused vector of each modality alone: PgM has no pooled vector a modality before the fusion."""
        return {m: self(inputs.only(m)).fused for m in self.config.head.modalities}

    def rate(self, name: str, protocol: Protocol) -> float:
        if name.startswith(("pgm.uni_learners.", "pgm.paired_learners.")):
            return protocol.lr_learners
        return protocol.lr_decoder if name.startswith("pgm.decoders.") else protocol.lr


def heads_made(preset: str, shape: Shape, settings: Settings) -> tuple[PgMConfig, FusionConfig, dict[str, Any]]:
    """PgM's configuration and its fusion head's for these modalities, and the settings that neither has."""
    head, rest = changed((PgMConfig.small if preset == "small" else PgMConfig.paper)(dict(shape.widths)), settings)
    same = {name: getattr(head, name) for name in ("dim", "heads", "feedforward", "dropout", "branches")}
    build = FusionConfig.small if preset == "small" else FusionConfig.paper
    fusion, rest = changed(build(shape.modalities, shape.outputs, **same), rest)
    return head, fusion, rest


def has_pretraining(head: PgMConfig) -> bool:
    """Whether any of L^P is left: it goes with the partitioner, or with all that has a term in it (A25)."""
    without = set(head.without)
    return "partitioner" not in without and not {"uni_learner", "paired_learner", "decoder"} <= without


def pretraining_of(head: PgMConfig) -> Mapping[str, Any]:
    """What decides the outcome of the stage on L^P, wherever PgM reads the cached tokens."""
    return {"pgm": dataclasses.asdict(head), "version": PgMMethodConfig.version}
