"""`pgm train`, `pgm runs`, `pgm evaluate`, `pgm predict`: their options. torch is imported only when a command runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...cache.errors import UserError
from .completion import kept_runs, methods
from .files import json_text
from .options import (
    DatasetOption,
    DeviceOption,
    FeaturesOption,
    FeedOption,
    JsonOption,
    RequestOptions,
    RunsOption,
    StoreOption,
    expanded,
    pairs,
)

TRAIN_EXAMPLE = """Example:

    pgm train --cached --dataset digits --method pgm --seeds 5

    pgm train --cached --method concat --set lr=1e-3 --set dim=128

    pgm train --cached --method my.module:MyConfig --select-on weighted_f1 --callback my.module:Patience

The same command again answers from the finished run; after Ctrl-C or a crash it continues exactly."""

if TYPE_CHECKING:
    from .request import Request

ExtractMissing = Callable[[str, str | None], None]


def make_train_command(extract_missing: ExtractMissing) -> Callable[..., None]:
    """`pgm train`; without --cached, `extract_missing(features, dataset)` runs first."""

    @expanded
    def train_command(
        asked: RequestOptions,
        cached: Annotated[
            bool, typer.Option("--cached", help="Use the cache as it is: no encoder, no raw media.")
        ] = False,
        method: Annotated[
            str,
            typer.Option(
                help="pgm, concat, mla, ... (pgm methods lists them), single:NAME or a modality's name, or your own: "
                "package.module:Class, or its name once it is installed.",
                autocompletion=methods,
            ),
        ] = "pgm",
        seeds: Annotated[int, typer.Option(help="Train so many seeds; print mean and deviation.")] = 1,
        batch: Annotated[int | None, typer.Option(help="Samples a step.")] = None,
        tokens: Annotated[int | None, typer.Option(help="Pool to at most so many tokens a sample at load.")] = None,
        precision: Annotated[str, typer.Option(help="auto, fp32 or bf16.")] = "auto",
        select_on: Annotated[
            str | None, typer.Option(help="The validation metric whose best epoch is kept; by default the task's.")
        ] = None,
        compile: Annotated[bool, typer.Option("--compile", help="torch.compile the model.")] = False,
        deterministic: Annotated[
            bool, typer.Option("--deterministic", help="The same bits again on a GPU; slower. A CPU's always are.")
        ] = False,
        feed: FeedOption = "auto",
        device: DeviceOption = "auto",
        tensorboard: Annotated[Path | None, typer.Option(help="Also write TensorBoard events to this folder.")] = None,
        force: Annotated[bool, typer.Option("--force", help="Train anew even if the run is there.")] = False,
        as_json: JsonOption = False,
    ) -> None:
        """Train a head on cached features and evaluate it once on the test split."""
        if not cached:
            extract_missing(asked.features, asked.dataset)
        request = asked.request(device, batch=batch, tokens=tokens, precision=precision, select_on=select_on)
        request = replace(request, method=method, compile=compile, deterministic=deterministic)
        train_and_tell(request, seeds, feed, force, tensorboard, as_json)

    return train_command


def train_and_tell(
    request: Request, seeds: int, feed: str, force: bool, tensorboard: Path | None, as_json: bool
) -> None:
    """Train what was asked, showing progress, and print the outcome."""
    from .advice import advice
    from .display import TrainingDisplay
    from .seeds import summary, train_seeds
    from .tensorboard import listeners
    from .training import Execution

    if seeds < 1:
        raise UserError(f"--seeds is 1 or more, not {seeds}.")
    with TrainingDisplay() as display, listeners(display, tensorboard) as listener:
        how = Execution(feed=feed, force=force, listener=listener)
        trained = train_seeds(request, seeds, how)
    finished = summary(trained)
    if as_json:
        print(json_text(finished))
        return
    print_outcome(finished)
    for line in advice(request, trained[0], finished):
        print(line, file=sys.stderr)


def print_outcome(result: dict[str, Any]) -> None:
    """The test metrics with the floors below them, on stdout."""
    from .display import results_table
    from .listing import console

    columns = {result["method"]: result["test"], **result["floors"]}
    several = isinstance(result["run"], list)
    seeds = f", {len(result['run'])} runs" if several else f", seed {result['seed']}"
    console().print(results_table(f"{result['dataset']}{seeds}, test split", columns))


runs_app = typer.Typer(no_args_is_help=True, help="List, show, compare and remove finished runs.")


@runs_app.command("ls", epilog="Example:  pgm runs ls --dataset digits")
def runs_ls(runs: RunsOption = Path("runs"), dataset: DatasetOption = None, as_json: JsonOption = False) -> None:
    """One line a run, oldest first."""
    from .listing import listed, print_runs

    found = listed(runs, dataset)
    if as_json:
        print(json_text(found))
    else:
        print_runs(runs, found)


@runs_app.command("show", epilog="Example:  pgm runs show d2fba5")
def runs_show(
    run: Annotated[str, typer.Argument(help="The run's id or its beginning.", autocompletion=kept_runs)],
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """What a run was asked, where it ran and what came out."""
    from .listing import print_run, whole
    from .runs import open_run

    found = whole(open_run(runs, run))
    if as_json:
        print(json_text(found))
    else:
        print_run(found)


@runs_app.command("diff", epilog="Example:  pgm runs diff d2fba5 8d8ef7")
def runs_diff(
    one: Annotated[str, typer.Argument(help="A run.", autocompletion=kept_runs)],
    other: Annotated[str, typer.Argument(help="Another run.", autocompletion=kept_runs)],
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """What two runs' configurations and results disagree in."""
    from .listing import compared, print_difference
    from .runs import open_run

    found = compared(open_run(runs, one), open_run(runs, other))
    if as_json:
        print(json_text(found))
    else:
        print_difference(found)


@runs_app.command("rm", epilog="Example:  pgm runs rm d2fba5")
def runs_rm(
    run: Annotated[list[str], typer.Argument(help="Runs to delete.", autocompletion=kept_runs)],
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
    run: Annotated[str, typer.Argument(help="A finished run's id or its beginning.", autocompletion=kept_runs)],
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
    print(json_text(found)) if as_json else print_metrics(found)


def print_metrics(found: dict[str, Any]) -> None:
    """One line of metrics on stdout."""
    from .display import numbers

    where = f"{found['run']} on {found['dataset']} {found['split']}, {found['samples']:,} samples"
    print(f"{where}: {numbers(found['metrics'])}")


PREDICT_EXAMPLE = "Example:  pgm predict d2fba5 --features features --dataset digits --out predictions.parquet"


def predict_command(
    run: Annotated[str, typer.Argument(help="A finished run's id or its beginning.", autocompletion=kept_runs)],
    features: FeaturesOption = "features",
    dataset: DatasetOption = None,
    out: Annotated[Path, typer.Option(help="The Parquet file to write.")] = Path("predictions.parquet"),
    store: StoreOption = None,
    runs: RunsOption = Path("runs"),
    feed: FeedOption = "auto",
    device: DeviceOption = "auto",
) -> None:
    """Predict every sample of a cached dataset with a run's weights: same encoders, no labels needed."""
    from .inference import predict
    from .runs import open_run

    count = predict(open_run(runs, run), features, dataset, out, pairs(store, "--store"), feed, device)
    print(f"{count:,} predictions written to {out}", file=sys.stderr)
