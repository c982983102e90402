"""Any switch of a method or of the protocol varied, as a list or a grid, beside the defaults."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from ...cache.errors import UserError
from ..run.request import Request
from .engine.options import StudyOptions
from .engine.study import Row, Study, TableSpec


class Ablation(Study):
    """`pgm ablate --vary NAME=VALUE,VALUE,...`; every row against the defaults."""

    name = "ablation"
    takes = ("vary", "method")

    def spec(self, request: Request, options: StudyOptions) -> TableSpec:
        """Raises UserError for what varies nothing."""
        if not options.vary:
            raise UserError("An ablation varies something: --vary iterations=1,2,3, or a grid: --vary 'A=1,2 x B=3,4'.")
        return ablation(options.vary, options.method or "pgm")


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
    return TableSpec(f"Ablation of {method}: {'; '.join(vary)}", tuple(rows), default)


def axis(text: str) -> list[tuple[str, str]]:
    """One switch and its values."""
    name, separator, values = text.strip().partition("=")
    found = [value.strip() for value in values.split(",") if value.strip()]
    if not separator or not name or not found:
        raise UserError(f"--vary takes NAME=VALUE,VALUE,... (or a grid: 'A=1,2 x B=3,4'), not {text!r}.")
    return [(name.strip().replace("-", "_"), value) for value in found]


STUDY = Ablation()
