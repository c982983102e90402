"""`pgm cache verify`: compare every byte with its checksum."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..store.store import STORE
from .printing import ROOT, AsJson, Features, Target, in_bytes, print_json

if TYPE_CHECKING:
    from ..dataset.verify import Report


def verify_command(
    target: Target = None,
    discard: Annotated[
        bool, typer.Option("--discard", help="Remove what is damaged, so that `pgm extract` makes it again.")
    ] = False,
    features: Features = ROOT,
    as_json: AsJson = False,
) -> None:
    """Compare every byte with the checksums; names the samples of what is wrong, and exits 1."""
    from ..dataset import verify
    from ..dataset.selection import select

    selection = select(features, target)
    reports = {dataset: [verify.verify_dataset(dataset)] for dataset in selection.datasets}
    for store in selection.stores:
        found = verify.verify_store(store, verify.sample_ids(store.parent))
        reports.setdefault(store.parent, []).append(found)
    every = [report for found in reports.values() for report in found]
    removed = (
        [place for dataset, found in reports.items() for place in verify.discard(dataset, found)] if discard else []
    )
    if as_json:
        print_json(
            [{**_report(report), "removed": [r for r in removed if r.startswith(report.url)]} for report in every]
        )
    else:
        for report in every:
            _print_report(report, discard)
        for place in removed:
            typer.echo(f"Removed {place}")
    if not all(report.sound for report in every):
        raise typer.Exit(1)


def _print_report(report: "Report", discarded: bool) -> None:
    verdict = "sound" if report.sound else f"{len(report.problems)} problem{'s' * (len(report.problems) > 1)}"
    typer.echo(f"{report.url}: {verdict} ({report.kind}, {in_bytes(report.bytes)} read)")
    for problem in report.problems:
        typer.echo(f"  {problem}")
    if any(problem.file == STORE for problem in report.problems):
        typer.echo("  `pgm cache rm` removes the store; `pgm extract` then makes it anew")
    elif not report.sound and not discarded:
        typer.echo("  `--discard` removes what is damaged; `pgm extract` then makes just that again")


def _report(report: "Report") -> dict[str, Any]:
    problems = [{"file": p.file, "what": p.what, "samples": list(p.samples)} for p in report.problems]
    return {
        "path": report.url,
        "kind": report.kind,
        "sound": report.sound,
        "bytes": report.bytes,
        "problems": problems,
    }
