"""What the figures about one method have in common: a row, its seeds, and no table."""

from __future__ import annotations

from ...run.request import Request
from .options import StudyOptions
from .study import Row, Study, TableSpec

FULL = "PgM"


class OfOneMethod(Study):
    """Runs of `--method`, PgM by default."""

    has_table = False

    def spec(self, request: Request, options: StudyOptions) -> TableSpec:
        """One row."""
        method = options.method or "pgm"
        row = Row(FULL if method == "pgm" else method, method)
        return TableSpec(f"Runs of the figure: {method}", (row,), row.label)


class OfPgM(OfOneMethod):
    """What only PgM has: `--method` is not understood."""
