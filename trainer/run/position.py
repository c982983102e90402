"""`--set position=sinusoidal|learned`: where a token stands, as further features of it, for every method alike.

Attention and means do not know the order of tokens. Pretrained encoders of images and texts put it into their
features; raw series do not. Eight features are put beside a token's own rather than added to them, since a series may
have one channel only; every method's first projection takes them in. Sinusoidal (Vaswani et al. 2017, section 3.5):
sine and cosine of four wavelengths, 4 to 256 tokens. Learned: a table of 512 places a modality, of which later tokens
share the last; a first stage that trains a part of the method leaves it as it is. Off (the default) nothing is added,
to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..batch import Inputs
from ..protocol import Position

WIDTH = 8  # features
WAVELENGTHS = (4.0, 16.0, 64.0, 256.0)  # tokens
PLACES = 512
SCALE = 0.02  # of a learned table's initial values


class Positions(nn.Module):
    """Tokens (B, S, D) of every modality to (B, S, D + 8); padding stays zero."""

    def __init__(self, kind: Position, modalities: Sequence[str]) -> None:
        super().__init__()
        learned = modalities if kind == "learned" else ()
        self.tables = nn.ParameterDict({m: nn.Parameter(SCALE * torch.randn(PLACES, WIDTH)) for m in learned})

    def forward(self, inputs: Inputs) -> Inputs:
        tokens = {}
        for name, value in inputs.tokens.items():
            places = torch.arange(value.shape[1], device=value.device)
            known = self.tables[name][places.clamp(max=PLACES - 1)] if name in self.tables else sinusoids(places)
            beside = known.to(value.dtype) * inputs.masks[name].unsqueeze(2)
            tokens[name] = torch.cat([value, beside], dim=2)
        return replace(inputs, tokens=tokens)


def sinusoids(places: Tensor) -> Tensor:
    """(S,) places to (S, 8)."""
    angles = torch.stack([places * (2 * math.pi / length) for length in WAVELENGTHS], dim=1)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def widths_with(kind: Position, widths: Mapping[str, int]) -> dict[str, int]:
    """Token widths as a method sees them."""
    return {m: width + (0 if kind == "none" else WIDTH) for m, width in widths.items()}
