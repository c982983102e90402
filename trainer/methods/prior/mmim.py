"""MMIM: modalities that tell about each other, and a fused vector that tells about them (Han et al., EMNLP 2021).

An epoch passes over the training split twice. Pass A fits the estimators q(y|x) of the mutual information between the
text and each other modality (mmilb.py): it minimises -l and moves nothing else. Pass B moves all the rest and not the
estimators:

    L = mean |y^ - y| + alpha sum_s CPC(h_s, z) - beta sum_(t,s) (l + H),    z = tanh(W2 tanh(W1 [h_t; h_a; h_v]))

with alpha = beta = 0.1 (here `contrast` and `information`), CPC of contrastive.py, and H from the third batch of an
epoch on, over this batch and the one before. Sizes are those of MMSA: LSTMs in both directions, hidden 16, vectors 16,
z 128; weights begin by Xavier's normal rule. Decided: weights are chosen on validation; the authors' code keeps a
checkpoint only when the TEST error is the best so far as well, which is not copied. What H remembers begins anew every
epoch, so nothing of it has to be saved.

Head-only form. The text is the mean of frozen tokens instead of a fine-tuned BERT's first one: the bounds then push
audio and vision towards a text that cannot move, and numbers cannot be compared with the paper's.

+pgm: PgM's fused vector stands where [h_t; h_a; h_v] stood; CPC and the bounds keep the modalities' vectors.

Missing modalities: a vector of zeros in the fusion; terms of a modality take the samples that have it, with the text.
`degenerate` in the run's losses: the share of batches in which a covariance of H was so ill-conditioned that its jitter
decided, as with too few samples of a sign (mmilb.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from ...batch import Inputs
from ...head.dropout import Dropout
from ...head.switches import Positive, Share, Weight
from ..base import Losses, Method, MethodOutput, Shape, Stage, Step
from .base import PriorConfig, PriorMethod
from .contrastive import CPC
from .encoders import VectorEncoders, vector_widths
from .fusion import Concatenation
from .mmilb import MMILB, degenerate, entropy

SETTLED = 2  # batches of an epoch before H counts


@dataclass(frozen=True)
class MMIMConfig(PriorConfig):
    """hidden, out: of the LSTMs. fused: width of z. dropout: before z. contrast, information: alpha and beta."""

    names: ClassVar[tuple[str, ...]] = ("mmim", "mmim+pgm")
    needs_several: ClassVar[str] = "MMIM bounds what pairs of them tell about each other"
    needs_score: ClassVar[str] = "MMIM's entropy is that of positive and of negative scores"
    hidden: Positive = 16
    out: Positive = 16
    fused: Positive = 128
    dropout: Share = 0.1
    contrast: Weight = 0.1
    information: Weight = 0.1

    def build(self, shape: Shape) -> Method:
        self.check(shape)
        return MMIM(self, shape)


class MMIM(PriorMethod):
    """z and the score from it; `bounds` and `contrasts` serve training."""

    passes: ClassVar[int] = 2

    def __init__(self, config: MMIMConfig, shape: Shape) -> None:
        super().__init__()
        self.config = config
        widths = vector_widths(shape.widths, config.out)
        self.fusion = config.placed() or Concatenation(widths)
        self.encoder = VectorEncoders(shape.widths, config.hidden, config.out, 0.0, bidirectional=True)
        self.fuse = nn.Sequential(
            Dropout(config.dropout),
            nn.Linear(self.fusion.width, config.fused),
            nn.Tanh(),
            nn.Linear(config.fused, config.fused),
            nn.Tanh(),
        )
        self.head = nn.Linear(config.fused, 1)
        text = self.encoder.leading
        self.bounds = nn.ModuleDict({m: MMILB(widths[text], width) for m, width in widths.items() if m != text})
        self.contrasts = nn.ModuleDict({m: CPC(width, config.fused) for m, width in widths.items()})
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1 and not name.startswith("fusion."):
                nn.init.xavier_normal_(parameter)
        self.batches = 0  # of this epoch's pass B so far
        self.memory: dict[str, tuple[Tensor, Tensor]] = {}  # modality -> the last batch's projected vectors and labels

    def forward(self, inputs: Inputs) -> MethodOutput:
        return self.scored(inputs, self.encoder(inputs))

    def scored(self, inputs: Inputs, vectors: Mapping[str, Tensor]) -> MethodOutput:
        """The score, with z as the fused vector."""
        fused = self.fusion(vectors, inputs.tokens, inputs.masks, inputs.totals)
        z = self.fuse(fused.vector)
        return MethodOutput(self.head(z), z, fused.losses, fused.pretraining)

    def update(self, stage: Stage, step: Step) -> Losses:
        return self.fit_bounds(step) if step.passed == 0 else self.fit_rest(step)

    def fit_bounds(self, step: Step) -> Losses:
        """Pass A: the estimators alone."""
        inputs = step.inputs()
        with step.autocast():
            with torch.no_grad():
                vectors = self.encoder(inputs)
            loss = -self.likelihood(inputs, vectors)
        step.descend(loss, self.estimators())
        return {"bound": loss.detach()}

    def fit_rest(self, step: Step) -> Losses:
        """Pass B: everything but the estimators."""
        inputs, config = step.inputs(), self.config
        if step.done == 0:
            self.batches, self.memory = 0, {}
        with step.autocast():
            vectors = self.encoder(inputs)
            output = self.scored(inputs, vectors)
            contrast = torch.stack(
                [cpc(vectors[m], output.fused, inputs.present(m)) for m, cpc in self.contrasts.items()]
            ).sum()
            likelihood = self.likelihood(inputs, vectors)
            entropies, poor = self.entropies(inputs, vectors, step.targets)
            own = config.contrast * contrast - config.information * (likelihood + entropies)
            losses = step.losses(output, own, nce=contrast, likelihood=likelihood, entropy=entropies, degenerate=poor)
        bounds = {id(p) for p in self.bounds.parameters()}
        step.descend(losses["loss"], [p for p in step.parameters if id(p) not in bounds])
        self.batches += 1
        return losses

    def pairs(self) -> list[tuple[str, MMILB]]:
        """Each modality beside the text, with the bound on what the two share."""
        return [(modality, cast(MMILB, bound)) for modality, bound in self.bounds.items()]

    def estimators(self) -> list[nn.Parameter]:
        """What pass A moves."""
        return [p for p in self.bounds.parameters() if p.requires_grad]

    def likelihood(self, inputs: Inputs, vectors: Mapping[str, Tensor]) -> Tensor:
        """sum of l over the pairs (text, s)."""
        text = self.encoder.leading
        has = inputs.present(text)
        parts = [b.likelihood(vectors[text], vectors[m], has & inputs.present(m)) for m, b in self.pairs()]
        return torch.stack(parts).sum()

    def entropies(self, inputs: Inputs, vectors: Mapping[str, Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
        """sum of H over the modalities, 0 while it does not count yet, and whether a covariance was degenerate."""
        found, poor = [targets.new_zeros(())], [targets.new_zeros(())]
        for modality, bound in self.pairs():
            small = bound.projected(vectors[modality])
            labels = torch.where(inputs.present(modality), targets, 0)  # 0 takes no part
            if self.batches >= SETTLED:
                before, labelled = self.memory[modality]
                all_small, all_labels = torch.cat([before, small]), torch.cat([labelled, labels])
                found.append(entropy(all_small, all_labels))
                poor.append(degenerate(all_small, all_labels))
            self.memory[modality] = (small.detach(), labels)
        return torch.stack(found).sum(), torch.stack(poor).amax()
