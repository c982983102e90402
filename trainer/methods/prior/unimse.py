"""UniMSE: sentiment and emotion by one model (Hu et al., EMNLP 2022).

Audio and vision enter the text's tokens through three PMF adapters (pmf.py), the merged tokens are averaged, and three
heads read the result: polarity (cross-entropy over negative, neutral, positive), intensity (L1 on a score), emotion
(cross-entropy over classes). A dataset of scores trains polarity and intensity, and intensity answers; one of classes
trains emotion, which answers, and polarity: by the sign of a column `sentiment` of numbers where there is one (MELD has
it), else by the name of the class (joy is positive, surprise has no polarity). Beside them, InfoNCE between the text's
tokens and each modality's (contrastive.py; 30 dimensions, temperature 0.1):

    L = L_answer + CE(polarity) + 0.5 sum_s InfoNCE(text, s)

Head-only form. What is lost: T5's decoder and the generated answer "polarity,score,emotion", the fine-tuned blocks,
adapters BETWEEN T5's blocks (here they follow one another on its cached output), the contrast in decoder and encoder
(here once), training on four corpora together, and the universal labels that fill one corpus's gaps from its nearest
neighbours in another. Numbers cannot be compared with the paper's. Without cached text the first modality takes its
place.

+pgm: PgM over the three token sequences stands where LSTMs and adapters stood; the contrast is kept.

Missing modalities: audio and vision come in as zeros; a sample without text is one token of zeros, which the others'
vectors enter; the contrast takes the samples that have both sides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ...batch import Inputs
from ...head.dropout import Dropout
from ...head.switches import AboveZero, Positive, Share, Weight
from ..base import Losses, Method, MethodOutput, Shape, Stage, Step
from .base import PriorConfig, PriorMethod
from .contrastive import info_nce
from .encoders import LastState, MeanEncoder, leading
from .fusion import Fused, Fusion
from .pmf import PMFAdapter

SENTIMENT = "sentiment"
UNKNOWN = -100  # the polarity of a class that has none; cross-entropy leaves such targets out
POLARITY = {
    0: ("negative", "anger", "angry", "disgust", "fear", "frustration", "frustrated", "sad", "sadness"),
    1: ("neutral",),
    2: ("positive", "excited", "excitement", "happiness", "happy", "joy"),
}


@dataclass(frozen=True)
class UniMSEConfig(PriorConfig):
    """hidden, out: of the LSTMs. adapters: how many PMFs. bottleneck: theirs. dropout: before the heads.

    contrast: weight of each InfoNCE; projected: the width it compares at; temperature: its own.
    """

    names: ClassVar[tuple[str, ...]] = ("unimse", "unimse+pgm")
    further_labels: ClassVar[tuple[str, ...]] = (SENTIMENT,)
    hidden: Positive = 32
    out: Positive = 32
    adapters: Positive = 3
    bottleneck: Positive = 64
    dropout: Share = 0.1
    contrast: Weight = 0.5
    projected: Positive = 30
    temperature: AboveZero = 0.1

    def build(self, shape: Shape) -> Method:
        return UniMSE(self, shape)


class PMFStack(Fusion):
    """An LSTM a modality beside the text, the adapters one after the other, and the mean of the tokens they leave."""

    def __init__(self, config: UniMSEConfig, modalities: Mapping[str, int]) -> None:
        super().__init__()
        self.text = leading(modalities)
        self.width = modalities[self.text]
        others = {m: width for m, width in modalities.items() if m != self.text}
        self.encoder = nn.ModuleDict(
            {m: LastState(w, config.hidden, config.out, config.dropout) for m, w in others.items()}
        )
        beside = config.out * len(others)
        self.adapters = nn.ModuleList(PMFAdapter(self.width, beside, config.bottleneck) for _ in range(config.adapters))
        self.mean = MeanEncoder()

    def forward(
        self,
        vectors: Mapping[str, Tensor],
        tokens: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
        totals: Mapping[str, int] | None = None,
    ) -> Fused:
        mask, hidden = masks[self.text], tokens[self.text] * masks[self.text].unsqueeze(2)
        nothing = hidden.new_zeros(len(hidden), 0)
        beside = torch.cat([nothing, *(encoder(tokens[m], masks[m]) for m, encoder in self.encoder.items())], dim=1)
        for adapter in self.adapters:
            hidden = adapter(hidden, beside)
        first = torch.zeros_like(mask)
        first[:, 0] = ~mask.any(dim=1)
        return Fused(self.mean(hidden, mask | first))


class UniMSE(PriorMethod):
    """`answering` is the intensity or the emotion head; `polarity` and the contrast serve training."""

    polarity_of: Tensor

    def __init__(self, config: UniMSEConfig, shape: Shape) -> None:
        super().__init__()
        self.config, self.text = config, leading(shape.widths)
        self.fusion = config.placed() or PMFStack(config, shape.widths)
        self.compared = nn.ModuleDict({m: nn.Linear(w, config.projected, bias=False) for m, w in shape.widths.items()})
        self.mean, self.dropout = MeanEncoder(), Dropout(config.dropout)
        self.answering = nn.Linear(self.fusion.width, shape.outputs)
        self.polarity = nn.Linear(self.fusion.width, 3)
        self.register_buffer("polarity_of", polarities(shape.classes, shape.outputs))

    def forward(self, inputs: Inputs) -> MethodOutput:
        fused = self.fusion({}, inputs.tokens, inputs.masks, inputs.totals)
        logits = self.answering(self.dropout(fused.vector))
        return MethodOutput(logits, fused.vector, fused.losses, fused.pretraining)

    def update(self, stage: Stage, step: Step) -> Losses:
        inputs = step.inputs()
        with step.autocast():
            output = self(inputs)
            logits = self.polarity(self.dropout(output.fused)).float()
            polarity = polarity_loss(logits, self.polarities(step.targets, step.labels.get(SENTIMENT)))
            contrast = self.contrast(inputs)
            own = polarity + self.config.contrast * contrast
            losses = step.losses(output, own, polarity=polarity, nce=contrast)
        step.descend(losses["loss"])
        return losses

    def polarities(self, targets: Tensor, sentiment: Tensor | None = None) -> Tensor:
        """(B,) 0 negative, 1 neutral, 2 positive, UNKNOWN; from scores, else from the classes' sentiments or names."""
        scores = targets if targets.is_floating_point() else sentiment
        return self.polarity_of[targets] if scores is None else scores.sign().long() + 1

    def contrast(self, inputs: Inputs) -> Tensor:
        """sum over the other modalities of InfoNCE with the text, between means of projected tokens."""
        means = {m: self.mean(layer(inputs.tokens[m]), inputs.masks[m]) for m, layer in self.compared.items()}
        has, others = inputs.present(self.text), [m for m in self.compared if m != self.text]
        parts = [info_nce(means[self.text], means[m], has & inputs.present(m), self.config.temperature) for m in others]
        return torch.stack([means[self.text].new_zeros(()), *parts]).sum()


def polarity_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy over the samples whose polarity is known; 0 where none is."""
    total = nn.functional.cross_entropy(logits, targets, ignore_index=UNKNOWN, reduction="sum")
    return total / (targets != UNKNOWN).sum().clamp(min=1)


def polarities(classes: Sequence[str], outputs: int) -> Tensor:
    """(outputs,) the polarity of each class by its name; UNKNOWN for names without one, and for unnamed classes."""
    known = {name: polarity for polarity, names in POLARITY.items() for name in names}
    names = [*classes, *[""] * outputs][:outputs]
    return torch.tensor([known.get(name.lower(), UNKNOWN) for name in names])
