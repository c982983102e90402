"""What a PgM is made of: one frozen dataclass, one field for every point the paper leaves open.

Decided: the defaults are the readings of docs/paper-to-code.md (A1 to A28 there); a field that differs from its default
is an ablation, so a configuration says by itself how far it is from the paper. Nothing here is computed at run time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from ...cache.errors import UserError
from .switches import OF_THE_DATA, AboveZero, Positive, Range, Share, Switches

Mask = Literal["feature", "channel", "token", "qk", "none"]
Hard = Literal["straight-through", "detached", "soft"]
Module = Literal["partitioner", "uni_learner", "paired_learner", "decoder"]


def check_heads(dim: int, heads: int) -> None:
    """Raise a UserError when the heads do not divide the width."""
    if dim % heads:
        raise UserError(f"dim={dim} cannot be split over heads={heads}: {dim} / {heads} is not whole.")


@dataclass(frozen=True)
class PgMConfig(Switches):
    """Configuration of `PgM` (section 3 of the paper).

    modalities: name -> feature width D_m of the frozen encoder; a width other than `dim` is projected to it.
    dim, heads, feedforward, dropout: the Transformer block (768, 12, 3072, 0.1), dropout on both residual branches.
    iterations: N of section 3.2. learner_layers: blocks a learner (Table 5 counts one).
    mask: how eq. 4's mask reaches a learner. "feature" multiplies the block's input and output by the hard gate;
        "channel" attends across features and adds the mask to the D x D scores (eqs. 5-6 to the letter); "token"
        averages the gate to one number a token and masks keys (of no effect unless gate_scope="token"); "qk" masks the
        input of queries and keys only; "none" leaves the learners unmasked. mask_constant: C of eq. 4.
    hard: the binary gate of eq. 4: g >= 0.5 with straight-through gradients, detached, or the soft gate itself.
        Additive masks (channel, token) are always detached.
    gate_scope: one gate a sample, or one a token. gate_logits: "own" W_u u and W_p p; "shared" one affine map of I;
        "literal" u and p themselves, without weights (debugging: both gates then share their logits).
    gate_temperature divides the logits; gate_chunk neighbouring features share one gate value.
    share_partitioner, share_learners, share_decoder: one for all modalities, or one a modality.
    feedback: what the next iteration's partitioner reads: the learners' output, or eq. 3's.
    decoder: "cross" one cross-attention block, queries u over keys [u; p]; "ffn" 2D -> ff -> D a token (eq. 7).
    loss_level: classify pooled features or every token (eqs. 8-9). pfc: feed the PFC classifier u and p, or p only.
    without: removed modules (Table 3); ablation: "bypass" makes a removed learner the identity and a removed
        partitioner u = p = I; "drop" removes the branch from the output, the decoder and the losses as well.
    checkpointing: recompute each learner's activations in the backward pass: less memory, more time.

    Raises UserError for values outside these choices.
    """

    modalities: Annotated[Mapping[str, int], OF_THE_DATA]
    dim: Positive = 768
    heads: Positive = 12
    feedforward: Positive = 3072
    dropout: Share = 0.1
    iterations: Positive = 3
    learner_layers: Positive = 1
    mask: Mask = "feature"
    mask_constant: Annotated[float, Range(most=0)] = -10000.0
    hard: Hard = "straight-through"
    gate_scope: Literal["sample", "token"] = "sample"
    gate_logits: Literal["own", "shared", "literal"] = "own"
    gate_temperature: AboveZero = 1.0
    gate_chunk: Positive = 1
    share_partitioner: bool = False
    share_learners: bool = True
    share_decoder: bool = True
    feedback: Literal["learner", "partition"] = "learner"
    decoder: Literal["cross", "ffn"] = "cross"
    loss_level: Literal["pooled", "token"] = "pooled"
    pfc: Literal["both", "paired"] = "both"
    without: tuple[Module, ...] = ()
    ablation: Literal["bypass", "drop"] = "bypass"
    checkpointing: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "modalities", dict(self.modalities))
        check_heads(self.dim, self.heads)
        self._check_rest()

    def _check_rest(self) -> None:
        if not self.modalities:
            raise UserError("PgM needs at least one modality, for example modalities={'text': 768}.")
        for name, width in self.modalities.items():
            if not name or "." in name:
                raise UserError(f"The modality name {name!r} must be a non-empty word without dots.")
            if isinstance(width, bool) or not isinstance(width, int) or width < 1:
                raise UserError(f"Modality {name!r} has feature width {width!r}; it must be a positive whole number.")
        if self.dim % self.gate_chunk:
            raise UserError(f"gate_chunk={self.gate_chunk} does not divide dim={self.dim}.")
        if self.ablation == "drop" and {"uni_learner", "paired_learner"} <= set(self.without):
            raise UserError("Dropping both the uni-modal and the paired-modal branch leaves nothing to fuse.")

    @classmethod
    def small(cls, modalities: Mapping[str, int], **changes: Any) -> "PgMConfig":
        """The preset for two CPU cores: width 64, 4 heads, feed-forward 128, the paper's three iterations."""
        return cls(modalities, **({"dim": 64, "heads": 4, "feedforward": 128} | changes))

    @classmethod
    def paper(cls, modalities: Mapping[str, int], **changes: Any) -> "PgMConfig":
        """The paper's sizes (section 4.2, Table 5): width 768, 12 heads, feed-forward 3072, three iterations."""
        return cls(modalities, **changes)

    @property
    def branches(self) -> tuple[str, ...]:
        """The feature branches that reach the fusion: "uni", "paired" or both."""
        if self.ablation == "bypass":
            return ("uni", "paired")
        if "partitioner" in self.without:
            return ("uni",)
        removed = {"uni_learner": "uni", "paired_learner": "paired"}
        return tuple(b for b in ("uni", "paired") if b not in {removed.get(m) for m in self.without})
