"""The uni-modal and the paired-modal learner: Transformer blocks that see one partition of the features (eqs. 4-6).

Decided: eq. 4 adds an S x D mask to S x S scores, which no shapes allow. The default multiplies the block's input and
output by the hard gate, so the learner sees and writes its own features only; the other readings are `mask` modes.
Both learners attend within one modality: information crosses modalities in the fusion (eq. 13) only.
"""

from jaxtyping import Float
from torch import Tensor, nn

from .block import UNMASKED, ScoreMask, TransformerBlock
from .config import Hard, PgMConfig
from .layout import TokenLayout
from .partitioner import harden


class Learner(nn.Module):
    """A stack of masked Transformer blocks. x and the gate of each token, both (..., T, D) -> (..., T, D)."""

    def __init__(self, config: PgMConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(
            TransformerBlock(config.dim, config.heads, config.feedforward, config.dropout, config.mask == "channel")
            for _ in range(config.learner_layers)
        )

    def forward(
        self, x: Float[Tensor, "*G T D"], gate: Float[Tensor, "*G T D"], layout: TokenLayout
    ) -> Float[Tensor, "*G T D"]:
        """Refine one partition. `gate` is the soft gate of eq. 1."""
        mask, features = self.masks(gate, layout)
        for block in self.blocks:
            x = x if features is None else features * x
            x = block(x, layout, mask)
            x = x if features is None else features * x
        return x

    def masks(self, gate: Float[Tensor, "*G T D"], layout: TokenLayout) -> tuple[ScoreMask, Tensor | None]:
        """The gate as a mask on scores and a multiplier (..., T, D) of features, by `mask` mode."""
        mode = self.config.mask
        if mode == "feature":
            return UNMASKED, harden(gate, self.config.hard)
        if mode == "qk":
            return ScoreMask(query_key=harden(gate, self.config.hard)), None
        if mode == "channel":
            return ScoreMask(channel=self._additive(layout.mean(gate))), None
        if mode == "token":
            return ScoreMask(key=self._additive(gate.mean(-1))), None
        return UNMASKED, None

    def _additive(self, gate: Tensor) -> Tensor:
        """Eq. 4: (1 - g) C. Detached: C would multiply the gate's gradient by ten thousand."""
        how: Hard = "soft" if self.config.hard == "soft" else "detached"
        return ((1 - harden(gate.detach(), how)) * self.config.mask_constant).detach()
