"""PgM whose uni-modal learners train in MLA's turns: a combination that neither paper has.

Stage 1 is PgM's own (L^P without labels) and is shared with runs of `pgm`. In stage 2 every batch has two parts:

  turns   for each modality m in the stated order: u_m, the uni-modal features PgM makes of modality m ALONE, averaged
          over its real tokens, goes through one linear head that all modalities share (alternation.py, the projector of
          hgm.py included); its loss moves that head and m's uni-modal learner, nothing else.
  joint   alpha L^P + beta L^T of the whole model, as in PgM, moves everything else: projections, partitioners,
          paired-modal learner, decoder, fusion head. It reads the uni-modal learners and does not move them.

So the uni-modal branch is kept from leaning on whichever modality explains the labels first, which is MLA's concern,
while the paired branch learns jointly, which is what it is for. The fusion head answers; the shared head (`auxiliary`)
serves training only. Decided: PgM's uni-modal learner is one for all modalities by default, so its turns are steps of
one network on one modality each; `--set share_learners=false` gives every modality its own, which is closer to MLA.
Costs M small passes a batch more than PgM. Missing modalities: a sample without m has no part in m's turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

from torch import Tensor, nn

from ...cache.errors import UserError
from ..head.model import SHARED
from ..head.switches import changed
from .alternation import ALTERNATION, AlternationConfig, SharedHead, turns
from .base import Losses, Method, MethodConfig, Settings, Shape, Stage, Step
from .pgm import PgMMethod, PgMMethodConfig, heads_made


@dataclass(frozen=True)
class PgMMLAConfig(PgMMethodConfig):
    """PgM's two configurations and the turns. Raises UserError for a PgM without uni-modal learners."""

    names: ClassVar[tuple[str, ...]] = ("pgm+mla",)
    several: ClassVar[bool] = True
    retrieves: ClassVar[bool] = False
    alternation: AlternationConfig = field(default_factory=AlternationConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        removed = {"partitioner", "uni_learner"} & set(self.head.without)
        if removed:
            raise UserError(
                f"pgm+mla trains PgM's uni-modal learners in turns, and without={', '.join(sorted(removed))} leaves "
                "none. Use the method pgm for this ablation."
            )

    @classmethod
    def made(cls, name: str, preset: str, shape: Shape, settings: Settings) -> tuple[MethodConfig, dict[str, Any]]:
        """PgM's two configurations, and the turns: what `mla_preset` sets of them, then the settings."""
        head, fusion, rest = heads_made(preset, shape, settings)
        named, _ = changed(AlternationConfig(), {k: v for k, v in rest.items() if k == "mla_preset"})
        turns, rest = changed(replace(named, **ALTERNATION[named.mla_preset]), rest)
        return cls(head, fusion, turns), rest

    def check(self, shape: Shape) -> None:
        """Raise UserError for turns of other modalities."""
        self.alternation.check_order(shape.modalities)

    def build(self, shape: Shape) -> Method:
        return PgMMLA(self, shape)


class PgMMLA(PgMMethod):
    """PgM with its fusion head, and the head the turns share."""

    def __init__(self, config: PgMMLAConfig, shape: Shape) -> None:
        super().__init__(config)
        self.order = config.alternation.order
        # Last, so that PgM starts from the weights it has in the method pgm.
        self.auxiliary = SharedHead(config.head.dim, shape.outputs, config.alternation)

    def update(self, stage: Stage, step: Step) -> Losses:
        inputs, turned = step.inputs(), {}
        for modality in turns(tuple(self.config.head.modalities), self.order):
            having = inputs.having(modality)
            if having.count:
                tokens, mask = having.of(inputs.tokens[modality]), having.of(inputs.masks[modality])
                learner = [*self.learner(modality).parameters(), *self.auxiliary.parameters()]
                totals = {m: total for m, total in inputs.totals.items() if m == modality}
                own = partial(self.alone, modality, tokens, mask, totals)
                loss = self.auxiliary.turn(step, own, having.of(step.targets), learner)
                turned[f"task_{modality}"] = loss
        alternating = {id(p) for p in self.pgm.uni_learners.parameters()}
        with step.autocast():
            losses = step.losses(step.output())
        step.descend(losses["loss"], [p for p in step.parameters if id(p) not in alternating])
        return {**losses, **turned, **self.auxiliary.reported}

    def learner(self, modality: str) -> nn.Module:
        """The uni-modal learner of a modality, or the one all share."""
        return self.pgm.uni_learners[SHARED if self.config.head.share_learners else modality]

    def alone(self, modality: str, tokens: Tensor, mask: Tensor, totals: Mapping[str, int]) -> Tensor:
        """The mean (B, D) of a modality's uni-modal features, made without the other modalities."""
        parts = self.pgm({modality: tokens}, {modality: mask}, losses=False, totals=totals)
        features = parts.uni[modality]
        mean: Tensor = features.sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)
        return mean
