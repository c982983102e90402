"""A modality's vector as the prior models make it: the mean of the leading modality's tokens, an LSTM for the others.

The published models take a fine-tuned BERT's first token for the text and an LSTM's last state, through a linear layer,
for audio and vision. On cached features the leading modality (text where there is one, else the first) keeps its frozen
tokens and is their mean; the others keep their LSTM, whose every modality has the same sizes here. A sample without a
modality has a vector of zeros.

The LSTM runs over padded tokens and its state is read where a sample ends, backwards from there for the second
direction: packing would read the lengths on the host in every step.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ...batch import Inputs
from ...head.dropout import Dropout


def leading(modalities: Mapping[str, int]) -> str:
    """The modality that these models are built around."""
    return "text" if "text" in modalities else next(iter(modalities))


class MeanEncoder(nn.Module):
    """(B, S, D) tokens and mask (B, S) to the mean (B, D) of the real ones."""

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        total = (tokens * mask.unsqueeze(2)).sum(dim=1)
        return total / mask.sum(dim=1, keepdim=True).clamp(min=1)


class LastState(nn.Module):
    """(B, S, D) tokens and mask (B, S) to (B, out): the last LSTM state in each direction, dropout, a linear layer."""

    def __init__(self, width: int, hidden: int, out: int, dropout: float = 0.0, bidirectional: bool = False) -> None:
        super().__init__()
        directions = 2 if bidirectional else 1
        self.recurrent = nn.ModuleList(nn.LSTM(width, hidden, batch_first=True) for _ in range(directions))
        self.dropout = Dropout(dropout)
        self.project = nn.Linear(directions * hidden, out)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        states, lengths = self.states(tokens, mask), mask.sum(dim=1)
        last = (lengths - 1).clamp(min=0)[:, None, None].expand(-1, 1, states[0].shape[2])
        ends = [state.gather(1, last).squeeze(1) for state in states]
        vector: Tensor = self.project(self.dropout(torch.cat(ends, dim=1)))
        return vector * (lengths > 0).unsqueeze(1)

    def states(self, tokens: Tensor, mask: Tensor) -> list[Tensor]:
        """(B, S, hidden) a direction, over the real tokens moved to the front; the second reads them backwards."""
        order = mask.int().argsort(dim=1, descending=True, stable=True)
        places = torch.arange(mask.shape[1], device=mask.device)
        backwards = (mask.sum(dim=1, keepdim=True) - 1 - places).clamp(min=0)
        orders = [order, order.gather(1, backwards)]
        wide = [o.unsqueeze(2).expand(-1, -1, tokens.shape[2]) for o in orders]
        return [lstm(tokens.gather(1, o))[0] for lstm, o in zip(self.recurrent, wide, strict=False)]


def vector_widths(modalities: Mapping[str, int], out: int) -> dict[str, int]:
    """Modality -> the width of its vector, where the LSTMs give `out`."""
    return {m: width if m == leading(modalities) else out for m, width in modalities.items()}


class VectorEncoders(nn.Module):
    """Every modality's vector (B, d_m), as wide as `vector_widths` says.

    modalities: name -> token width. hidden, out: of the LSTMs.
    """

    def __init__(
        self, modalities: Mapping[str, int], hidden: int, out: int, dropout: float, bidirectional: bool = False
    ) -> None:
        super().__init__()
        self.leading = leading(modalities)
        self.by_modality = nn.ModuleDict(
            {
                m: MeanEncoder() if m == self.leading else LastState(width, hidden, out, dropout, bidirectional)
                for m, width in modalities.items()
            }
        )

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        return {m: encoder(inputs.tokens[m], inputs.masks[m]) for m, encoder in self.by_modality.items()}
