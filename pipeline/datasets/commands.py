"""`pgm datasets ls | show | check`: which datasets are known, what one looks like, whether a folder holds it."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from . import Adapter

datasets_app = typer.Typer(
    no_args_is_help=True, help="The datasets `pgm extract` knows, and whether a folder holds one."
)

Name = Annotated[str, typer.Argument(help="A dataset's name, as `pgm datasets ls` lists it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@datasets_app.command("ls", epilog="Example: pgm datasets ls")
def ls(as_json: AsJson = False) -> None:
    """List the known datasets: name, modalities, what it is."""
    from . import adapters

    if as_json:
        rows = [
            {"name": a.name, "modalities": a.modalities, "summary": a.summary, "example": a.example}
            for a in adapters().values()
        ]
        typer.echo(json.dumps(rows, indent=1))
        return
    wide = max(map(len, adapters()))
    for adapter in adapters().values():
        typer.echo(f"{adapter.name:<{wide}}  {', '.join(adapter.modalities):<19}  {adapter.summary}")


@datasets_app.command("show", epilog="Example: pgm datasets show food101")
def show(name: Name, as_json: AsJson = False) -> None:
    """Print a dataset's page: layout, splits, classes, licence, published counts, citation."""
    from . import adapter_named

    adapter = adapter_named(name)
    if as_json:
        page = asdict(adapter.page)
        head = {"name": adapter.name, "summary": adapter.summary, "modalities": adapter.modalities}
        typer.echo(json.dumps({**head, "example": adapter.example, **page}, indent=1))
        return
    page_ = adapter.page
    published = ", ".join(f"{split} {count:,}" for split, count in page_.published.items())
    typer.echo(page_.layout.strip() + "\n")
    for title, text in (
        ("modalities", ", ".join(adapter.modalities)),
        ("splits", page_.splits),
        ("classes", page_.classes),
        ("published", published or "see the source"),
        ("licence", page_.licence),
        ("source", page_.source),
        ("cite", page_.citation),
        ("extract", adapter.example),
    ):
        typer.echo(f"{title:<11} {text}")


@datasets_app.command("check", epilog="Example: pgm datasets check food101 --root ~/data/food101")
def check(
    name: Name,
    root: Annotated[Path | None, typer.Option(help="The folder of the dataset's raw media.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what of a dataset a folder holds and what is missing, and count its samples. Exits 2 where it cannot be read.

    Tables and folders are read; no medium is decoded and nothing is written.
    """
    from . import adapter_named
    from .home import find_root

    adapter = adapter_named(name)
    told = examined(adapter, find_root(adapter, root))
    if as_json:
        typer.echo(json.dumps(told, indent=1))
    else:
        _print(adapter, told, f"pgm extract {name}" + (f" --root {shlex.quote(str(root))}" if root else ""))
    if not told["ready"]:
        raise typer.Exit(2)


def examined(adapter: Adapter, root: Path) -> dict[str, Any]:
    """What `check` found: findings, whether extraction can begin, and the counts where the tables could be read."""
    from .page import counts

    findings = adapter.look(root) if root.is_dir() else []
    told: dict[str, Any] = {
        "dataset": adapter.name,
        "root": os.path.normpath(root),
        "root_exists": root.is_dir(),
        "findings": [{**asdict(finding), "count": int(finding.count), "line": str(finding)} for finding in findings],
        "ready": not any(finding.needed and not finding.count for finding in findings),
    }
    if not root.is_dir():
        return {**told, "ready": adapter.made_here}
    if not told["ready"] or not all(finding.count for finding in findings if adapter.made_here):
        # A dataset that is made on first use is not made by looking at it.
        return told
    collection = adapter.load(root)
    compared = counts(adapter.page, collection.card.splits)
    return {
        **told,
        "splits": dict(collection.card.splits),
        "counts": [{**asdict(count), "line": str(count)} for count in compared],
        "missing": {m: sum(item is None for item in sources) for m, sources in collection.media.items()},
        "notes": list(collection.card.notes),
    }


def _print(adapter: Adapter, told: dict[str, Any], command: str) -> None:
    typer.echo(f"{adapter.name} under {told['root']}")
    if not told["root_exists"]:
        typer.echo("  there is no such folder" + (": the dataset is made on first use" if told["ready"] else ""))
    for finding in told["findings"]:
        typer.echo(finding["line"])
    for count in told.get("counts", ()):
        warning = "warning  " if count["found"] != count["published"] else "as published  "
        typer.echo(f"  {warning}{count['line']}")
    for modality, missing in told.get("missing", {}).items():
        typer.echo(f"  {modality}: {missing:,} of {sum(told['splits'].values()):,} samples have none")
    for note in told.get("notes", ()):
        typer.echo(f"  note  {note}")
    if told["ready"]:
        typer.echo(f"Ready: {command}")
    else:
        typer.echo(f"Something that is needed is missing. Get it: {adapter.page.source}")
