"""`pgm report`: one page from finished runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ..run.files import write_atomically
from ..run.options import JsonOption, expanded
from ..studies.engine.options import RunOptions

EXAMPLE = """Example:

    pgm table 3 --dataset digits && pgm report --dataset digits -o report.html

It trains nothing: the page shows the runs of tables 2 and 3 that are there, and says which are not."""

Examples = Callable[[str, Path | None, Sequence[str]], Mapping[str, Any]]


def make_report_command(examples: Examples) -> Callable[..., None]:
    """`pgm report`; `examples(dataset, root, ids)` finds texts and pictures in the raw media."""

    @expanded
    def report_command(
        chosen: RunOptions,
        out: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path("report.html"),
        root: Annotated[
            Path | None, typer.Option(help="The folder of the dataset's raw media, to show its hardest samples.")
        ] = None,
        as_json: JsonOption = False,
    ) -> None:
        """Write a self-contained page of a dataset's tables, figures, hardest samples and runs."""
        from .content import content

        found = content(chosen.request("cpu"), chosen.seeds, lambda name, ids: examples(name, root, ids))
        text = page(found)
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, text.encode())
        if as_json:
            print(json.dumps({"file": str(out), "bytes": len(text.encode()), "runs": len(found["runs"])}))
        else:
            print(f"wrote {out}: {len(found['runs'])} runs, {len(text.encode()) / 1e6:.1f} MB", file=sys.stderr)

    return report_command


def page(found: Mapping[str, Any]) -> str:
    """The page's HTML."""
    from jinja2 import Environment, StrictUndefined

    source = Path(__file__).with_name("page.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(source).render(**found)
