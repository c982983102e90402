"""A multimodal task whose unique, redundant and synergistic information is known, to check claims about what is where.

The label is a binary number. Each of its bits is fair, independent, and of one kind: *unique* to a modality,
*redundant* (every modality carries it), or *synergistic* (the XOR of one hidden bit in each modality, so that no strict
subset of modalities knows anything about it). Every carried bit is a signed direction of its own in the tokens, under
Gaussian noise.

Decided: bits instead of continuous sources, so the information decomposition is exact and the best possible accuracy
with any subset of modalities has a closed form (`bayes_accuracy`). Cost: nothing here resembles natural data.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...cache.errors import UserError


@dataclass(frozen=True)
class SyntheticConfig:
    """unique: bits only this modality carries, by modality (0 allowed); redundant, synergistic: bits of those kinds.

    tokens, dim: shape (S, D) of a modality's features. noise: standard deviation of each feature, the signal's
    amplitude being 1 along each bit's direction. missing: probability that a sample lacks a modality (never all).
    ragged: draw each sample's number of tokens from 1..tokens.
    Raises UserError for impossible values.
    """

    unique: Mapping[str, int] = field(default_factory=lambda: {"a": 1, "b": 1})
    redundant: int = 0
    synergistic: int = 0
    tokens: int = 6
    dim: int = 32
    noise: float = 1.0
    missing: float = 0.0
    ragged: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "unique", dict(self.unique))
        counts = [*self.unique.values(), self.redundant, self.synergistic]
        if not self.unique or min(counts) < 0 or not 1 <= self.bits <= 16:
            raise UserError(f"The label needs 1 to 16 bits over at least one modality; asked for {self.bits}.")
        if self.synergistic and len(self.unique) < 2:
            raise UserError("Synergistic bits need at least two modalities.")
        if max(map(self.carried, self.unique)) > self.dim:
            raise UserError(f"dim={self.dim} is too small: a modality carries more bits than it has features.")
        if not 0 <= self.missing < 1 or self.noise < 0 or self.tokens < 1:
            raise UserError("Asked for missing outside [0, 1), negative noise or no tokens.")

    @property
    def bits(self) -> int:
        """Bits of the label: its entropy, and the sum of the information atoms."""
        return sum(self.unique.values()) + self.redundant + self.synergistic

    @property
    def classes(self) -> int:
        return 1 << self.bits

    def carried(self, modality: str) -> int:
        """Bits that a modality's tokens carry: unique, redundant, and its halves of the synergistic ones."""
        return self.unique[modality] + self.redundant + self.synergistic

    @property
    def information(self) -> dict[str, int]:
        """The label's information in bits by atom, exact without noise: "unique:NAME", "redundant", "synergistic"."""
        atoms = {f"unique:{m}": n for m, n in self.unique.items()}
        return atoms | {"redundant": self.redundant, "synergistic": self.synergistic}


@dataclass(frozen=True)
class SyntheticData:
    """tokens, masks: modality -> (N, S, D) and (N, S); labels (N,); bits: atom -> (N, k), the label's bits by kind;
    halves: modality -> (N, k), its hidden bits of the synergistic ones."""

    tokens: dict[str, Float[Tensor, "N S D"]]
    masks: dict[str, Bool[Tensor, "N S"]]
    labels: Int[Tensor, " N"]
    bits: dict[str, Int[Tensor, "N k"]]
    halves: dict[str, Int[Tensor, "N k"]]


class SyntheticTask:
    """One drawing of the bits' directions; `sample` draws data from it, so that train and test share the task."""

    def __init__(self, config: SyntheticConfig, seed: int) -> None:
        self.config = config
        self.directions: dict[str, Float[Tensor, "k D"]] = {}
        generator = torch.Generator().manual_seed(seed)
        for m in config.unique:
            square = torch.randn(config.dim, config.dim, generator=generator, dtype=torch.float64)
            self.directions[m] = torch.linalg.qr(square)[0][: config.carried(m)].float()

    def sample(self, count: int, seed: int) -> SyntheticData:
        """`count` samples; the same seed gives the same samples."""
        generator = torch.Generator().manual_seed(seed)
        config = self.config
        bits = {
            atom: torch.randint(0, 2, (count, n), generator=generator)
            for atom, n in config.information.items()
            if atom != "synergistic"
        }
        halves = {m: torch.randint(0, 2, (count, config.synergistic), generator=generator) for m in config.unique}
        bits["synergistic"] = torch.stack(list(halves.values())).sum(0) % 2
        everything = torch.cat(list(bits.values()), 1)
        labels = (everything << torch.arange(config.bits)).sum(1)
        masks = self._masks(count, generator)
        tokens = {}
        for m in config.unique:
            carried = torch.cat([bits[f"unique:{m}"], bits["redundant"], halves[m]], 1)
            signal = (2.0 * carried - 1) @ self.directions[m]
            noise = torch.randn(count, config.tokens, config.dim, generator=generator) * config.noise
            tokens[m] = (signal.unsqueeze(1) + noise) * masks[m].unsqueeze(2)
        return SyntheticData(tokens, masks, labels, bits, halves)

    def _masks(self, count: int, generator: torch.Generator) -> dict[str, Bool[Tensor, "N S"]]:
        config, names = self.config, list(self.config.unique)
        present = torch.rand(count, len(names), generator=generator) >= config.missing
        # A sample without any modality has no input; it keeps a random one.
        rescue = torch.randint(0, len(names), (count,), generator=generator)
        present[torch.arange(count), rescue] |= ~present.any(1)
        masks = {}
        for i, m in enumerate(names):
            lengths = torch.full((count,), config.tokens)
            if config.ragged:
                lengths = torch.randint(1, config.tokens + 1, (count,), generator=generator)
            masks[m] = (torch.arange(config.tokens) < lengths[:, None]) & present[:, i : i + 1]
        return masks


def bayes_accuracy(config: SyntheticConfig, available: Iterable[str]) -> float:
    """The best accuracy any classifier reaches with these modalities, all their tokens real.

    A bit carried by S tokens is misread with probability Q(sqrt(S) / noise); what is not carried is guessed.
    Raises UserError for a modality that does not exist.
    """
    names = set(available)
    if unknown := names - set(config.unique):
        raise UserError(f"Unknown modality {sorted(unknown)[0]!r}; this task has {', '.join(config.unique)}.")

    def misread(tokens: int) -> float:
        if tokens == 0:
            return 0.5
        return 0.0 if config.noise == 0 else 0.5 * math.erfc(math.sqrt(tokens / 2) / config.noise)

    one = misread(config.tokens)
    accuracy = float((1 - misread(config.tokens * len(names))) ** config.redundant)
    for m, bits in config.unique.items():
        accuracy *= (1 - one if m in names else 0.5) ** bits
    halves = (1 + (1 - 2 * one) ** len(config.unique)) / 2 if names == set(config.unique) else 0.5
    return float(accuracy * halves**config.synergistic)
