"""The pre-training losses: which modality is u from (UFC), is this u or p (PFC), can I be rebuilt (UPR). Eqs. 8-10.

Decided: a sample's tokens are averaged first (or classified one by one, loss_level="token"), then samples count alike;
a missing modality takes part in nothing. UFC and PFC average over modalities, UPR sums over them, as eq. 10 writes.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from .config import PgMConfig
from .layout import TokenLayout


def per_modality(rows: Float[Tensor, " R"], layout: TokenLayout) -> tuple[Float[Tensor, " M"], Bool[Tensor, " M"]]:
    """Average over the samples that have the modality, and which modalities any sample has."""
    modalities = len(layout.segments)
    present = layout.present.view(modalities, layout.batch)
    total = (rows.view(modalities, layout.batch) * present.to(rows.dtype)).sum(1)
    return total / present.sum(1).clamp(min=1).to(rows.dtype), present.any(1)


def mean_over_modalities(rows: Float[Tensor, " R"], layout: TokenLayout) -> Float[Tensor, ""]:
    """Average over present samples, then over present modalities."""
    values, present = per_modality(rows, layout)
    return values.sum() / present.sum().clamp(min=1).to(values.dtype)


def reconstruction_loss(
    rebuilt: Float[Tensor, "T D"], original: Float[Tensor, "T D"], layout: TokenLayout
) -> Float[Tensor, ""]:
    """Eq. 10: ||I - I_hat||^2 / D, averaged over a sample's tokens and over samples, summed over modalities."""
    squared = (rebuilt.to(original.dtype) - original.detach()).square().mean(1, keepdim=True)
    return per_modality(layout.mean(squared).squeeze(1), layout)[0].sum()


class Classifiers(nn.Module):
    """The two linear classifiers of eqs. 8 and 9."""

    def __init__(self, config: PgMConfig) -> None:
        super().__init__()
        self.config = config
        self.modality = nn.Linear(config.dim, len(config.modalities))
        self.partition = nn.Linear(config.dim, 2)

    def _entropy(self, logits: Tensor, target: Int[Tensor, " R"], layout: TokenLayout) -> Float[Tensor, " R"]:
        """Cross-entropy a row; over tokens first when the logits are a token's."""
        logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
        if self.config.loss_level == "pooled":
            return F.cross_entropy(logits, target, reduction="none")
        tokens = layout.broadcast(target.unsqueeze(1)).squeeze(1)
        return layout.mean(F.cross_entropy(logits, tokens, reduction="none").unsqueeze(1)).squeeze(1)

    def uni(self, u: Float[Tensor, "_ D"], layout: TokenLayout) -> Float[Tensor, ""]:
        """UFC: name the modality from its uni-modal features (rows, or tokens by loss_level)."""
        modality = torch.arange(len(layout.segments), device=u.device)
        target = modality.unsqueeze(1).expand(-1, layout.batch).reshape(-1)
        return mean_over_modalities(self._entropy(self.modality(u), target, layout), layout)

    def paired(self, u: Float[Tensor, "_ D"] | None, p: Float[Tensor, "_ D"], layout: TokenLayout) -> Float[Tensor, ""]:
        """PFC: tell uni-modal (class 0) from paired-modal features (class 1); without u, p alone."""
        zero = torch.zeros(layout.present.shape[0], dtype=torch.long, device=p.device)
        loss = mean_over_modalities(self._entropy(self.partition(p), zero + 1, layout), layout)
        if u is None:
            return loss
        return (loss + mean_over_modalities(self._entropy(self.partition(u), zero, layout), layout)) / 2
