"""A study made on a dataset: its runs trained where they are missing, its numbers, its sheets, its figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....cache import Place
from ....cache.errors import RunFailed
from ...data.dataset import only_dataset
from ...data.folds import cross_validation
from ...data.sequence import Context
from ...run.callbacks import Asked as AskedCallback
from ...run.events import Listener, silent
from ...run.request import Request, features_root, runs_root
from .. import study_named
from .options import StudyOptions
from .plan import Cell, TablePlan, plan_table
from .rows import TableSpec
from .runner import Failure, Outcome, WorkerPool, run_cells
from .study import Study, check_folds

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

Announced = Callable[[TablePlan, Sequence[Cell]], None]
Progress = Callable[[Outcome, int, int], None]


@dataclass(frozen=True)
class Table:
    """A finished study. `print(table)` shows it as `pgm table` does; a notebook shows it as HTML.

    failures: runs that could not be trained; their rows stand there empty.
    """

    study: Study
    plan: TablePlan
    failures: Sequence[Failure] = ()

    @cached_property
    def results(self) -> Any:
        """The numbers as objects, every seed's value among them; `as_dict()` gives JSON-able ones."""
        return self.study.results(self.plan, self.failures)

    def text(self, format: str = "rich") -> str:
        """rich, markdown, latex, csv or json."""
        return self.study.text(self.results, format)

    def to_latex(self) -> str:
        """A booktabs table."""
        return self.text("latex")

    def to_markdown(self) -> str:
        """GitHub's Markdown."""
        return self.text("markdown")

    def to_pandas(self) -> DataFrame:
        """The numbers in long form: a row of the table and a metric a line. Needs pandas."""
        import pandas

        return pandas.DataFrame(self.study.records(self.results))

    def figure(self) -> Figure:
        """The study's figure, by matplotlib."""
        return self.study.figure(self.plan, self.results)

    def __str__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        """For notebooks."""
        from html import escape

        parts = []
        for sheet in self.study.sheets(self.results):
            rows = [[*map(escape, cells)] for block in sheet.blocks for cells in block]
            head = "".join(f"<th>{escape(name)}</th>" for name in sheet.names)
            body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
            under = "".join(f"<p><small>{escape(line)}</small></p>" for line in sheet.captions)
            title = f"<caption>{escape(sheet.title)}</caption>"
            parts.append(f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{under}")
        return "".join(parts)


def make(
    study: Study,
    spec: TableSpec,
    request: Request,
    seeds: int,
    pool: WorkerPool,
    announced: Announced = lambda plan, missing: None,
    progress: Progress = lambda outcome, done, total: None,
    listener: Listener = silent,
) -> Table:
    """Train what is missing of a study's rows, seeds request.seed and following. announced: printed before training."""
    plan = plan_table(spec, request, seeds)
    missing = plan.missing
    if plan.cells:
        announced(plan, missing)
    return Table(study, plan, run_cells(missing, pool, progress, listener))


def table(
    which: str | Study,
    dataset: str | None = None,
    features: Place | None = None,
    *,
    runs: Path | str | None = None,
    seeds: int = 5,
    seed: int = 0,
    preset: str = "small",
    settings: Mapping[str, Any] | None = None,
    modalities: Sequence[str] | None = None,
    stores: Mapping[str, str] | None = None,
    split: str | None = None,
    version: int | str | None = None,
    context: Context | None = None,
    device: str = "auto",
    callbacks: Sequence[AskedCallback] = (),
    folds: int | str | None = None,
    by: str | None = None,
    workers: int | None = 1,
    listener: Listener = silent,
    **options: Any,
) -> Table:
    """A study on a cached dataset, trained where runs are missing: `pgm.table("3", dataset="digits")`.

    which: a name or the paper's number (`pgm table --help` lists them), or a Study of your own. options: of the study,
    as fields of `StudyOptions` (methods="concat,mla,pgm", rates="0,0.2,0.4"). folds, by: as --folds and --by. workers:
    processes; None one a core or GPU. The rest is as in `train`. Raises UserError for what cannot be met, RunFailed
    where a run failed.
    """
    study = study_named(which, "table") if isinstance(which, str) else which
    root = features_root(features)
    request = Request(
        features=root,
        runs=runs_root(Path(runs) if isinstance(runs, Path) else runs),
        dataset=dataset or only_dataset(root),
        preset=preset,
        seed=seed,
        settings=settings or {},
        modalities=modalities,
        stores=stores or {},
        device=device,
        split=split,
        version=version,
        context=context,
        callbacks=callbacks,
        folds=cross_validation(folds, by),
    )
    chosen = replace(StudyOptions(), **options)
    chosen.only_for(study)
    check_folds(study, request)
    made = make(study, study.spec(request, chosen), request, seeds, WorkerPool(workers), listener=listener)
    if made.failures:
        first = made.failures[0]
        raise RunFailed(f"{len(made.failures)} runs failed, the first {first.label}, seed {first.seed}: {first.reason}")
    return made


def ablate(vary: Sequence[str], method: str = "pgm", **how: Any) -> Table:
    """Switches varied beside the defaults: `pgm.ablate(["iterations=1,2,3"], dataset="digits")`; else as `table`."""
    return table("ablation", vary=list(vary), method=method, **how)
