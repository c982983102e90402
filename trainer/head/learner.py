"""The uni-modal and the paired-modal learner: Transformer blocks that see one partition of the features (eqs. 4-6).

Decided: eq. 4 adds an S x D mask to S x S scores, which no shapes allow. The default multiplies the block's input and
output by the hard gate, so the learner sees and writes its own features only; the other readings are `mask` modes.
Both learners attend within one modality: information crosses modalities in the fusion (eq. 13) only.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .block import UNMASKED, ScoreMask, TransformerBlock
from .config import Hard, PgMConfig
from .layout import TokenLayout
from .partitioner import harden


class Learner(nn.Module):
    """A stack of masked Transformer blocks. x (T, D) flat tokens, gate (R, D) or (T, D) -> (T, D)."""

    def __init__(self, config: PgMConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(
            TransformerBlock(config.dim, config.heads, config.feedforward, config.dropout, config.mask == "channel")
            for _ in range(config.learner_layers)
        )

    def forward(self, x: Float[Tensor, "T D"], gate: Float[Tensor, "_ D"], layout: TokenLayout) -> Float[Tensor, "T D"]:
        """Refine one partition. `gate` is the soft gate of eq. 1: a row a sample, or a row a token (gate_scope)."""
        mask, features = self.masks(gate, layout)
        for block in self.blocks:
            x = x if features is None else features * x
            x = checkpoint(block, x, layout, mask, use_reentrant=False) if self._recompute else block(x, layout, mask)
            x = x if features is None else features * x
        return x

    @property
    def _recompute(self) -> bool:
        return self.config.checkpointing and self.training and torch.is_grad_enabled()

    def masks(self, gate: Float[Tensor, "_ D"], layout: TokenLayout) -> tuple[ScoreMask, Tensor | None]:
        """The gate as a mask on scores and a multiplier (T, D) of features, by `mask` mode."""
        mode, by_token = self.config.mask, self.config.gate_scope == "token"
        if mode in ("feature", "qk"):
            hard = harden(gate, self.config.hard)
            features = hard if by_token else layout.broadcast(hard)
            return (UNMASKED, features) if mode == "feature" else (ScoreMask(query_key=features), None)
        if mode == "channel":
            return ScoreMask(channel=self._additive(layout.mean(gate) if by_token else gate)), None
        if mode == "token":
            tokens = gate if by_token else layout.broadcast(gate)
            return ScoreMask(key=self._additive(tokens.mean(1))), None
        return UNMASKED, None

    def _additive(self, gate: Tensor) -> Tensor:
        """Eq. 4: (1 - g) C. Detached: C would multiply the gate's gradient by ten thousand."""
        how: Hard = "soft" if self.config.hard == "soft" else "detached"
        return ((1 - harden(gate.detach(), how)) * self.config.mask_constant).detach()
