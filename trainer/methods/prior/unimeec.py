"""UniMEEC-style: emotions and their causes over the utterances of a dialogue (Zhang et al., arXiv 2404.00403).

Each modality of an utterance becomes a prompt of three tokens, [x, m1, m2]: its vector and two learned masks, one that
asks for the emotion and one for the cause, read by one small Transformer that all modalities share. Their states are
fused over the modalities, position by position, and three graph attentions (graph_attention.py) climb over the
dialogue, each seeing utterances at most `window` turns away:

    g1 = GAT(x),    g2 = GAT([g1; m2]) -> cause,    g3 = GAT([m1; g1; g2]) -> emotion
    L = CE(emotion) + BCE(cause)

The cause term is there only where the dataset has a column `cause` (1 where the utterance is the cause of an emotion in
its dialogue, 0 elsewhere); nothing evaluates it. Batches hold whole dialogues, in training and in evaluation, so that
an utterance's answer never depends on what else is in its batch.

Head-only form, and why it is "-style": the authors' code is partial and does not run (its cause head calls the emotion
classifier, and widths disagree), so this follows the paper's description. Lost are BERT's knowledge in the prompt, the
words for emotions at its masks, the conversation as text inside the prompt, and, without cause labels, half the task.
An utterance is the mean of its cached tokens.

+pgm: PgM with its fusion head stands where the modalities' states were put side by side, once for each of x, m1 and m2.
It reads states and not cached tokens, so its first stage trains on what the untrained prompts give, and is not shared.

Missing modalities: states of zeros in the concatenation; PgM's learned stand-in where it fuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ....cache.errors import UserError
from ...batch import Inputs
from ...head import PgMConfig
from ...head.block import TransformerBlock
from ...head.config import check_heads
from ...head.dropout import Dropout
from ...head.layout import TokenLayout
from ...head.switches import Positive, Share
from ..base import Losses, Method, MethodOutput, Shape, Stage, Step
from .base import PriorConfig, PriorMethod
from .encoders import MeanEncoder
from .fusion import Concatenation, PgMFusion
from .graph_attention import GraphAttention, within

CAUSE = "cause"
PROMPT = 3  # tokens: x, m1, m2


@dataclass(frozen=True)
class UniMEECConfig(PriorConfig):
    """dim, attention, feedforward, dropout: of the prompts' Transformer. graph: width of a GAT, in `attention` heads.

    window: turns to either side that an utterance sees.
    """

    names: ClassVar[tuple[str, ...]] = ("unimeec", "unimeec+pgm")
    whole_groups: ClassVar[bool] = True
    further_labels: ClassVar[tuple[str, ...]] = (CAUSE,)
    dim: Positive = 64
    attention: Positive = 4
    feedforward: Positive = 128
    graph: Positive = 64
    window: Positive = 5
    dropout: Share = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_heads(self.dim, self.attention)
        check_heads(self.graph, self.attention)

    def check(self, shape: Shape) -> None:
        super().check(shape)
        if shape.outputs < 2:
            raise UserError(
                "This task predicts a score, and UniMEEC classifies emotions. Use --set sentiment=classes, or unimse."
            )

    def read_by_fusion(self, shape: Shape) -> Mapping[str, int]:
        return dict.fromkeys(shape.widths, self.dim)

    def build(self, shape: Shape) -> Method:
        self.check(shape)
        return UniMEEC(self, shape)


class Prompts(nn.Module):
    """An utterance's vector (B, D) to the states (B, 3, dim) of its prompt [x, m1, m2]."""

    def __init__(self, config: UniMEECConfig) -> None:
        super().__init__()
        self.masks = nn.Parameter(torch.randn(PROMPT - 1, config.dim) / config.dim**0.5)
        self.places = nn.Parameter(torch.zeros(PROMPT, config.dim))
        self.block = TransformerBlock(config.dim, config.attention, config.feedforward, config.dropout)

    def forward(self, vectors: Tensor) -> Tensor:
        prompt = torch.cat([vectors.unsqueeze(1), self.masks.expand(len(vectors), -1, -1)], dim=1) + self.places
        layout = TokenLayout.build([PROMPT], [None], len(vectors), vectors.device)
        states: Tensor = self.block(prompt.flatten(0, 1), layout)
        return states.view_as(prompt)


class UniMEEC(PriorMethod):
    """The emotion head answers; the cause head serves training where there are labels."""

    def __init__(self, config: UniMEECConfig, shape: Shape) -> None:
        super().__init__()
        self.window = config.window
        self.fusion = config.placed() or Concatenation(dict.fromkeys(shape.widths, config.dim))
        self.mean = MeanEncoder()
        self.project = nn.ModuleDict({m: nn.Linear(width, config.dim) for m, width in shape.widths.items()})
        self.prompts = Prompts(config)
        fused, graph = self.fusion.width, config.graph
        self.graphs = nn.ModuleList(
            GraphAttention(width, graph, config.attention, config.dropout)
            for width in (fused, graph + fused, fused + 2 * graph)
        )
        self.emotion = classifier(graph, shape.outputs, config.dropout)
        self.cause = classifier(graph, 1, config.dropout)

    def shared(self, head: PgMConfig) -> None:
        return None

    def states(self, inputs: Inputs) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Modality -> the prompt's states (3 B, dim), utterance by utterance, and whether they are there (3 B,)."""
        states, present = {}, {}
        for modality, layer in self.project.items():
            has = inputs.present(modality).repeat_interleave(PROMPT)
            vectors = layer(self.mean(inputs.tokens[modality], inputs.masks[modality]))
            states[modality] = self.prompts(vectors).flatten(0, 1) * has.unsqueeze(1)
            present[modality] = has
        return states, present

    def pretrain(self, inputs: Inputs) -> tuple[Tensor, Mapping[str, Tensor]]:
        assert isinstance(self.fusion, PgMFusion)
        return self.fusion.pretrain(*as_tokens(*self.states(inputs)), prompts_there(inputs))

    def forward(self, inputs: Inputs) -> MethodOutput:
        return self.answers(inputs)[0]

    def answers(self, inputs: Inputs) -> tuple[MethodOutput, Tensor]:
        """The emotions, with g3 as the fused vector, and the causes' logits (B,)."""
        if inputs.dialogues is None or inputs.turns is None:
            raise UserError(
                "UniMEEC reads dialogues: the dataset needs a column 'group' that says which samples belong together."
            )
        states, present = self.states(inputs)
        fused = self.fusion(states, *as_tokens(states, present), prompts_there(inputs))
        x, m1, m2 = fused.vector.view(-1, PROMPT, self.fusion.width).unbind(dim=1)
        visible = within(inputs.dialogues, inputs.turns, self.window)
        first, second, third = self.graphs
        g1 = first(x, visible)
        g2 = second(torch.cat([g1, m2], dim=1), visible)
        g3 = third(torch.cat([m1, g1, g2], dim=1), visible)
        return MethodOutput(self.emotion(g3), g3, fused.losses, fused.pretraining), self.cause(g2).squeeze(1)

    def update(self, stage: Stage, step: Step) -> Losses:
        with step.autocast():
            output, causes = self.answers(step.inputs())
            labelled, own = step.labels.get(CAUSE), {}
            if labelled is not None:
                own["cause"] = nn.functional.binary_cross_entropy_with_logits(causes.float(), labelled.float())
            losses = step.losses(output, own.get("cause"), **own)
        step.descend(losses["loss"])
        return losses


def prompts_there(inputs: Inputs) -> dict[str, int]:
    """Modality -> how many of the 3 B prompt states are there; empty where the host does not know it."""
    return {m: PROMPT * int((lengths > 0).sum()) for m, lengths in (inputs.lengths or {}).items()}


def as_tokens(
    states: Mapping[str, Tensor], present: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """States (N, d) as sequences (N, 1, d) of one token, and their masks (N, 1)."""
    return {m: x.unsqueeze(1) for m, x in states.items()}, {m: x.unsqueeze(1) for m, x in present.items()}


def classifier(width: int, outputs: int, dropout: float) -> nn.Sequential:
    """Dropout, Linear, ReLU, Linear; the authors' last sigmoid before cross-entropy is left out."""
    return nn.Sequential(Dropout(dropout), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs))
