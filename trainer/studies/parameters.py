"""Table 5 of the paper: PgM's trainable parameters, for this dataset's modalities and the preset. No run is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..head.parameters import Line, ParameterTable, parameter_table
from ..methods.pgm import PgMMethodConfig
from ..run.request import Request, resolve
from .engine.options import StudyOptions
from .engine.plan import TablePlan
from .engine.render import Record, Sheet
from .engine.runner import Failure
from .engine.study import Study, TableSpec

TITLE = "Table 5: trainable parameters of PgM"
NAMES = ("module", "Table 5", "ours", "copies")


@dataclass(frozen=True)
class Counts:
    """What was counted."""

    table: ParameterTable

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self.table) | {"difference_percent": round(self.table.difference, 3)}


class Parameters(Study):
    """The module's parameters beside the paper's, and what the paper did not count."""

    name = "parameters"
    aliases = ("5",)
    has_figure = False

    def spec(self, request: Request, options: StudyOptions) -> TableSpec:
        """No rows: the configuration says it."""
        return TableSpec(TITLE, (), "")

    def results(self, plan: TablePlan, failures: Sequence[Failure] = ()) -> Counts:
        """As the configuration says."""
        config = resolve(replace(plan.request, method="pgm")).method
        assert isinstance(config, PgMMethodConfig)
        return Counts(parameter_table(config.head, config.fusion))

    def sheets(self, results: Counts) -> list[Sheet]:
        """What the paper counts, what it does not, all."""
        table = results.table
        note = f"difference to Table 5's total: {table.difference:+.2f} %; under the line: not counted by the paper"
        blocks = [[cells(line) for line in lines] for lines in (table.counted, table.uncounted)]
        return [Sheet(TITLE, NAMES, [*blocks, [["trained in all", "", f"{table.trained:,}", ""]]], [note])]

    def records(self, results: Counts) -> list[Record]:
        """One a module."""
        lines = [(x.module, x.paper, x.ours, x.copies) for x in (*results.table.counted, *results.table.uncounted)]
        every = [*lines, ("trained in all", None, results.table.trained, None)]
        return [dict(zip(NAMES, line, strict=True)) for line in every]


def cells(line: Line) -> list[str]:
    """One row as text."""
    return [line.module, line.paper or "", f"{line.ours:,}", str(line.copies)]


STUDY = Parameters()
