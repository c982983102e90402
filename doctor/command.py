"""`pgm doctor`: a line a check, or JSON, or a text for a bug report."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from .check import Check

EXAMPLE = "Example:  pgm doctor --features s3://bucket/features\n\npgm doctor --bundle > report.md"
COLOURS = {"ok": typer.colors.GREEN, "warn": typer.colors.YELLOW, "fail": typer.colors.RED}


def doctor_command(
    features: Annotated[
        str, typer.Option(envvar="PGM_FEATURES", help="The folder or URL that features go to.")
    ] = "features",
    runs: Annotated[str, typer.Option(envvar="PGM_RUNS", help="The folder or URL that runs go to.")] = "runs",
    scheduler: Annotated[str | None, typer.Option(help="A running Dask scheduler, tcp://host:port.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_bundle: Annotated[
        bool, typer.Option("--bundle", help="Print a text for a bug report, without paths, hosts or secrets.")
    ] = False,
) -> None:
    """Look at this machine, its disks, the hub and Dask: each line ok, warn or fail, with what to do.

    Ends with exit code 1 where a check fails. Nothing is left behind: what is written to try a disk is removed.
    """
    from .report import bundle, examine

    found = []
    for check in examine(features, runs, scheduler):
        found.append(check)
        if not (as_json or as_bundle):
            show(check)
    states = Counter(check.state for check in found)
    if as_json:
        typer.echo(json.dumps([asdict(check) for check in found], indent=1))
    elif as_bundle:
        typer.echo(bundle(found, (features, runs)))
    else:
        typer.echo(f"{states['ok']} ok, {states['warn']} to look at, {states['fail']} in the way")
    raise typer.Exit(1 if states["fail"] else 0)


def show(check: Check) -> None:
    """Print one check as it ends, and what to do."""
    typer.echo(f"{typer.style(f'{check.state:<4}', fg=COLOURS[check.state])} {check.name}: {check.found}")
    if check.advice:
        typer.echo(f"     {check.advice}")
