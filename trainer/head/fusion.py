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
from .layout import TokenLayout, joined
from .stacked import LayerNorm, Linear, side_by_side
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


def resampling(mask: Bool[Tensor, "*B S"], length: int) -> Float[Tensor, "*B N S"]:
    """Each sample's real tokens, in order, adaptively averaged (or repeated) into `length` positions, as weights.

    Position j averages real tokens floor(jL/N) up to ceil((j+1)L/N) of the sample's own L, so padding changes nothing.
    Zero without tokens.
    """
    order = (mask.cumsum(-1) - 1).masked_fill(~mask, -1).unsqueeze(-2)
    count = mask.sum(-1, keepdim=True)
    j = torch.arange(length, device=mask.device)
    start, stop = (j * count) // length, ((j + 1) * count + length - 1) // length
    inside = (order >= start.unsqueeze(-1)) & (order < stop.unsqueeze(-1))
    return inside / (stop - start).clamp(min=1).unsqueeze(-1)


def resample(x: Float[Tensor, "B S D"], weights: Float[Tensor, "B N S"] | None, length: int) -> Float[Tensor, "B N D"]:
    """Tokens at `length` positions: by weights, or, where every token is real, by their place."""
    if weights is not None:
        return torch.bmm(weights.to(x.dtype), x)
    return F.adaptive_avg_pool1d(x.transpose(1, 2), length).transpose(1, 2) if x.shape[1] != length else x


def resamplings(masks: Mapping[str, Bool[Tensor, "B _"]], length: int) -> dict[str, Float[Tensor, "B N _"]]:
    """Modality -> its weights, made for all at once."""
    if not masks:
        return {}
    longest = max(mask.shape[1] for mask in masks.values())
    weights = resampling(torch.stack([F.pad(m, (0, longest - m.shape[1])) for m in masks.values()]), length)
    return {m: w[..., : masks[m].shape[1]] for m, w in zip(masks, weights.unbind(), strict=True)}


class Stream(nn.Module):
    """Eq. 13 for one branch: the modalities, joined, through one FFN and one Transformer block, averaged.

    (..., T, M, D) -> (..., B, D), or (..., T, 1, D) on the sequence axis.
    """

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        wide = config.dim * (1 if config.axis == "sequence" else len(config.modalities))
        self.ffn = nn.Sequential(Linear(wide, config.dim), nn.GELU(), LayerNorm(config.dim))
        self.block = TransformerBlock(config.dim, config.heads, config.feedforward, config.dropout)
        # Stands in for a missing modality; on the sequence axis its tokens are simply not there.
        self.null = None if config.axis == "sequence" else nn.Parameter(torch.zeros(len(config.modalities), config.dim))

    def forward(
        self, x: Float[Tensor, "*G T M D"], present: Bool[Tensor, "T M 1"] | None, layout: TokenLayout
    ) -> Float[Tensor, "*G B D"]:
        if self.null is not None and present is not None:
            x = torch.where(present, x, self.null.to(x.dtype).unsqueeze(-3))
        return layout.mean(self.block(self.ffn(x.flatten(-2)), layout))


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
        # (B, S_m, G * D): a modality's branches side by side, so that one product resamples them.
        parts = {m: joined([branch[m] for branch in given.values()], 2) for m in names}
        joint = self._over_sequence if self.config.axis == "sequence" else self._aligned
        x, present, layout = joint(parts, {m: mask for m, mask in (masks or {}).items() if m in parts})
        x = torch.unflatten(x, -1, (len(given), -1)).movedim(-2, 0)
        streams = side_by_side(list(self.streams.values()))
        vectors = streams(x if len(given) > 1 else x[0], present, layout)
        fused = F.gelu(self.join(self._combine(list(vectors) if len(given) > 1 else [vectors])))
        return FusionOutput(fused, self.head(self.dropout(fused)))

    def _aligned(
        self, parts: Mapping[str, Float[Tensor, "B _ E"]], masks: Mapping[str, Bool[Tensor, "B _"]]
    ) -> tuple[Float[Tensor, "T M E"], Bool[Tensor, "T M 1"] | None, TokenLayout]:
        """Every modality at `length` positions (T = B * length), and where a sample has it."""
        first = next(iter(parts.values()))
        length = 1 if self.config.axis == "pooled" else self.config.length
        weights = resamplings(masks, length)
        none, always = first.new_zeros(()), torch.ones((), dtype=torch.bool, device=first.device)
        columns, present = [], []
        for m in self.config.modalities:
            there = m in parts
            column = resample(parts[m], weights.get(m), length) if there else none
            columns.append(column.expand(len(first), length, first.shape[2]))
            present.append((masks[m].any(1) if m in masks else always if there else ~always).expand(len(first)))
        layout = TokenLayout.build([length], [None], len(first), first.device)
        shown = None
        if masks or len(parts) < len(columns):
            shown = torch.stack(present, 1).repeat_interleave(length, 0, output_size=layout.tokens).unsqueeze(2)
        return torch.stack(columns, 2).flatten(0, 1), shown, layout

    def _over_sequence(
        self, parts: Mapping[str, Float[Tensor, "B _ E"]], masks: Mapping[str, Bool[Tensor, "B _"]]
    ) -> tuple[Float[Tensor, "T 1 E"], None, TokenLayout]:
        """Every modality's real tokens, one after the other."""
        x, mask = torch.cat(list(parts.values()), 1), None
        if masks:
            full = {m: torch.ones(p.shape[:2], dtype=torch.bool, device=p.device) for m, p in parts.items()}
            mask = torch.cat([masks.get(m, f) for m, f in full.items()], 1)
        layout = TokenLayout.build([x.shape[1]], [mask], x.shape[0], x.device)
        return layout.pack([x]).unsqueeze(1), None, layout

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
