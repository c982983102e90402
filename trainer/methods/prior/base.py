"""What the prior models of Table 4 share: a place for the fusion, and what standing PgM there brings along.

`self_mm` and `self_mm+pgm` are one model whose configuration differs in `head` and `fusion` alone: without them the
model's own fusion stands in its place, with them PgM and its fusion head (fusion.py). All else, the sizes included, is
the same, and trains for the same epochs: PgM's first stage is taken off the task's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from torch import Tensor

from ....cache.errors import UserError
from ...batch import Inputs
from ...head import FusionConfig, PgMConfig
from ...head.switches import OF_THE_DATA, Range, changed
from ...protocol import Protocol
from ..base import Method, MethodConfig, Settings, Shape, Stage
from ..pgm import PgMMethodConfig, has_pretraining, heads_made, pretraining_of
from .fusion import Fusion, PgMFusion


@dataclass(frozen=True)
class PriorConfig(MethodConfig):
    """head, fusion: PgM in the fusion's place, or None for the model's own; pgm_version: of its code, 0 without it.

    needs_score: why the model cannot predict classes; needs_several: why it cannot do with one modality; empty where
    it can.
    """

    version: ClassVar[int] = 1  # names: without PgM, and with it
    retrieves: ClassVar[bool] = False
    needs_score: ClassVar[str] = ""
    needs_several: ClassVar[str] = ""
    head: PgMConfig | None = None
    fusion: FusionConfig | None = None
    pgm_version: Annotated[int, Range(least=0), OF_THE_DATA] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head is not None and "partitioner" in self.head.without:
            raise UserError(
                "Without its partitioner nothing of PgM is left in a prior model. Use the method pgm for this ablation."
            )

    @classmethod
    def made(cls, name: str, preset: str, shape: Shape, settings: Settings) -> tuple[MethodConfig, dict[str, Any]]:
        """A setting that the model and PgM both have goes to both."""
        own, rest = changed(cls(), settings)
        own.check(shape)
        if not name.endswith("+pgm"):
            return own, rest
        placed = dataclasses.replace(shape, widths=own.read_by_fusion(shape))
        head, fusion, unknown = heads_made(preset, placed, settings)
        made = dataclasses.replace(own, head=head, fusion=fusion, pgm_version=PgMMethodConfig.version)
        return made, {name: value for name, value in rest.items() if name in unknown}

    @property
    def own_name(self) -> str:
        return self.names[self.head is not None]

    def check(self, shape: Shape) -> None:
        """Raise UserError for data the model is not made for."""
        if self.needs_score and shape.outputs != 1:
            raise UserError(
                f"This task has {shape.outputs} classes, and {self.needs_score}. Use it on sentiment scores, "
                "or another prior model (unimse, unimeec)."
            )
        if self.needs_several and len(shape.modalities) < 2:
            raise UserError(f"{shape.modalities[0]} is the only modality here, and {self.needs_several}. Choose more.")

    def read_by_fusion(self, shape: Shape) -> Mapping[str, int]:
        """Modality -> the width of the tokens that PgM reads in the fusion's place: those of the data."""
        return shape.widths

    def placed(self) -> PgMFusion | None:
        """PgM in the fusion's place; built before anything else, so that it starts as in the method pgm."""
        if self.head is None or self.fusion is None:
            return None
        return PgMFusion(self.head, self.fusion)


class PriorMethod(Method):
    """A prior model around `fusion`."""

    fusion: Fusion
    passes: ClassVar[int] = 1  # over the training split in an epoch of the task's stage

    def stages(self, protocol: Protocol) -> tuple[Stage, ...]:
        """The task alone, or L^P without labels first, where PgM stands in the fusion's place."""
        head = self.fusion.pgm.config if isinstance(self.fusion, PgMFusion) else None
        if head is None or not protocol.pretrain_epochs or not has_pretraining(head):
            return (Stage("task", protocol.budget, passes=self.passes),)
        shares = self.shared(head)
        first = Stage("pretrain", protocol.pretrain_epochs, labels=False, part="fusion.pgm", shares=shares)
        return (first, Stage("task", protocol.epochs, passes=self.passes))

    def shared(self, head: PgMConfig) -> Mapping[str, Any] | None:
        """What decides PgM's first stage, as in the method pgm, while it reads cached tokens."""
        return pretraining_of(head)

    def pretrain(self, inputs: Inputs) -> tuple[Tensor, Mapping[str, Tensor]]:
        assert isinstance(self.fusion, PgMFusion)
        return self.fusion.pretrain(inputs.tokens, inputs.masks, inputs.totals)

    def rate(self, name: str, protocol: Protocol) -> float:
        """PgM's own rates (section 4.2) inside PgM, the protocol's elsewhere."""
        if name.startswith(("fusion.pgm.uni_learners.", "fusion.pgm.paired_learners.")):
            return protocol.lr_learners
        return protocol.lr_decoder if name.startswith("fusion.pgm.decoders.") else protocol.lr
