"""Self-MM: a head for the fusion and one for each modality, whose labels the model makes up itself (Yu et al., AAAI
2021; labels in ulgm.py).

    F_m = relu(W1 [h_t; h_a; h_v]),  y^_m = W3 relu(W2 F_m);       F_s, y^_s in the same shape from h_s alone
    L = mean |y^_m - y_m| + sum_s mean( tanh|y_s - y_m| |y^_s - y_s| )

The weights are zero in epoch 1, where all labels are the human one, so the fusion trains alone first. Sizes are those
of MMSA for MOSI, with one LSTM size for all modalities: hidden 32, vectors 32, F_m 128, F_s 32. Decided: MMSA adds up
the gradients of four batches of 16 before a step; here every batch is a step, as for all methods.

Head-only form. The text is the mean of frozen tokens: what fine-tuning BERT brings, by far the most of the published
accuracy, is lost, and numbers cannot be compared with the paper's. Everything after the encoders is as published.

+pgm: PgM's fused vector stands where [h_t; h_a; h_v] stood; the modalities' own heads keep their vectors.

Missing modalities: a vector of zeros in the fusion; no part in that modality's loss, features and labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ...batch import Inputs
from ...head.dropout import Dropout
from ...head.switches import AboveZero, Positive, Share
from ..base import Losses, Method, MethodOutput, Shape, Stage, Step
from .base import PriorConfig, PriorMethod
from .encoders import VectorEncoders, vector_widths
from .fusion import Concatenation
from .ulgm import FUSION, ULGM


@dataclass(frozen=True)
class SelfMMConfig(PriorConfig):
    """hidden, out: of the LSTMs. fused, post: widths of F_m and F_s. dropout: before each head but the fusion's.

    bound: H, the largest label a modality may have; 3 fits scores in [-3, 3].
    """

    names: ClassVar[tuple[str, ...]] = ("self_mm", "self_mm+pgm")
    needs_score: ClassVar[str] = "Self-MM makes up labels on a scale from negative to positive"
    hidden: Positive = 32
    out: Positive = 32
    fused: Positive = 128
    post: Positive = 32
    dropout: Share = 0.1
    bound: AboveZero = 3.0

    def build(self, shape: Shape) -> Method:
        self.check(shape)
        return SelfMM(self, shape)


class Head(nn.Module):
    """(B, d) -> the feature F (B, width) and the score (B, 1)."""

    def __init__(self, width_in: int, width: int, dropout: float) -> None:
        super().__init__()
        self.feature = nn.Sequential(Dropout(dropout), nn.Linear(width_in, width), nn.ReLU())
        self.score = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        feature = self.feature(vectors)
        return feature, self.score(feature)


class SelfMM(PriorMethod):
    """The fusion's head answers; the modalities' heads and `ulgm` serve training."""

    training_only: ClassVar[tuple[str, ...]] = ("ulgm",)

    def __init__(self, config: SelfMMConfig, shape: Shape) -> None:
        super().__init__()
        widths = vector_widths(shape.widths, config.out)
        self.fusion = config.placed() or Concatenation(widths)
        self.encoder = VectorEncoders(shape.widths, config.hidden, config.out, 0.0)
        self.head = Head(self.fusion.width, config.fused, 0.0)
        self.heads = nn.ModuleDict({m: Head(width, config.post, config.dropout) for m, width in widths.items()})
        self.ulgm = ULGM({FUSION: config.fused, **dict.fromkeys(widths, config.post)}, config.bound)

    def start(self, targets: Tensor) -> None:
        self.ulgm.prepare(targets)

    def forward(self, inputs: Inputs) -> MethodOutput:
        return self.scored(inputs, self.encoder(inputs))

    def scored(self, inputs: Inputs, vectors: Mapping[str, Tensor]) -> MethodOutput:
        """The fusion's score, with F_m as the fused vector."""
        fused = self.fusion(vectors, inputs.tokens, inputs.masks, inputs.totals)
        feature, score = self.head(fused.vector)
        return MethodOutput(score, feature, fused.losses, fused.pretraining)

    def update(self, stage: Stage, step: Step) -> Losses:
        inputs = step.inputs()
        present = {m: inputs.present(m) for m in self.heads}
        with step.autocast():
            vectors = self.encoder(inputs)
            output = self.scored(inputs, vectors)
            alone = {m: head(vectors[m]) for m, head in self.heads.items()}
            own = {m: self.own_loss(m, score, step.samples, present[m]) for m, (_, score) in alone.items()}
            total = torch.stack(list(own.values())).sum()
            losses = step.losses(output, total, **{f"task_{m}": value for m, value in own.items()})
        step.descend(losses["loss"])
        features = {FUSION: output.fused, **{m: feature for m, (feature, _) in alone.items()}}
        self.ulgm.observe(step.samples, features, present, step.epoch + 1)
        return losses

    def own_loss(self, modality: str, score: Tensor, samples: Tensor, present: Tensor) -> Tensor:
        """A modality's own loss: the mean over the batch, by how far its labels have left the human ones."""
        distance = (score.float().squeeze(1) - self.ulgm.labels(modality)[samples]).abs()
        return (self.ulgm.weights(modality, samples) * present * distance).mean()
