"""The options that commands about runs have in common, each said once: what is trained, on what, and where it lies.

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

from ...cache.commands.completion import cached_datasets
from ...cache.errors import UserError
from .home import runs_place

if TYPE_CHECKING:
    from .request import Request

FeaturesOption = Annotated[
    str,
    typer.Option("--features", envvar="PGM_FEATURES", help="Where the features lie: a folder or s3://bucket/prefix."),
]
RunsOption = Annotated[
    Path,
    typer.Option(
        "--runs",
        envvar="PGM_RUNS",
        parser=runs_place,
        metavar="PLACE",
        help="Where runs are kept: a folder, or s3://bucket/prefix, to which finished runs are put whole.",
        show_default=True,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on stdout; progress stays on stderr.")]
DatasetOption = Annotated[
    str | None,
    typer.Option(help="A cached dataset; not needed when there is only one.", autocompletion=cached_datasets),
]
FeedOption = Annotated[str, typer.Option(help="auto, resident (in memory) or mapped (from the page cache).")]
SplitOption = Annotated[
    str | None, typer.Option("--split", help="A named split (pgm cache split); by default the dataset's own.")
]
StoreOption = Annotated[list[str] | None, typer.Option(help="MODALITY=DIGEST among several stores.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]


@dataclass(frozen=True)
class RequestOptions:
    """What a run is asked for besides its method: `pgm train`, tables, figures and the report take the same."""

    dataset: DatasetOption = None
    preset: Annotated[
        str, typer.Option(help="small (width 64, 4 + 12 epochs) or paper (width 768, 20 + 50 epochs).")
    ] = "small"
    seed: Annotated[int, typer.Option(help="Of the first run.")] = 0
    epochs: Annotated[int | None, typer.Option(help="Stage 2, on the task.")] = None
    pretrain_epochs: Annotated[int | None, typer.Option(help="Stage 1, on L^P.")] = None
    tune: Annotated[
        int | None,
        typer.Option(help="Try so many learning rates and epochs on validation first, for every row the same."),
    ] = None
    metric: Annotated[
        str | None,
        typer.Option(help="What rows are compared and selected on: auroc, balanced_accuracy, ...; by the card."),
    ] = None
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=VALUE: any switch of the protocol or the method, of every row. Repeatable."),
    ] = None
    modality: Annotated[list[str] | None, typer.Option(help="Only these modalities. Repeatable.")] = None
    store: StoreOption = None
    split: SplitOption = None
    folds: Annotated[str | None, typer.Option(help="Cross-validate: so many folds, or own for the dataset's.")] = None
    by: Annotated[str | None, typer.Option(help="How --folds are drawn: group (where there are), label or random.")] = (
        None
    )
    sequence: Annotated[
        str, typer.Option(help="group: a sample's tokens are the utterances of its video or dialogue around it.")
    ] = "sample"
    context: Annotated[
        int | None, typer.Option(help="Of --sequence group: utterances to either side, 8 by default.")
    ] = None
    version: Annotated[
        str | None,
        typer.Option("--version", help="Of the dataset, by number or name (pgm cache log); default the latest."),
    ] = None
    callback: Annotated[
        list[str] | None,
        typer.Option(help="What may stop a run or add metrics: package.module:Class, or its name. Repeatable."),
    ] = None
    features: FeaturesOption = "features"
    runs: RunsOption = Path("runs")

    def request(self, device: str, **settings: Any) -> Request:
        """What was asked; `settings` beside those of --set. Raises UserError for options that cannot be met."""
        from ..data.dataset import only_dataset
        from ..data.folds import cross_validation
        from ..data.sequence import context_of
        from .request import Request

        return Request(
            features=self.features,
            runs=self.runs,
            dataset=self.dataset or only_dataset(self.features),
            preset=self.preset,
            seed=self.seed,
            settings={
                **pairs(self.set_, "--set"),
                **given(
                    epochs=self.epochs,
                    pretrain_epochs=self.pretrain_epochs,
                    metric=self.metric,
                    tune=self.tune,
                    **settings,
                ),
            },
            modalities=self.modality,
            stores=pairs(self.store, "--store"),
            device=device,
            split=self.split,
            context=context_of(self.sequence, self.context),
            version=self.version,
            callbacks=self.callback or (),
            folds=cross_validation(self.folds, self.by),
        )


def pairs(texts: list[str] | None, option: str) -> dict[str, str]:
    """NAME=VALUE options as a dict."""
    found = {}
    for text in texts or []:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise UserError(f"{option} takes NAME=VALUE, not {text!r}.")
        found[name.strip().replace("-", "_") if option == "--set" else name.strip()] = value.strip()
    return found


def given(**options: Any) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}


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
