"""Table 2 of the paper: single modalities, the fusion baselines, PgM; the two cheap ensembles stand beside them."""

from __future__ import annotations

from collections.abc import Sequence

from ..run.request import Request
from .engine.options import StudyOptions, methods_named, modalities_and_task
from .engine.study import Row, Study, TableSpec

TITLE = "Table 2: modal learning baselines and PgM"
FUSIONS = (
    Row("Concatenation", "concat"),
    Row("Add", "add"),
    Row("Element-wise Maximum", "max"),
    Row("Linear-Fusion", "linear"),
    Row("MLP", "mlp"),
    Row("Late average", "late"),
    Row("Ensemble of uni-modally trained", "ensemble"),
)


PGM = Row("PgM", "pgm")


class Fusion(Study):
    """Every row against PgM; `--methods` names other rows, which are held against PgM or else the first of them."""

    name = "fusion"
    aliases = ("2",)
    takes = ("methods",)

    def spec(self, request: Request, options: StudyOptions) -> TableSpec:
        """A single modality cannot retrieve across two, so there are no such rows for retrieval."""
        modalities, task = modalities_and_task(request)
        if options.methods is not None:
            return self.chosen(methods_named(options.methods, modalities))
        alone = [Row(f"Single-Modal ({m.capitalize()})", f"single:{m}") for m in modalities if not task.cross_modal]
        return TableSpec(TITLE, (*alone, *FUSIONS, PGM), PGM.label, paper="2")

    def chosen(self, methods: Sequence[str]) -> TableSpec:
        """These rows, called as in the paper's table where they are in it."""
        known = {row.method: row for row in (*FUSIONS, PGM)}
        rows = tuple(known.get(method, Row(method, method)) for method in methods)
        return TableSpec(TITLE, rows, (PGM if PGM in rows else rows[0]).label, paper="2")


STUDY = Fusion()
