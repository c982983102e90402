"""How `pgm cache` prints: plain tables that awk reads too, or JSON; and the options its commands share."""

import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from .completion import cached_datasets

Features = Annotated[
    str,
    typer.Option("--features", envvar="PGM_FEATURES", help="Where the datasets lie: a folder or s3://bucket/prefix."),
]
Target = Annotated[
    str | None,
    typer.Argument(help="A dataset's name or a store's place; default everything.", autocompletion=cached_datasets),
]
Named = Annotated[str, typer.Argument(help="A dataset's name or a store's place.", autocompletion=cached_datasets)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AtVersion = Annotated[str | None, typer.Option("--version", help="A number or a name; default the latest.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
ROOT = "features"


def said(value: dict[str, Any], text: str, as_json: bool) -> None:
    """A value as JSON, or what it says to people."""
    if as_json:
        print_json(value)
    else:
        typer.echo(text)


def print_json(value: Any) -> None:
    """Indented JSON on stdout."""
    typer.echo(json.dumps(value, indent=1))


def print_table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Left-aligned columns, two spaces apart: readable on a terminal and by awk."""
    table = [columns, *rows] if columns else rows
    widths = [max(len(row[at]) for row in table) for at in range(len(table[0]))] if table else []
    for row in table:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def plain(value: Any) -> str:
    """A value in a table's cell."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def in_bytes(size: int) -> str:
    """Decimal units, as disks are sold."""
    amount = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"
