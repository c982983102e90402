"""A study: what a table is made of, what is measured of its runs, how it is printed and drawn. Each is one file.

A study that only names its rows is complete: it is trained, tested against its reference row, printed in five formats
and drawn as bars. What differs in another is what it overrides, in the order in which things happen.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ....cache.errors import UserError
from ...run.files import json_text
from .draw import bars
from .render import Record, Sheet, as_csv, as_latex, as_markdown, as_rich, records_of, sheet_of
from .results import results_of
from .rows import Row as Row
from .rows import TableSpec as TableSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ...run.request import Request
    from .options import StudyOptions
    from .plan import TablePlan
    from .runner import Failure

TEXTS: dict[str, Callable[[Sheet], str]] = {"rich": as_rich, "markdown": as_markdown, "latex": as_latex}
FORMATS = (*TEXTS, "csv", "json")


class Study(ABC):
    """What `pgm table NAME` and `pgm figure NAME` make.

    name: as it is typed; aliases: others of its names, the paper's number of the table among them. takes: the options
    it understands beside those of every study, as fields of `StudyOptions`. has_table, has_figure, has_folds: what
    can be asked.
    """

    name: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    takes: ClassVar[tuple[str, ...]] = ()
    has_table: ClassVar[bool] = True
    has_figure: ClassVar[bool] = True
    has_folds: ClassVar[bool] = True

    @abstractmethod
    def spec(self, request: Request, options: StudyOptions) -> TableSpec:
        """Its rows on a dataset. request: what all of them share. Raises UserError where it cannot have them."""

    def ready(self, plan: TablePlan) -> bool:
        """Whether a report shows it as it stands: a table of one row compares nothing."""
        there = {cell.row.label for cell in plan.cells if cell.done}
        return len(there) >= min(2, len(plan.spec.rows))

    def results(self, plan: TablePlan, failures: Sequence[Failure] = ()) -> Any:
        """The numbers of the finished runs, with `as_dict()` for JSON; rows whose runs failed stand there empty."""
        return results_of(plan, failures)

    def sheets(self, results: Any) -> list[Sheet]:
        """The tables people read, one under another."""
        return [sheet_of(results)]

    def records(self, results: Any) -> list[Record]:
        """The lines of a spreadsheet, every seed's value among them."""
        return records_of(results)

    def figure(self, plan: TablePlan, results: Any) -> Figure:
        """The drawing."""
        return bars(results)

    def alt_text(self, plan: TablePlan, results: Any) -> str:
        """The figure in words, for a page that cannot be seen."""
        return f"{plan.spec.title}: test results of every row; the numbers are those of the table."

    def text(self, results: Any, format: str) -> str:
        """The results in one of `FORMATS`."""
        if format == "csv":
            return as_csv(self.records(results))
        if format == "json":
            return json_text(results.as_dict())
        return "\n\n".join(TEXTS[format](sheet) for sheet in self.sheets(results))


def check_folds(study: Study, request: Request) -> None:
    """Raise UserError for folds that a study cannot put together."""
    if request.folds is not None and not study.has_folds:
        raise UserError(f"{study.name} is of one split. Take one fold at a time: --split fold:0/5:group")


def check_format(format: str) -> None:
    """Raise UserError for a format that is none."""
    if format not in FORMATS:
        raise UserError(f"--format {format} is not known: use {', '.join(FORMATS)}.")
