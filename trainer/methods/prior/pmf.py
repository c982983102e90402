"""PMF: an adapter that lets audio and vision into the text's tokens (UniMSE, Hu et al., EMNLP 2022, section 3.4).

    x = [h ; a ; v]      a token with the sample's audio and vision vectors, repeated over its tokens
    h' = W3 (W2 sigmoid(W1 x) + x)

Decided, as in the authors' code: a bottleneck of 64, W1 and W2 from N(0, 0.001) without bias at the start, no residual
around the whole. There one adapter follows the feed-forward part of each of the last three blocks of T5; here they
follow one another, because the cached tokens have left T5 (unimse.py).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

BOTTLENECK = 64
SPREAD = 1e-3


class PMFAdapter(nn.Module):
    """tokens (B, S, D) and vectors beside them (B, d) -> (B, S, D)."""

    def __init__(self, width: int, beside: int, bottleneck: int = BOTTLENECK) -> None:
        super().__init__()
        self.down = small(nn.Linear(width + beside, bottleneck))
        self.up = small(nn.Linear(bottleneck, width + beside))
        self.out = nn.Linear(width + beside, width)

    def forward(self, tokens: Tensor, beside: Tensor) -> Tensor:
        x = torch.cat([tokens, beside.unsqueeze(1).expand(-1, tokens.shape[1], -1)], dim=2)
        merged: Tensor = self.out(self.up(self.down(x).sigmoid()) + x)
        return merged


def small(layer: nn.Linear) -> nn.Linear:
    """The layer with weights from N(0, 0.001) and a bias of zero."""
    nn.init.normal_(layer.weight, std=SPREAD)
    nn.init.zeros_(layer.bias)
    return layer
