"""Table 2 of the paper: single modalities, the fusion baselines, PgM; the two cheap ensembles stand beside them."""

from __future__ import annotations

from ..run.request import Request
from .engine.options import StudyOptions, known_of
from .engine.study import Row, Study, TableSpec

FUSIONS = (
    Row("Concatenation", "concat"),
    Row("Add", "add"),
    Row("Element-wise Maximum", "max"),
    Row("Linear-Fusion", "linear"),
    Row("MLP", "mlp"),
    Row("Late average", "late"),
    Row("Ensemble of uni-modally trained", "ensemble"),
)


class Fusion(Study):
    """Every row against PgM."""

    name = "fusion"
    aliases = ("2",)

    def spec(self, request: Request, options: StudyOptions) -> TableSpec:
        """A single modality cannot retrieve across two, so there are no such rows for retrieval."""
        modalities, task = known_of(request)
        alone = [Row(f"Single-Modal ({m.capitalize()})", f"single:{m}") for m in modalities if not task.cross_modal]
        rows = (*alone, *FUSIONS, Row("PgM", "pgm"))
        return TableSpec("Table 2: modal learning baselines and PgM", rows, "PgM", paper="2")


STUDY = Fusion()
