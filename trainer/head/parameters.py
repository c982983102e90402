"""Trainable parameters beside Table 5 of the paper, and what Table 5 leaves out.

Decided: modules are built on torch's meta device, so counting costs neither memory nor time. Table 5 counts one
partitioner though section 3.2 assigns one to each modality, and neither the loss classifiers nor the fusion stack.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from .config import PgMConfig
from .fusion import FusionConfig, FusionHead
from .model import PgM

TABLE_5 = {
    "modal encoder": "0M",
    "modal partitioner": "1.1M",
    "uni-modal learner": "7.08M",
    "paired-modal learner": "7.08M",
    "uni-paired decoder": "7.1M",
    "PgM": "22.36M",
}
# Table 5's total is the sum of its rounded entries.
TABLE_5_TOTAL = 22_360_000


@dataclass(frozen=True)
class Line:
    """One row: what is counted, the paper's figure (None where it gives none), ours, and how many copies make it up."""

    module: str
    paper: str | None
    ours: int
    copies: int = 1


@dataclass(frozen=True)
class ParameterTable:
    """counted: Table 5's rows, ending with their sum; uncounted: the rest; trained: everything an optimiser updates."""

    counted: tuple[Line, ...]
    uncounted: tuple[Line, ...]
    trained: int

    @property
    def difference(self) -> float:
        """Our sum against Table 5's 22.36M, in per cent."""
        return 100 * (self.counted[-1].ours / TABLE_5_TOTAL - 1)


def size(modules: nn.Module | Sequence[nn.Module]) -> int:
    """Number of parameters."""
    group = [modules] if isinstance(modules, nn.Module) else modules
    return sum(p.numel() for module in group for p in module.parameters())


def parameter_table(config: PgMConfig, fusion: FusionConfig) -> ParameterTable:
    """Count a PgM and its fusion head the way Table 5 does, then everything else."""
    with torch.device("meta"):
        head, on_top = PgM(config), FusionHead(fusion)
    groups = {
        "modal partitioner": head.partitioners,
        "uni-modal learner": head.uni_learners,
        "paired-modal learner": head.paired_learners,
        "uni-paired decoder": head.decoders,
    }
    first = {name: size(list(group.values())[:1]) for name, group in groups.items()}
    counted = [Line("modal encoder", TABLE_5["modal encoder"], 0)]
    counted += [Line(name, TABLE_5[name], count) for name, count in first.items()]
    counted.append(Line("PgM", TABLE_5["PgM"], sum(first.values())))
    extra = {name: (size(group) - first[name], len(group) - 1) for name, group in groups.items()}
    uncounted = [Line(f"further {name}s", None, ours, copies) for name, (ours, copies) in extra.items() if copies > 0]
    uncounted.append(Line("input projections", None, size(head.projections), len(head.projections)))
    if head.classifiers is not None:
        uncounted.append(Line("loss classifiers (eqs. 8-9)", None, size(head.classifiers)))
    uncounted.append(Line("fusion head (eqs. 13-14)", None, size(on_top)))
    return ParameterTable(tuple(counted), tuple(x for x in uncounted if x.ours), size(head) + size(on_top))


def parameter_text(table: ParameterTable) -> str:
    """The table as aligned text."""
    width = max(len(line.module) for line in (*table.counted, *table.uncounted)) + 6

    def row(line: Line) -> str:
        name = f"{line.module} x {line.copies}" if line.copies > 1 else line.module
        return f"{name:<{width}}  {line.paper or '-':>8}  {line.ours:>12,}"

    lines = [f"{'module':<{width}}  {'Table 5':>8}  {'ours':>12}"]
    lines += [row(line) for line in table.counted]
    lines += [f"difference to Table 5's total: {table.difference:+.2f} %", "", "not counted by the paper"]
    lines += [row(line) for line in table.uncounted]
    lines += ["", f"{'trained in all':<{width}}  {'-':>8}  {table.trained:>12,}"]
    return "\n".join(lines)
