"""`pgm train`, `pgm runs`, `pgm evaluate`, `pgm predict`: their options. torch is imported only when a command runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ...cache.errors import UserError
from .home import runs_place

FeaturesOption = Annotated[
    str,
    typer.Option("--features", envvar="PGM_FEATURES", help="Where the features lie: a folder or s3://bucket/prefix."),
]
VersionOption = Annotated[
    str | None, typer.Option("--version", help="Of the dataset, by number or name (pgm cache log); default the latest.")
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
DatasetOption = Annotated[str | None, typer.Option(help="A cached dataset; not needed when there is only one.")]
FeedOption = Annotated[str, typer.Option(help="auto, resident (in memory) or mapped (from the page cache).")]
SplitOption = Annotated[
    str | None, typer.Option("--split", help="A named split (pgm cache split); by default the dataset's own.")
]
SequenceOption = Annotated[
    str, typer.Option(help="group: a sample's tokens are the utterances of its video or dialogue around it.")
]
ContextOption = Annotated[
    int | None, typer.Option(help="Of --sequence group: utterances to either side, 8 by default.")
]
MetricOption = Annotated[
    str | None, typer.Option(help="What rows are compared and selected on: auroc, balanced_accuracy, ...; by the card.")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]

TRAIN_EXAMPLE = """Example:

    pgm train --cached --dataset digits --method pgm --seeds 5

    pgm train --cached --method concat --set lr=1e-3 --set dim=128

The same command again answers from the finished run; after Ctrl-C or a crash it continues exactly."""

ExtractMissing = Callable[[str, str | None], None]


def make_train_command(extract_missing: ExtractMissing) -> Callable[..., None]:
    """`pgm train`; without --cached, `extract_missing(features, dataset)` runs first."""

    def train_command(
        cached: Annotated[
            bool, typer.Option("--cached", help="Use the cache as it is: no encoder, no raw media.")
        ] = False,
        dataset: DatasetOption = None,
        features: FeaturesOption = "features",
        runs: RunsOption = Path("runs"),
        method: Annotated[
            str,
            typer.Option(
                help="pgm, concat, mla, ... (pgm methods lists them), single:NAME or a modality's name, or your own: "
                "package.module:Class, or its name once it is installed."
            ),
        ] = "pgm",
        preset: Annotated[
            str, typer.Option(help="small (width 64, 4 + 12 epochs) or paper (width 768, 20 + 50 epochs).")
        ] = "small",
        seed: Annotated[int, typer.Option(help="Of the first run.")] = 0,
        seeds: Annotated[int, typer.Option(help="Train so many seeds; print mean and deviation.")] = 1,
        epochs: Annotated[int | None, typer.Option(help="Stage 2, on the task.")] = None,
        pretrain_epochs: Annotated[int | None, typer.Option(help="Stage 1, on L^P.")] = None,
        batch: Annotated[int | None, typer.Option(help="Samples a step.")] = None,
        tokens: Annotated[int | None, typer.Option(help="Pool to at most so many tokens a sample at load.")] = None,
        set_: Annotated[
            list[str] | None,
            typer.Option("--set", help="NAME=VALUE: any switch of the protocol or the method. Repeatable."),
        ] = None,
        modality: Annotated[list[str] | None, typer.Option(help="Only these modalities. Repeatable.")] = None,
        store: Annotated[list[str] | None, typer.Option(help="MODALITY=DIGEST among several stores.")] = None,
        split: SplitOption = None,
        sequence: SequenceOption = "sample",
        context: ContextOption = None,
        version: VersionOption = None,
        feed: FeedOption = "auto",
        precision: Annotated[str, typer.Option(help="auto, fp32 or bf16.")] = "auto",
        device: DeviceOption = "auto",
        compile: Annotated[bool, typer.Option("--compile", help="torch.compile the model.")] = False,
        metric: MetricOption = None,
        select_on: Annotated[
            str | None, typer.Option(help="The validation metric whose best epoch is kept; by default the task's.")
        ] = None,
        callback: Annotated[
            list[str] | None,
            typer.Option(help="What may stop the run or add metrics: package.module:Class, or its name. Repeatable."),
        ] = None,
        tensorboard: Annotated[Path | None, typer.Option(help="Also write TensorBoard events to this folder.")] = None,
        force: Annotated[bool, typer.Option("--force", help="Train anew even if the run is there.")] = False,
        as_json: JsonOption = False,
    ) -> None:
        """Train a head on cached features and evaluate it once on the test split."""
        if not cached:
            extract_missing(features, dataset)
        settings: dict[str, Any] = {**pairs(set_, "--set"), "precision": precision}
        settings |= given(
            epochs=epochs,
            pretrain_epochs=pretrain_epochs,
            batch=batch,
            tokens=tokens,
            metric=metric,
            select_on=select_on,
        )
        from ..data.sequence import context_of
        from .request import Request

        request = Request(
            features=features,
            runs=runs,
            dataset=dataset,
            method=method,
            preset=preset,
            seed=seed,
            settings=settings,
            modalities=modality,
            stores=pairs(store, "--store"),
            device=device,
            split=split,
            context=context_of(sequence, context),
            version=version,
            compile=compile,
            callbacks=callback or (),
        )
        train_and_tell(request, seeds, feed, force, tensorboard, as_json)

    return train_command


def train_and_tell(request: Any, seeds: int, feed: Any, force: bool, tensorboard: Path | None, as_json: bool) -> None:
    """Train what was asked, showing progress, and print the outcome."""
    from .display import TrainingDisplay
    from .seeds import summary, train_seeds
    from .tensorboard import listeners
    from .training import Execution

    if seeds < 1:
        raise UserError(f"--seeds is 1 or more, not {seeds}.")
    with TrainingDisplay() as display, listeners(display, tensorboard) as listener:
        how = Execution(feed=feed, force=force, listener=listener)
        finished = summary(train_seeds(request, seeds, how))
    if as_json:
        print(json.dumps(finished, indent=1))
    else:
        print_outcome(finished)


def print_outcome(result: dict[str, Any]) -> None:
    """The test metrics with the floors below them, on stdout."""
    from .display import results_table
    from .listing import console

    columns = {result["method"]: result["test"], **result["floors"]}
    several = isinstance(result["run"], list)
    seeds = f", {len(result['run'])} seeds" if several else f", seed {result['seed']}"
    console().print(results_table(f"{result['dataset']}{seeds}, test split", columns))


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


runs_app = typer.Typer(no_args_is_help=True, help="List, show, compare and remove finished runs.")


@runs_app.command("ls", epilog="Example:  pgm runs ls --dataset digits")
def runs_ls(runs: RunsOption = Path("runs"), dataset: DatasetOption = None, as_json: JsonOption = False) -> None:
    """One line a run, oldest first."""
    from .listing import listed, print_runs

    found = listed(runs, dataset)
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        print_runs(runs, found)


@runs_app.command("show", epilog="Example:  pgm runs show d2fba5")
def runs_show(
    run: Annotated[str, typer.Argument(help="The run's id or its beginning.")],
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """What a run was asked, where it ran and what came out."""
    from .listing import print_run, whole
    from .runs import open_run

    found = whole(open_run(runs, run))
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        print_run(found)


@runs_app.command("diff", epilog="Example:  pgm runs diff d2fba5 8d8ef7")
def runs_diff(
    one: Annotated[str, typer.Argument(help="A run.")],
    other: Annotated[str, typer.Argument(help="Another run.")],
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """What two runs' configurations and results disagree in."""
    from .listing import compared, print_difference
    from .runs import open_run

    found = compared(open_run(runs, one), open_run(runs, other))
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        print_difference(found)


@runs_app.command("rm", epilog="Example:  pgm runs rm d2fba5")
def runs_rm(
    run: Annotated[list[str], typer.Argument(help="Runs to delete.")],
    runs: RunsOption = Path("runs"),
) -> None:
    """Delete runs: weights, predictions and all."""
    from .runs import open_run, remove

    # All are looked up before the first is deleted, so that a typo deletes nothing.
    for found in [open_run(runs, name) for name in run]:
        remove(found)
        print(f"removed {found.path}", file=sys.stderr)


EVALUATE_EXAMPLE = "Example:  pgm evaluate d2fba5 --split val"


def evaluate_command(
    run: Annotated[str, typer.Argument(help="A finished run's id or its beginning.")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    features: Annotated[str | None, typer.Option(help="Where its features lie now, if they were moved.")] = None,
    runs: RunsOption = Path("runs"),
    feed: FeedOption = "auto",
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Compute a run's metrics on a split again, from its saved weights."""
    from .inference import evaluate_run
    from .runs import open_run

    found = evaluate_run(open_run(runs, run), split, features, feed, device)
    print(json.dumps(found, indent=1)) if as_json else print_metrics(found)


def print_metrics(found: dict[str, Any]) -> None:
    """One line of metrics on stdout."""
    from .display import numbers

    where = f"{found['run']} on {found['dataset']} {found['split']}, {found['samples']:,} samples"
    print(f"{where}: {numbers(found['metrics'])}")


PREDICT_EXAMPLE = "Example:  pgm predict d2fba5 --features features --dataset digits --out predictions.parquet"


def predict_command(
    run: Annotated[str, typer.Argument(help="A finished run's id or its beginning.")],
    features: FeaturesOption = "features",
    dataset: DatasetOption = None,
    out: Annotated[Path, typer.Option(help="The Parquet file to write.")] = Path("predictions.parquet"),
    store: Annotated[list[str] | None, typer.Option(help="MODALITY=DIGEST among several stores.")] = None,
    runs: RunsOption = Path("runs"),
    feed: FeedOption = "auto",
    device: DeviceOption = "auto",
) -> None:
    """Predict every sample of a cached dataset with a run's weights: same encoders, no labels needed."""
    from .inference import predict
    from .runs import open_run

    count = predict(open_run(runs, run), features, dataset, out, pairs(store, "--store"), feed, device)
    print(f"{count:,} predictions written to {out}", file=sys.stderr)
