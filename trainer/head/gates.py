"""What share of each modality's features the gates call uni-modal and paired-modal (Figure 4 of the paper).

Decided: the paper does not say what its percentages are. Here a share is the mean of the soft gate at the last
iteration, over features, samples that have the modality, and (gate_scope="token") their real tokens, times 100. Shares
of the binary gates stand beside it, because soft gates can average to anything while no feature is clearly on a side.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from ...cache.errors import UserError
from .model import PgM
from .partitioner import Gates

Batch = tuple[Mapping[str, Tensor], Mapping[str, Tensor] | None]


@dataclass(frozen=True)
class GateShares:
    """One modality's shares, in per cent of its features.

    uni, paired: mean soft gates (Figure 4's two numbers). hard_uni, hard_paired: features whose gate is at least 0.5.
    overlap, gap: features in both binary partitions, in neither. undecided: features with a gate between 0.05 and 0.95.
    samples: how many had the modality.
    """

    uni: float
    paired: float
    hard_uni: float
    hard_paired: float
    overlap: float
    gap: float
    undecided: float
    samples: int


def gate_report(model: PgM, data: Iterable[Batch], iteration: int = -1) -> dict[str, GateShares]:
    """Average the gates of one iteration (the last by default) over batches of (tokens, masks): modality -> shares.

    The model runs in eval mode without gradients and is left as it was. Raises UserError for a model without
    partitioner and for data without any sample.
    """
    if "partitioner" in model.config.without:
        raise UserError("This PgM was built without its partitioner, so there are no gates to report.")
    sums: dict[str, Tensor] = {m: torch.zeros(7, dtype=torch.float64) for m in model.config.modalities}
    counts, samples = dict.fromkeys(sums, 0), dict.fromkeys(sums, 0)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for tokens, masks in data:
                gates = model(tokens, masks).gates[iteration]
                for m in tokens:
                    rows, present = real_rows(gates[m], (masks or {}).get(m), tokens[m])
                    sums[m] += shares(rows).cpu()
                    counts[m] += rows.uni.shape[0]
                    samples[m] += present
    finally:
        model.train(training)
    if not any(samples.values()):
        raise UserError("gate_report was given no sample; pass at least one batch of (tokens, masks).")
    return {m: per_cent(sums[m] / counts[m], samples[m]) for m in sums if samples[m]}


def per_cent(shares: Tensor, samples: int) -> GateShares:
    """The seven shares (0 to 1, in GateShares' order) as one row."""
    uni, paired, hard_uni, hard_paired, overlap, gap, undecided = (100 * shares).tolist()
    return GateShares(uni, paired, hard_uni, hard_paired, overlap, gap, undecided, samples)


def real_rows(gates: Gates, mask: Tensor | None, tokens: Tensor) -> tuple[Gates, int]:
    """The gates (n, D) of the samples that have the modality, or of their real tokens; and the number of samples."""
    batch, length = tokens.shape[:2]
    mask = torch.ones(batch, length, dtype=torch.bool, device=tokens.device) if mask is None else mask
    present = mask.any(1)
    keep = mask if gates.uni.shape[1] == length and gates.uni.shape[1] > 1 else present.unsqueeze(1)
    return Gates(gates.uni[keep], gates.paired[keep]), int(present.sum())


def shares(gates: Gates) -> Tensor:
    """Sums over rows of the seven shares (each a mean over features), in GateShares' order."""
    hard_u, hard_p = gates.hard()
    undecided = torch.zeros_like(hard_u)
    for g in gates:
        undecided = undecided | ((g > 0.05) & (g < 0.95))
    columns = (gates.uni, gates.paired, hard_u, hard_p, hard_u & hard_p, ~hard_u & ~hard_p, undecided)
    return torch.stack([c.double().mean(-1).sum() for c in columns])


def gate_table(report: Mapping[str, GateShares]) -> str:
    """The report as aligned text, one line a modality."""
    names = [name for name in GateShares.__dataclass_fields__ if name != "samples"]
    width = max([len("modality"), *map(len, report)])
    lines = [f"{'modality':<{width}}  " + "  ".join(f"{n:>11}" for n in names) + "  samples"]
    for modality, row in report.items():
        values = asdict(row)
        lines.append(f"{modality:<{width}}  " + "  ".join(f"{values[n]:10.2f}%" for n in names) + f"  {row.samples:>7}")
    return "\n".join(lines)
