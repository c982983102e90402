"""The command line: verbs only. Each room keeps its own commands; this file mounts them and turns errors into exit
codes."""

from __future__ import annotations

import sys

import typer

from .cache.errors import PgMError
from .pipeline import commands as pipeline_commands

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Run the frozen encoders once, keep their tokens in a checkable cache, train multimodal heads from it in minutes.",
    epilog="Start with: pgm extract digits && pgm train --cached",
)
app.command("extract", epilog=pipeline_commands.EXAMPLE)(pipeline_commands.extract_command)

INTERRUPTED = 130


def main() -> None:
    """Entry point of `pgm`: a user's mistake exits 2, a failed run 1, Ctrl-C 130, each without a traceback."""
    try:
        app()
    except PgMError as error:
        print(f"pgm: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("pgm: stopped. What was finished is kept; the same command continues.", file=sys.stderr)
        sys.exit(INTERRUPTED)
