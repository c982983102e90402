"""The options that tables, ablations, figures and the report have in common. Nothing heavy is imported here."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ....cache.errors import UserError
from ...run.options import DeviceOption, JsonOption, RequestOptions

if TYPE_CHECKING:
    from ...run.request import Request
    from ...tasks import Task
    from .runner import WorkerPool
    from .study import Study


@dataclass(frozen=True)
class RunOptions(RequestOptions):
    """Which runs: what all rows share, and how many seeds each has."""

    seeds: Annotated[int, typer.Option(help="So many seeds a row; three hardly ever show anything.")] = 5

    def request(self, device: str, **settings: Any) -> Request:
        """Raises UserError for no seed at all too."""
        if self.seeds < 1:
            raise UserError(f"--seeds is 1 or more, not {self.seeds}.")
        return super().request(device, **settings)


@dataclass(frozen=True)
class WorkerOptions:
    """Who trains what is missing, and on what."""

    device: DeviceOption = "auto"
    workers: Annotated[
        int | None,
        typer.Option(help="Worker processes; by default one a GPU, else one a core. 1 trains in this process."),
    ] = None
    scheduler: Annotated[str | None, typer.Option(help="A running Dask scheduler: tcp://host:port.")] = None
    scheduler_file: Annotated[str | None, typer.Option(help="The same, by its --scheduler-file.")] = None

    @property
    def pool(self) -> WorkerPool:
        """Raises UserError for no worker at all."""
        from .runner import WorkerPool

        if self.workers is not None and self.workers < 1:
            raise UserError(f"--workers {self.workers}: at least one worker is needed.")
        return WorkerPool(self.workers, self.scheduler, self.scheduler_file)


@dataclass(frozen=True)
class PrintOptions:
    """What is printed of a table."""

    format: Annotated[str, typer.Option(help="rich, markdown, latex, csv or json.")] = "rich"
    plan: Annotated[bool, typer.Option("--plan", help="List the runs and an estimate; train nothing.")] = False
    as_json: JsonOption = False

    @property
    def form(self) -> str:
        """The format; --json is the same as --format json."""
        return "json" if self.as_json else self.format


@dataclass(frozen=True)
class StudyOptions:
    """What some studies take and others do not; None for what was not given."""

    method: Annotated[str | None, typer.Option(help="Of confusion and ablation: the method they are about.")] = None
    methods: Annotated[
        str | None, typer.Option(help="Of fusion, balance, missing: names with commas, concat,pgm,my.module:MyConfig.")
    ] = None
    vary: Annotated[
        list[str] | None,
        typer.Option(help="Of ablation: NAME=VALUE,VALUE,...; 'A=1,2 x B=3,4' is a grid. Repeatable."),
    ] = None
    rates: Annotated[
        str | None, typer.Option(help="Of missing: rates with commas; 0,0.1,...,0.7 counts up. The default.")
    ] = None
    train_rate: Annotated[
        float | None, typer.Option(help="Of missing: training stays at this rate, --rates is the test's.")
    ] = None
    test_rate: Annotated[
        float | None, typer.Option(help="Of missing: the test stays at this rate, --rates is training's.")
    ] = None
    fill: Annotated[str | None, typer.Option(help="Of missing: skip (the default) or zero.")] = None
    mask_seed: Annotated[int | None, typer.Option(help="Of missing: the masks' seed, 0 by default.")] = None

    def only_for(self, study: Study) -> None:
        """Raise UserError where an option was given that the study does not take."""
        from .. import studies

        for name, value in dataclasses.asdict(self).items():
            if value is not None and name not in study.takes:
                takers = [other.name for other in studies().values() if name in other.takes]
                raise UserError(f"--{name.replace('_', '-')} belongs to {' and '.join(takers)}, not to {study.name}.")


def modalities_and_task(base: Request) -> tuple[tuple[str, ...], type[Task]]:
    """The modalities a table is about, and the dataset's kind of task."""
    from ....cache import open_dataset
    from ...data.dataset import modalities_in, only_dataset
    from ...tasks import kind_of

    dataset = open_dataset(base.features, base.dataset or only_dataset(base.features), base.version)
    return modalities_in(dataset, base.modalities), kind_of(dataset.card)


def methods_named(text: str, modalities: tuple[str, ...]) -> list[str]:
    """The names in `a,b,c`, each once, a modality's own name read as its single:NAME.

    Raises UserError for none, and for one that is no method.
    """
    from ...methods import found

    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UserError(f"--methods takes names with commas, like concat,mla,pgm, not {text!r}.")
    for name in names:
        found(name, modalities)
    return list(dict.fromkeys(f"single:{name}" if name in modalities else name for name in names))
