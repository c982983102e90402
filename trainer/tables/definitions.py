"""What stands in a table: rows, each a method with its switches, and the row all others are held against.

Table 2 of the paper: single modalities, the fusion baselines, PgM; here the two cheap ensembles stand beside them.
Table 3: PgM whole and without each module. Any other ablation is a grid over switches.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...cache.errors import UserError
from ..switches import nearest

if TYPE_CHECKING:
    from ..missing import Missing
    from .plan import Sequel

FULL = "PgM"


@dataclass(frozen=True)
class Row:
    """One line: its name, the method, and the settings that differ from the table's own.

    missing: what is taken away from its training samples. sequel: what is made of its runs after training. against: the
    label of the row it is compared with, "" for none, None for the table's reference.
    """

    label: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    missing: Missing | None = None
    sequel: Sequel | None = None
    against: str | None = None


@dataclass(frozen=True)
class TableSpec:
    """name: "2", "3", "4" or "ablation". reference: the label of the row the others are compared with, or what stands
    for it where rows say it themselves.
    """

    name: str
    title: str
    rows: tuple[Row, ...]
    reference: str


FUSIONS = (
    Row("Concatenation", "concat"),
    Row("Add", "add"),
    Row("Element-wise Maximum", "max"),
    Row("Linear-Fusion", "linear"),
    Row("MLP", "mlp"),
    Row("Late average", "late"),
    Row("Ensemble of uni-modally trained", "ensemble"),
)
WITHOUT = {
    "w/o Modal Partitioner": "partitioner",
    "w/o Uni-Modal Learner": "uni_learner",
    "w/o Paired-Modal Learner": "paired_learner",
    "w/o Uni-Paired Decoder": "decoder",
}


def table_spec(name: str, modalities: Sequence[str], task: str) -> TableSpec:
    """Table 2 or 3 of the paper for a dataset with these modalities. Raises UserError for another name.

    A single modality cannot retrieve across two, so Table 2 has no such rows for retrieval.
    """
    full = Row(FULL, "pgm")
    if name == "2":
        alone = [Row(f"Single-Modal ({m.capitalize()})", f"single:{m}") for m in modalities if task != "retrieval"]
        return TableSpec("2", "Table 2: modal learning baselines and PgM", (*alone, *FUSIONS, full), FULL)
    if name == "3":
        rows = [Row(label, "pgm", {"without": (module,)}) for label, module in WITHOUT.items()]
        return TableSpec("3", "Table 3: ablation of PgM's modules", (full, *rows), FULL)
    known = ["2", "3", "4", "5", "balance", "missing"]
    raise UserError(f"There is no table {name!r}. There are: {', '.join(known)}.{nearest(name, known)}")


def ablation(vary: Sequence[str], method: str = "pgm") -> TableSpec:
    """Rows for NAME=VALUE,VALUE,... options: one after another as a list, with "x" between names as a grid.

    `["iterations=1,2", "mask=none"]` is the default row and three others; `["iterations=1,2 x mask=feature,none"]` the
    default row and four. Raises UserError for what is neither.
    """
    default = f"{method}, defaults"
    rows = [Row(default, method)]
    for option in vary:
        axes = [axis(part) for part in option.split(" x ")]
        for combination in itertools.product(*axes):
            settings = dict(combination)
            rows.append(Row(", ".join(f"{name}={value}" for name, value in combination), method, settings))
    return TableSpec("ablation", f"Ablation of {method}: {'; '.join(vary)}", tuple(rows), default)


def axis(text: str) -> list[tuple[str, str]]:
    """One switch and its values."""
    name, separator, values = text.strip().partition("=")
    found = [value.strip() for value in values.split(",") if value.strip()]
    if not separator or not name or not found:
        raise UserError(f"--vary takes NAME=VALUE,VALUE,... (or a grid: 'A=1,2 x B=3,4'), not {text!r}.")
    return [(name.strip().replace("-", "_"), value) for value in found]
