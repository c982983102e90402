"""MLA: alternating uni-modal adaptation with one shared head (Zhang, Yoon, Bansal, Yao, CVPR 2024).

Training (alternation.py): per batch and modality m in turn, the mean loss of head(h_m) over the samples that have m,
one step of m's learner and of the head; the head's step multiplied by the projector P (hgm.py). There is no
multi-modal loss at all. Testing (weighting.py): sum_m lambda_m head(h_m), lambda_m falling with m's entropy.

On frozen features: the paper's encoders (ResNet18, M3AE, CAV-MAE) are replaced by a small learner a modality over
cached tokens, pooled by the mean of its real tokens; a Transformer (the trunk of every baseline) or an MLP a token.

Presets (`--set mla_preset=...`):
  corrected    P by recursive least squares from the turns before, alpha .1 -> .01 in every epoch (the released
               constants), applied to what AdamW does to the head; entropy per sample. The default.
  paper        P multiplies the gradient, alpha is constant (.1, where the released schedule starts).
  as_released  what the public code does when run: P is never applied, because its hook waits for a parameter
               "module.weight" and is handed "weight"; entropy over the batch axis, one number for all its samples;
               turns in the order of its slots: audio, visual, text. Of image and text alone its configurations put the
               TEXT in the audio slot, so that there, as here, the text has the first turn. The other presets take the
               modalities by name; `order` can say any ("fixed", "reversed", "random", "released", "vision+text").
Not carried over: test-set selection, the fixed .55/.45 fusion, zeroed inputs for missing modalities.

A missing modality is skipped: no loss, no part in P, no weight in the fusion. Any number of modalities from two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ...cache.errors import UserError
from ..batch import Inputs
from ..head.dropout import Dropout
from ..head.switches import changed
from .alternation import ALTERNATION, AlternationConfig, SharedHead, turns
from .base import Look, Losses, Method, MethodConfig, MethodOutput, Settings, Shape, Stage, Step
from .trunk import TrunkConfig, encode
from .weighting import Weighting, fused, shares_of, validated

PRESETS: Mapping[str, Mapping[str, Any]] = {
    **ALTERNATION,
    "as_released": {**ALTERNATION["as_released"], "weighting": "batch_entropy"},
}


@dataclass(frozen=True)
class MLAConfig(AlternationConfig, TrunkConfig):
    """The learners' sizes, the turns, and the fusion.

    learner: "transformer" over tokens, or "mlp" of each token. weighting: of the logits at test time. In Python
    `MLAConfig(mla_preset=name, **PRESETS[name])` is what `made` makes of a preset.
    """

    names: ClassVar[tuple[str, ...]] = ("mla",)
    several: ClassVar[bool] = True
    retrieves: ClassVar[bool] = False  # its answers are logits; there is no vector to compare
    learner: Literal["transformer", "mlp"] = "transformer"
    weighting: Weighting = "entropy"

    @classmethod
    def made(cls, name: str, preset: str, shape: Shape, settings: Settings) -> tuple[MethodConfig, dict[str, Any]]:
        """What the sizes' preset and `mla_preset` set, then the settings."""
        chosen, _ = changed(cls(), {k: v for k, v in settings.items() if k == "mla_preset"})
        values = {**cls.presets.get(preset, {}), **PRESETS[chosen.mla_preset]}
        return changed(replace(chosen, **values), settings)

    def trunks(self, widths: Mapping[str, int]) -> nn.ModuleDict:
        if self.learner == "transformer":
            return super().trunks(widths)
        return nn.ModuleDict({name: TokenMLP(width, self) for name, width in widths.items()})

    def check(self, shape: Shape) -> None:
        """Raise UserError for a task whose outputs have no entropy, and for turns of other modalities."""
        self.check_order(shape.modalities)
        if shape.outputs < 2 and "entropy" in self.weighting:
            raise UserError(
                f"weighting={self.weighting} needs class probabilities, and this task predicts a score. "
                "Use --set sentiment=classes, or --set weighting=equal (or validated)."
            )

    def build(self, shape: Shape) -> Method:
        self.check(shape)
        return MLA(self, shape)


class TokenMLP(nn.Module):
    """(B, S, D) tokens and their mask to (B, dim): two layers a token, mean over the real ones; zeros without any."""

    def __init__(self, width: int, config: TrunkConfig) -> None:
        super().__init__()
        hidden = [nn.Linear(width, config.feedforward), nn.GELU(), Dropout(config.dropout)]
        self.layers = nn.Sequential(*hidden, nn.Linear(config.feedforward, config.dim), nn.LayerNorm(config.dim))

    def forward(self, tokens_BSD: Tensor, mask_BS: Tensor, total: int | None = None) -> Tensor:
        hidden: Tensor = self.layers(tokens_BSD) * mask_BS.unsqueeze(-1)
        return hidden.sum(dim=1) / mask_BS.sum(dim=1, keepdim=True).clamp(min=1)


class MLA(Method):
    """A learner a modality, the shared head, and the constant weights (M,) that "validated" chooses every epoch."""

    skips_missing: ClassVar[bool] = True
    constants: Tensor

    def __init__(self, config: MLAConfig, shape: Shape) -> None:
        super().__init__()
        self.config = config
        self.trunks = config.trunks(shape.widths)
        self.head = SharedHead(config.dim, shape.outputs, config)
        self.register_buffer("constants", torch.full((len(shape.widths),), 1 / len(shape.widths)))

    def outputs(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Every modality's logits (B, M, C) and presence (B, M)."""
        vectors, present = encode(self.trunks, inputs)
        return self.head(vectors), present

    def forward(self, inputs: Inputs) -> MethodOutput:
        logits, present = self.outputs(inputs)
        answer = fused(logits, shares_of(self.config.weighting, logits, present, self.constants))
        return MethodOutput(answer, answer)

    def update(self, stage: Stage, step: Step) -> Losses:
        """A turn for every modality of the batch."""
        inputs, losses = step.inputs(), {}
        for modality in turns(tuple(self.trunks), self.config.order):
            having = inputs.having(modality)
            if having.count:
                tokens, mask = having.of(inputs.tokens[modality]), having.of(inputs.masks[modality])
                vectors_of = partial(self.trunks[modality], tokens, mask, inputs.totals.get(modality))
                losses[f"task_{modality}"] = self.head.turn(step, vectors_of, having.of(step.targets))
        mean = torch.stack(list(losses.values())).mean() if losses else step.targets.new_zeros((), dtype=torch.float32)
        return {"loss": mean, **losses, **self.head.reported}

    def between_epochs(self, stage: Stage, look: Look) -> None:
        """Choose the constant weights on the validation split."""
        if self.config.weighting != "validated":
            return
        logits, present, targets = [], [], []
        for inputs, truth in look.batches("val"):
            found = self.outputs(inputs)
            logits.append(found[0].float())
            present.append(found[1])
            targets.append(truth)
        if logits:
            chosen = validated(torch.cat(logits), torch.cat(present), torch.cat(targets), look.criterion)
            self.constants.copy_(chosen)
