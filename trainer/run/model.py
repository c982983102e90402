"""What is trained and saved: the input statistics, the null tokens where the task wants them, and the method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...cache import Features
from ..batch import Inputs
from ..data.feed import present_lengths
from ..data.order import Rows
from ..data.sequence import in_context
from ..methods.base import Method, MethodOutput
from .position import Positions

STATISTICS_TOKENS = 1 << 15  # a mean over so many tokens is off by about half a percent of a standard deviation
CONSTANT = 1e-6  # a deviation below this share of the feature's size is rounding: such a feature becomes zero
BLOCK = 1024  # tokens
FARTHEST = 10.0  # deviations; a feature that is rare in training must not come in at hundreds of them in the test split


class Standardize(nn.Module):
    """Features to zero mean and unit variance, clipped at 10 deviations; the buffers are saved with the weights."""

    def __init__(self, statistics: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        for name, (mean, scale) in statistics.items():
            self.register_buffer(f"{name}_mean", mean)
            self.register_buffer(f"{name}_scale", scale)

    def forward(self, inputs: Inputs) -> Inputs:
        tokens = {
            name: ((value - self.get_buffer(f"{name}_mean")) * self.get_buffer(f"{name}_scale")).clamp_(
                -FARTHEST, FARTHEST
            )
            for name, value in inputs.tokens.items()
        }
        return replace(inputs, tokens=tokens)


class NullTokens(nn.Module):
    """One learned token a modality that stands where a sample lacks it (spec A23)."""

    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__()
        self.tokens = nn.ParameterDict({name: nn.Parameter(torch.zeros(width)) for name, width in widths.items()})

    def forward(self, inputs: Inputs) -> Inputs:
        tokens, masks = {}, {}
        for name, value in inputs.tokens.items():
            missing = ~inputs.present(name)
            first = torch.zeros_like(inputs.masks[name])
            first[:, 0] = missing
            tokens[name] = torch.where(first.unsqueeze(-1), self.tokens[name].to(value.dtype), value)
            masks[name] = inputs.masks[name] | first
        known = inputs.lengths
        lengths = None if known is None else {name: np.maximum(count, 1) for name, count in known.items()}
        return replace(inputs, tokens=tokens, masks=masks, lengths=lengths)


class Model(nn.Module):
    """Statistics (None: features as they are), null tokens (None: a missing modality stays missing), positions (None:
    tokens are not told their place) and the method."""

    def __init__(
        self,
        method: Method,
        standardize: Standardize | None,
        null: NullTokens | None,
        positions: Positions | None = None,
    ) -> None:
        super().__init__()
        self.standardize = standardize
        self.null = null
        self.method = method
        self.positions = positions

    def prepared(self, inputs: Inputs) -> Inputs:
        inputs = widened(inputs) if self.standardize is None else self.standardize(inputs)
        inputs = inputs if self.null is None else self.null(inputs)
        inputs = inputs if self.positions is None else self.positions(inputs)
        return inputs if inputs.distances is None else in_context(inputs)

    def forward(self, inputs: Inputs, losses: bool = True) -> MethodOutput:
        """The method's output; without `losses` only its answer, in training too."""
        run = self.method if losses else self.method.answer
        output: MethodOutput = run(self.prepared(inputs))
        return output

    @property
    def trainable(self) -> int:
        """Number of trainable parameters."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)


def widened(inputs: Inputs) -> Inputs:
    """Tokens in float32; `Standardize` does the same in passing, as its buffers are float32."""
    return replace(inputs, tokens={name: value.float() for name, value in inputs.tokens.items()})


def unit_statistics(widths: Mapping[str, int]) -> dict[str, tuple[Tensor, Tensor]]:
    """Statistics of the right shapes, for weights about to be loaded."""
    return {name: (torch.zeros(width), torch.ones(width)) for name, width in widths.items()}


def measured_statistics(features: Mapping[str, Features], rows: Rows) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean (D,) and reciprocal deviation (D,) of each modality over about 32,768 tokens of the given samples.

    The samples are evenly spaced over `rows`, so the numbers depend on the split alone.
    """
    return {name: statistics_of(store, rows) for name, store in features.items()}


def statistics_of(store: Features, rows: Rows) -> tuple[Tensor, Tensor]:
    """One modality's mean and reciprocal deviation."""
    lengths = present_lengths(store)[rows]
    rows = rows[lengths > 0]
    if not len(rows):
        return torch.zeros(store.dim), torch.ones(store.dim)
    samples = max(1, int(STATISTICS_TOKENS / lengths[lengths > 0].mean()))
    chosen = rows if samples >= len(rows) else rows[np.linspace(0, len(rows) - 1, samples).astype(np.int64)]
    packed, _ = store.gather(chosen)
    # Blocks in float32, their sums in float64: as exact as it matters, and ten times as fast as float64 throughout.
    blocks = [packed[start : start + BLOCK].astype(np.float32) for start in range(0, len(packed), BLOCK)]
    mean: NDArray[np.float64] = np.stack([b.sum(axis=0) for b in blocks]).sum(axis=0, dtype=np.float64) / len(packed)
    centre = mean.astype(np.float32)
    squares = np.stack([np.square(b - centre).sum(axis=0) for b in blocks]).sum(axis=0, dtype=np.float64)
    deviation = np.sqrt(squares / len(packed))
    constant = deviation <= CONSTANT * (np.abs(mean) + CONSTANT)
    scale = np.where(constant, 0.0, 1 / np.where(constant, 1.0, deviation))
    return torch.from_numpy(centre), torch.from_numpy(scale.astype(np.float32))
