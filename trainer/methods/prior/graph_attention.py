"""Graph attention among the utterances of a dialogue, each with its neighbours within a window (UniMEEC; GAT of
Velickovic et al., ICLR 2018).

    e_ij = LeakyReLU(a [W h_i ; W h_j]),    j in the same dialogue and |i - j| <= window (i itself included)
    h_i' = ELU( sum_j dropout(softmax_j e_ij) W h_j ),    heads side by side

a [x ; y] is a_1 x + a_2 y, so that pairs cost a sum of two numbers and not a concatenation. All utterances of a batch
stand in one (B, B) score matrix whose other dialogues are masked: memory goes with B squared.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...head.dropout import Dropout

SLOPE = 0.2  # of LeakyReLU, as in GAT


def within(dialogues: Tensor, turns: Tensor, window: int) -> Tensor:
    """(B, B) bool: whether two utterances belong to one dialogue and lie at most `window` turns apart.

    dialogues: (B,) a number a dialogue. turns: (B,) an utterance's place in it.
    """
    same = dialogues.unsqueeze(0) == dialogues.unsqueeze(1)
    return same & ((turns.unsqueeze(0) - turns.unsqueeze(1)).abs() <= window)


class GraphAttention(nn.Module):
    """(B, d_in) utterances and who sees whom (B, B) -> (B, d_out); `heads` must divide d_out."""

    def __init__(self, width_in: int, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(width_in, width, bias=False)
        self.asking = nn.Parameter(torch.empty(heads, width // heads))
        self.asked = nn.Parameter(torch.empty(heads, width // heads))
        self.dropout = Dropout(dropout)
        for parameter in (self.asking, self.asked):
            nn.init.xavier_uniform_(parameter)

    def weights(self, values: Tensor, visible: Tensor) -> Tensor:
        """(heads, B, B) attention of every utterance, rows summing to 1; values (B, heads, d)."""
        scores = nn.functional.leaky_relu(
            (values * self.asking).sum(dim=2).T.unsqueeze(2) + (values * self.asked).sum(dim=2).T.unsqueeze(1), SLOPE
        )
        return scores.masked_fill(~visible, float("-inf")).softmax(dim=2)

    def forward(self, utterances: Tensor, visible: Tensor) -> Tensor:
        values = self.project(utterances).view(len(utterances), self.heads, -1)
        weights = self.dropout(self.weights(values, visible))
        return nn.functional.elu(torch.einsum("hij,jhd->ihd", weights, values).flatten(1))
