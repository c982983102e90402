"""`pgm cache verify`: compare every byte with its checksum."""

from typing import TYPE_CHECKING, Any

import typer

from .printing import ROOT, AsJson, Features, Target, in_bytes, print_json

if TYPE_CHECKING:
    from ..dataset.verify import Report


def verify_command(target: Target = None, features: Features = ROOT, as_json: AsJson = False) -> None:
    """Compare every byte with the checksums; names the samples of what is wrong, and exits 1."""
    from ..dataset.selection import select
    from ..dataset.verify import sample_ids, verify_dataset, verify_store

    selection = select(features, target)
    reports = [verify_dataset(dataset) for dataset in selection.datasets]
    reports += [verify_store(store, sample_ids(store.parent)) for store in selection.stores]
    if as_json:
        print_json([_report(report) for report in reports])
    else:
        for report in reports:
            _print_report(report)
    if not all(report.sound for report in reports):
        raise typer.Exit(1)


def _print_report(report: "Report") -> None:
    verdict = "sound" if report.sound else f"{len(report.problems)} problem{'s' * (len(report.problems) > 1)}"
    typer.echo(f"{report.url}: {verdict} ({report.kind}, {in_bytes(report.bytes)} read)")
    for problem in report.problems:
        typer.echo(f"  {problem}")
    if not report.sound and report.kind == "store":
        typer.echo("  `pgm extract` again makes damaged samples anew and commits a version without the damage")


def _report(report: "Report") -> dict[str, Any]:
    problems = [{"file": p.file, "what": p.what, "samples": list(p.samples)} for p in report.problems]
    return {
        "path": report.url,
        "kind": report.kind,
        "sound": report.sound,
        "bytes": report.bytes,
        "problems": problems,
    }
