"""The options that tables, ablations, figures and the report have in common, each said once.

Typer reads options off a command's signature. A command takes a group of them as one dataclass parameter instead, and
`expanded` shows Typer the group's fields in its place. Nothing heavy is imported here.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from ....cache.errors import UserError
from ...run.commands import (
    ContextOption,
    DatasetOption,
    DeviceOption,
    FeaturesOption,
    JsonOption,
    MetricOption,
    RunsOption,
    SequenceOption,
    SplitOption,
    VersionOption,
    given,
    pairs,
)

if TYPE_CHECKING:
    from ...run.request import Request
    from ...tasks import Task
    from .runner import WorkerPool
    from .study import Study


@dataclass(frozen=True)
class RunOptions:
    """Which runs: what all rows share, and how many seeds each has."""

    dataset: DatasetOption = None
    seeds: Annotated[int, typer.Option(help="So many seeds a row; three hardly ever show anything.")] = 5
    seed: Annotated[int, typer.Option(help="The first seed.")] = 0
    preset: Annotated[str, typer.Option(help="small or paper.")] = "small"
    epochs: Annotated[int | None, typer.Option(help="Stage 2, on the task.")] = None
    pretrain_epochs: Annotated[int | None, typer.Option(help="Stage 1, on L^P.")] = None
    metric: MetricOption = None
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE for every row: a switch of the protocol. Repeatable.")
    ] = None
    modality: Annotated[list[str] | None, typer.Option(help="Only these modalities. Repeatable.")] = None
    store: Annotated[list[str] | None, typer.Option(help="MODALITY=DIGEST among several stores.")] = None
    split: SplitOption = None
    sequence: SequenceOption = "sample"
    context: ContextOption = None
    version: VersionOption = None
    features: FeaturesOption = "features"
    runs: RunsOption = Path("runs")

    def request(self, device: str) -> Request:
        """What all rows share. Raises UserError for options that cannot be met."""
        from ...data.dataset import only_dataset
        from ...data.sequence import context_of
        from ...run.request import Request

        if self.seeds < 1:
            raise UserError(f"--seeds is 1 or more, not {self.seeds}.")
        return Request(
            features=self.features,
            runs=self.runs,
            dataset=self.dataset or only_dataset(self.features),
            preset=self.preset,
            seed=self.seed,
            settings={
                **pairs(self.set_, "--set"),
                **given(epochs=self.epochs, pretrain_epochs=self.pretrain_epochs, metric=self.metric),
            },
            modalities=self.modality,
            stores=pairs(self.store, "--store"),
            device=device,
            split=self.split,
            context=context_of(self.sequence, self.context),
            version=self.version,
        )


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


def expanded(command: Callable[..., None]) -> Callable[..., None]:
    """The command as Typer is to see it: each parameter that is a dataclass replaced by the dataclass's fields."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type[Any]] = {
        name: hint for name, hint in hints.items() if isinstance(hint, type) and dataclasses.is_dataclass(hint)
    }
    options: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name in groups:
            options += parameters_of(groups[name])
        else:
            options.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name]))

    def typed(**values: Any) -> None:
        made = {
            name: group(**{field.name: values.pop(field.name) for field in dataclasses.fields(group)})
            for name, group in groups.items()
        }
        command(**made, **values)

    typed.__name__, typed.__doc__ = command.__name__, command.__doc__
    typed.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    typed.__annotations__ = {option.name: option.annotation for option in options}
    return typed


def parameters_of(group: type[Any]) -> list[inspect.Parameter]:
    """A dataclass's fields as the parameters of a function."""
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for field in dataclasses.fields(group)
    ]
