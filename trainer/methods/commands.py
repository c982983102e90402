"""`pgm methods` lists what `--method` takes; `pgm new method` starts one of your own."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

METHODS_EXAMPLE = "Example:  pgm methods"
NEW_EXAMPLE = """Example:

    pgm new method gated && pip install -e gated && pytest gated

    pgm table fusion --methods concat,pgm,gated"""

new_app = typer.Typer(no_args_is_help=True, help="Start a package of your own.")


def methods_command(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """List the methods: ours, and those of installed packages."""
    from .registry import listed

    found = listed()
    if as_json:
        print(json.dumps(found, indent=1))
        return
    width = max(map(len, found))
    for name, summary in found.items():
        print(f"{name:{width}}  {summary}")
    print("Another's is also named by its import path, package.module:Class.", file=sys.stderr)


@new_app.command("method", epilog=NEW_EXAMPLE)
def new_method_command(
    name: Annotated[str, typer.Argument(help="What --method will call it: a word in small letters.")],
    folder: Annotated[Path, typer.Option("--in", help="The folder in which the folder NAME is made.")] = Path(),
) -> None:
    """Write a folder NAME with a method, its test and what pip needs; it trains as it is."""
    from .new import write_method

    written = write_method(name, folder)
    print(f"wrote {', '.join(map(str, written))}", file=sys.stderr)
    print(f"Next:  pip install -e {folder / name} && pgm train --cached --method {name}", file=sys.stderr)
