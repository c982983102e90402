"""The command line: verbs only. Each room keeps its own commands; this file mounts them and turns errors into exit
codes."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from .cache.commands import PUSH_EXAMPLE, cache_app, make_push_command
from .cache.errors import PgMError
from .doctor import command as doctor_command
from .pipeline import commands as pipeline_commands
from .pipeline.datasets.commands import datasets_app
from .pipeline.encoder_commands import encoders_app
from .pipeline.imports import commands as import_commands
from .trainer.methods import commands as method_commands
from .trainer.report import commands as report_commands
from .trainer.run import commands as trainer_commands
from .trainer.run import params as params_command
from .trainer.run.options import RunsOption
from .trainer.studies import commands as study_commands

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Run the frozen encoders once, keep their tokens in a checkable cache, train multimodal heads from it.",
    epilog="Example:  pgm extract digits && pgm train --cached",
)
INTERRUPTED = 130


def _extract_missing(features: str, dataset: str | None) -> None:
    """The one place where training reaches for stage 1; the rooms themselves never import each other."""
    from .console import ExtractionDisplay
    from .pipeline.extraction import extract_missing

    with ExtractionDisplay() as display:
        extract_missing(features, dataset, display)


def _examples(dataset: str, root: Path | None, ids: Sequence[str]) -> Mapping[str, Any]:
    """Samples to look at in a report: the trainer never reads raw media itself."""
    from .pipeline.examples import examples

    return examples(dataset, root, ids)


def _licence_of(name: str, modality: str | None) -> str:
    """Of an encoder of a modality; without one, of a dataset's raw media."""
    from .pipeline.datasets import adapters
    from .pipeline.encoders.facts import licence_of

    if modality is not None:
        return licence_of(name, modality)
    known = adapters().get(name)
    return known.page.licence if known else "see the source"


@app.command("demo", epilog="Example:  pgm demo")
def demo_command(
    features: pipeline_commands.FeaturesOption = "features",
    runs: RunsOption = Path("runs"),
    workers: pipeline_commands.WorkersOption = None,
) -> None:
    """Extract, train and compare on the embedded digits; ends with a table, a figure and a page."""
    from .demo import demo

    demo(features, runs, workers)


app.command("extract", epilog=pipeline_commands.EXAMPLE)(pipeline_commands.extract_command)
app.command("train", epilog=trainer_commands.TRAIN_EXAMPLE)(trainer_commands.make_train_command(_extract_missing))
app.command("evaluate", epilog=trainer_commands.EVALUATE_EXAMPLE)(trainer_commands.evaluate_command)
app.command("predict", epilog=trainer_commands.PREDICT_EXAMPLE)(trainer_commands.predict_command)
app.command("table", epilog=study_commands.TABLE_EXAMPLE)(study_commands.table_command)
app.command("ablate", epilog=study_commands.ABLATE_EXAMPLE)(study_commands.ablate_command)
app.command("figure", epilog=study_commands.FIGURE_EXAMPLE)(study_commands.figure_command)
app.command("report", epilog=report_commands.EXAMPLE)(report_commands.make_report_command(_examples))
app.command("params", epilog=params_command.EXAMPLE)(params_command.params)
app.command("import", epilog=import_commands.EXAMPLE)(import_commands.import_command)
app.command("doctor", epilog=doctor_command.EXAMPLE)(doctor_command.doctor_command)
app.command("methods", epilog=method_commands.METHODS_EXAMPLE)(method_commands.methods_command)
app.add_typer(method_commands.new_app, name="new")
app.add_typer(trainer_commands.runs_app, name="runs")
app.add_typer(datasets_app, name="datasets")
app.add_typer(encoders_app, name="encoders")
cache_app.command("push", epilog=PUSH_EXAMPLE)(make_push_command(_licence_of))
app.add_typer(cache_app, name="cache")


def main() -> None:
    """Entry point of `pgm`: a user's mistake exits 2, a failed run 1, Ctrl-C 130, each without a traceback."""
    try:
        app()
    except PgMError as error:
        print(f"pgm: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except SystemExit as end:
        # Typer turns Ctrl-C into this exit code and says nothing.
        if end.code == INTERRUPTED:
            print("pgm: stopped. What was finished is kept; the same command continues.", file=sys.stderr)
        raise
