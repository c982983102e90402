"""The pre-training losses: which modality is u from (UFC), is this u or p (PFC), can I be rebuilt (UPR). Eqs. 8-10.

Decided: a sample's tokens are averaged first (or classified one by one, loss_level="token"), then samples count alike;
a missing modality takes part in nothing. UFC and PFC average over modalities, UPR sums over them, as eq. 10 writes.
All N iterations are one call, whose losses are summed.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from .config import PgMConfig
from .layout import TokenLayout


class Weights:
    """What each row of a batch counts in a loss: samples alike, a missing modality nothing.

    sum: (R,) one in all for each modality. mean: (R,) one in all for the modalities that any sample has.
    """

    def __init__(self, layout: TokenLayout, dtype: torch.dtype) -> None:
        present = layout.present.view(-1, layout.batch)
        having = present.sum(1, keepdim=True)
        self.sum = (present.to(dtype) / having.clamp(min=1)).flatten()
        self.mean = self.sum / (having > 0).sum().clamp(min=1)


def reconstruction_loss(
    rebuilt: Float[Tensor, "N T D"], original: Float[Tensor, "T D"], weights: Float[Tensor, " T"]
) -> Float[Tensor, ""]:
    """Eq. 10: ||I - I_hat||^2 / D of each token, weighted, summed over iterations."""
    target = original.detach().expand_as(rebuilt)
    squared = F.mse_loss(rebuilt.to(original.dtype), target, reduction="none").mean(-1)
    return (squared * weights).sum()


class Classifiers(nn.Module):
    """The two linear classifiers of eqs. 8 and 9."""

    def __init__(self, config: PgMConfig) -> None:
        super().__init__()
        self.config = config
        self.modality = nn.Linear(config.dim, len(config.modalities))
        self.partition = nn.Linear(config.dim, 2)

    def uni(
        self, u: Float[Tensor, "N _ D"], modality: Int[Tensor, " _"], weights: Float[Tensor, " _"]
    ) -> Float[Tensor, ""]:
        """UFC: name the modality from its uni-modal features (rows, or tokens by loss_level)."""
        return entropy(self.modality(u), modality, weights)

    def paired(
        self, u: Float[Tensor, "N _ D"] | None, p: Float[Tensor, "N _ D"], weights: Float[Tensor, " _"]
    ) -> Float[Tensor, ""]:
        """PFC: tell uni-modal (class 0) from paired-modal features (class 1); without u, p alone."""
        zero = torch.zeros(p.shape[-2], dtype=torch.long, device=p.device)
        if u is None:
            return entropy(self.partition(p), zero + 1, weights)
        target = torch.stack([zero, zero + 1])
        return entropy(self.partition(torch.stack([u, p], 1)), target, weights / 2)


def entropy(
    logits: Float[Tensor, "N *rows classes"], target: Int[Tensor, "*rows"], weights: Float[Tensor, "*_"]
) -> Float[Tensor, ""]:
    """Cross-entropy of each row, weighted, summed over rows and iterations."""
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    wanted = target.expand(logits.shape[:-1])
    rows = F.cross_entropy(logits.flatten(0, -2), wanted.flatten(), reduction="none").view_as(wanted)
    return (rows * weights).sum()


def modality_of_row(layout: TokenLayout) -> Shaped[Tensor, " R"]:
    """The number of the modality each row is of."""
    modality = torch.arange(len(layout.segments), device=layout.present.device)
    return modality.unsqueeze(1).expand(-1, layout.batch).reshape(-1)
