"""Fusion on top of PgM: all uni-modal features in one stream, all paired-modal ones in another (eqs. 13-14).

Decided: eq. 13 concatenates features position by position, which needs one S for all modalities, so every sample's
real tokens are first averaged into `length` positions; `axis` holds the other readings. A missing modality is replaced
by a learned vector (on the sequence axis its tokens are left out). The FFNs are one Linear with GELU and LayerNorm.
Cost at width 768: 17.7M parameters for two modalities, 18.9M for three, which the paper's Table 5 does not count.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import Parameter

from ...cache.errors import UserError
from .block import TransformerBlock
from .config import check_heads
from .dropout import Dropout
from .layout import TokenLayout
from .switches import OF_THE_DATA, Positive, Share, Switches, choice


@dataclass(frozen=True)
class FusionConfig(Switches):
    """Configuration of `FusionHead`.

    modalities: names, in the order of concatenation. dim: width d of PgM's features. classes: outputs of the head (1
        for regression).
    fusion: how eq. 14 joins u_f and p_f: "concat", "add", "max" (element-wise) or "attention" (a learned weight each).
    axis: how eq. 13 joins modalities: "feature" (resampled to `length` positions), "sequence", or "pooled" (one vector
        each).
    branches: the streams that exist; one of them when an ablation drops the other.
    Raises UserError for values outside these choices.
    """

    modalities: Annotated[Sequence[str], OF_THE_DATA]
    dim: Positive = 768
    classes: Annotated[Positive, OF_THE_DATA] = 2
    fusion: Literal["concat", "add", "max", "attention"] = "concat"
    axis: Literal["feature", "sequence", "pooled"] = "feature"
    heads: Positive = 12
    feedforward: Positive = 3072
    length: Positive = 50
    dropout: Share = 0.1
    branches: Annotated[Sequence[str], OF_THE_DATA] = ("uni", "paired")

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "modalities", tuple(self.modalities))
        object.__setattr__(self, "branches", tuple(choice("branches", b, ("uni", "paired")) for b in self.branches))
        check_heads(self.dim, self.heads)
        if not self.modalities or not self.branches:
            raise UserError("A fusion head needs at least one modality and one branch.")

    @classmethod
    def small(cls, modalities: Sequence[str], classes: int, **changes: Any) -> "FusionConfig":
        """Matches PgMConfig.small: width 64, 4 heads, feed-forward 128, eight positions."""
        return cls(
            modalities, **({"classes": classes, "dim": 64, "heads": 4, "feedforward": 128, "length": 8} | changes)
        )

    @classmethod
    def paper(cls, modalities: Sequence[str], classes: int, **changes: Any) -> "FusionConfig":
        """Matches PgMConfig.paper; 50 positions are what the paper's vision encoder emits."""
        return cls(modalities, classes=classes, **changes)


class FusionOutput(NamedTuple):
    """fused: (B, d), I_hat of eq. 14; logits: (B, classes)."""

    fused: Tensor
    logits: Tensor


def resample(x: Float[Tensor, "B S D"], mask: Bool[Tensor, "B S"] | None, length: int) -> Float[Tensor, "B N D"]:
    """Each sample's real tokens, in order, adaptively averaged (or repeated) into `length` positions.

    Position j averages real tokens floor(jL/N) up to ceil((j+1)L/N) of the sample's own L, so padding changes nothing.
    Zero without tokens.
    """
    if mask is None:
        return F.adaptive_avg_pool1d(x.transpose(1, 2), length).transpose(1, 2) if x.shape[1] != length else x
    order = mask.cumsum(1) - 1
    count = mask.sum(1, keepdim=True)
    j = torch.arange(length, device=x.device)
    start = (j * count) // length
    stop = ((j + 1) * count + length - 1) // length
    inside = (order[:, None] >= start[:, :, None]) & (order[:, None] < stop[:, :, None]) & mask[:, None]
    weights = inside.to(x.dtype) / inside.sum(2, keepdim=True).clamp(min=1).to(x.dtype)
    return torch.bmm(weights, x)


class Stream(nn.Module):
    """Eq. 13 for one branch: join the modalities, one FFN, one Transformer block, average. -> (B, D)."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.config = config
        wide = config.dim * (1 if config.axis == "sequence" else len(config.modalities))
        self.ffn = nn.Sequential(nn.Linear(wide, config.dim), nn.GELU(), nn.LayerNorm(config.dim))
        self.block = TransformerBlock(config.dim, config.heads, config.feedforward, config.dropout)
        # Stands in for a missing modality; on the sequence axis its tokens are simply not there.
        self.null = None if config.axis == "sequence" else nn.Parameter(torch.zeros(len(config.modalities), config.dim))

    def forward(
        self, parts: Mapping[str, Float[Tensor, "B _ D"]], masks: Mapping[str, Bool[Tensor, "B _"]]
    ) -> Float[Tensor, "B D"]:
        """parts: the modalities that are there at all."""
        if self.null is None:
            return self._over_sequence(parts, masks)
        first = next(iter(parts.values()))
        length = 1 if self.config.axis == "pooled" else self.config.length
        columns = []
        for m, null in zip(self.config.modalities, self.null.to(first.dtype), strict=True):
            if m not in parts:
                columns.append(null.expand(len(first), length, -1))
                continue
            column, mask = resample(parts[m], masks.get(m), length), masks.get(m)
            columns.append(column if mask is None else torch.where(mask.any(1)[:, None, None], column, null))
        layout = TokenLayout.build([length], [None], len(first), first.device)
        return layout.mean(self.block(self.ffn(torch.cat(columns, 2).flatten(0, 1)), layout))

    def _over_sequence(self, parts: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Float[Tensor, "B D"]:
        x = torch.cat(list(parts.values()), 1)
        mask = None
        if any(m in masks for m in parts):
            full = {m: torch.ones(p.shape[:2], dtype=torch.bool, device=p.device) for m, p in parts.items()}
            mask = torch.cat([masks.get(m, f) for m, f in full.items()], 1)
        layout = TokenLayout.build([x.shape[1]], [mask], x.shape[0], x.device)
        return layout.mean(self.block(self.ffn(layout.buckets[0].pack(x)), layout))


class FusionHead(nn.Module, PyTorchModelHubMixin, library_name="pgm", tags=["multimodal"], license="apache-2.0"):
    """Eqs. 13-14: PgM's features -> one vector and logits.

    A modality is missing for a sample whose row of its mask is False, and for all samples where it has no features.
    """

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.config = config
        self.streams = nn.ModuleDict({branch: Stream(config) for branch in config.branches})
        width = config.dim * (len(config.branches) if config.fusion == "concat" else 1)
        self.join = nn.Linear(width, config.dim)
        self.weigh = nn.Linear(config.dim, 1) if config.fusion == "attention" else None
        self.dropout = Dropout(config.dropout)
        self.head = nn.Linear(config.dim, config.classes)

    def parameter_groups(self) -> dict[str, list[Parameter]]:
        """Everything here trains at the paper's general rate: one group, "rest"."""
        return {"rest": list(self.parameters())}

    def forward(
        self,
        uni: Mapping[str, Float[Tensor, "B _ D"]],
        paired: Mapping[str, Float[Tensor, "B _ D"]],
        masks: Mapping[str, Bool[Tensor, "B _"]] | None = None,
    ) -> FusionOutput:
        """Fuse PgMOutput.uni, .paired and .masks.

        Raises UserError for a modality that one branch has and another lacks, or that the configuration does not know.
        """
        given = {branch: {"uni": uni, "paired": paired}[branch] for branch in self.config.branches}
        self._check(given)
        names = [m for m in self.config.modalities if m in next(iter(given.values()))]
        vectors = [self.streams[b]({m: parts[m] for m in names}, masks or {}) for b, parts in given.items()]
        fused = F.gelu(self.join(self._combine(vectors)))
        return FusionOutput(fused, self.head(self.dropout(fused)))

    def _check(self, given: Mapping[str, Mapping[str, Tensor]]) -> None:
        modalities = self.config.modalities
        found = {m for parts in given.values() for m in parts}
        for m in sorted(found - set(modalities)):
            raise UserError(f"Unknown modality {m!r}; this FusionHead was built for {', '.join(modalities)}.")
        for branch, parts in given.items():
            absent = [m for m in modalities if m in found and m not in parts]
            if absent or not parts:
                lacks = ", ".join(absent or modalities)
                raise UserError(f"The {branch} branch lacks {lacks}; it holds {', '.join(parts) or 'nothing'}.")

    def _combine(self, vectors: list[Float[Tensor, "B D"]]) -> Float[Tensor, "B _"]:
        """[u_f, p_f] of eq. 14, or another way to make one vector of the two."""
        if self.config.fusion == "concat":
            return torch.cat(vectors, 1)
        stacked = torch.stack(vectors, 1)
        if self.config.fusion == "add":
            return stacked.sum(1)
        if self.config.fusion == "max":
            return stacked.amax(1)
        assert self.weigh is not None
        weights: Tensor = self.weigh(stacked).softmax(1)
        return (weights * stacked).sum(1)
