"""Table 3 of the paper: PgM whole, and without each of its modules."""

from __future__ import annotations

from ..run.request import Request
from .engine.options import StudyOptions
from .engine.study import Row, Study, TableSpec

WITHOUT = {
    "w/o Modal Partitioner": "partitioner",
    "w/o Uni-Modal Learner": "uni_learner",
    "w/o Paired-Modal Learner": "paired_learner",
    "w/o Uni-Paired Decoder": "decoder",
}


class Modules(Study):
    """Every row against the whole."""

    name = "modules"
    aliases = ("3",)

    def spec(self, request: Request, options: StudyOptions) -> TableSpec:
        """The same on every dataset."""
        rows = (Row("PgM", "pgm"), *(Row(label, "pgm", {"without": (module,)}) for label, module in WITHOUT.items()))
        return TableSpec("Table 3: ablation of PgM's modules", rows, "PgM", paper="3")


STUDY = Modules()
