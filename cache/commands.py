"""`pgm cache ls | info | head | stats | verify | rm | gc | export`: look at, check, remove and hand on features.

`pgm cache split` is in split_commands.py.

Every command takes `--features DIR` (everything under it), a dataset's name or one store's path, and `--json`.
Nothing heavy is imported before a command runs.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .errors import CorruptStore, UserError
from .export import Kind
from .layout import Codec
from .printing import (
    ROOT,
    AsJson,
    Features,
    Named,
    Partial,
    Target,
    Yes,
    in_bytes,
    plain,
    print_json,
    print_table,
    said,
)
from .split_commands import EXAMPLE as SPLIT_EXAMPLE
from .split_commands import split_command

if TYPE_CHECKING:
    from .records import StoreInfo
    from .sources import SharedSources
    from .verify import Report

cache_app = typer.Typer(no_args_is_help=True, help="Look at, check, remove and export the features on disk.")
cache_app.command("split", epilog=SPLIT_EXAMPLE)(split_command)


@cache_app.command("ls", epilog="Example: pgm cache ls --features features")
def ls(target: Target = None, features: Features = ROOT, as_json: AsJson = False) -> None:
    """List datasets and stores: encoder, samples, tokens, bytes, state."""
    from .selection import select

    rows = [_ls_row(folder) for folder in select(features, target).stores]
    if as_json:
        print_json(rows)
        return
    if not rows:
        typer.echo(f"No stores under {features}/. `pgm extract digits` makes the first one.")
        return
    table = [
        (r["dataset"], r["modality"], r["encoder"], r["digest"], r["format"], *_sizes(r), r["state"]) for r in rows
    ]
    print_table(("dataset", "modality", "encoder", "store", "format", "samples", "tokens", "size", "state"), table)


@cache_app.command("info", epilog="Example: pgm cache info food101")
def info(target: Target = None, features: Features = ROOT, as_json: AsJson = False) -> None:
    """Print what a store holds (its identity) and how it is laid out."""
    from .identity import flatten
    from .records import read_info
    from .selection import select

    described = [_described(read_info(folder)) for folder in select(features, target).stores]
    if as_json:
        print_json(described)
        return
    for store in described:
        typer.echo(store.pop("path"))
        print_table((), [(f"  {name}", plain(value)) for name, value in flatten(store).items()])


@cache_app.command("head", epilog="Example: pgm cache head food101 -n 3")
def head(
    target: Target = None,
    samples: Annotated[int, typer.Option("-n", help="Samples a store.", min=1)] = 5,
    features: Features = ROOT,
    allow_partial: Partial = False,
    as_json: AsJson = False,
) -> None:
    """Print the first samples: id, split, label, tokens S and norm."""
    from .selection import select
    from .store import open_features

    shown = {}
    for folder in select(features, target).stores:
        shown[str(folder)] = _head_rows(open_features(folder, allow_partial), samples)
    if as_json:
        print_json(shown)
        return
    for path, rows in shown.items():
        typer.echo(path)
        columns = ("row", "id", "split", "label", "S", "norm", "status")
        print_table(columns, [tuple(plain(row[name]) for name in columns) for row in rows])


@cache_app.command("stats", epilog="Example: pgm cache stats food101 --json")
def stats(
    target: Target = None, features: Features = ROOT, allow_partial: Partial = False, as_json: AsJson = False
) -> None:
    """Token-length histogram, per-dimension mean and deviation, NaN count, duplicates by source digest."""
    from .selection import select
    from .stats import store_stats
    from .store import open_features

    folders = select(features, target).stores
    results = {str(f): store_stats(open_features(f, allow_partial)) for f in folders}
    shared = {str(f): _shared(f) for f in folders}
    if as_json:
        print_json({p: {**result.as_dict(), "shared_with_test": _counts(shared[p])} for p, result in results.items()})
        return
    for path, result in results.items():
        typer.echo(f"{path}: {result.samples:,} samples, {result.tokens:,} tokens, {result.nans} NaN")
        most = max((count for _, _, count in result.histogram), default=1)
        for low, high, count in result.histogram:
            typer.echo(f"  {low:>6} to {high:<6} tokens {count:>9,}  {'#' * round(40 * count / most)}")
        for name, vector in (("mean", result.mean), ("deviation", result.deviation)):
            typer.echo(f"  {name} a dimension: {vector.min():.4g} to {vector.max():.4g}, average {vector.mean():.4g}")
        again = sum(len(group) - 1 for group in result.duplicates)
        typer.echo(f"  {again} samples repeat the source of another, in {len(result.duplicates)} groups")
        if told := str(shared[path] or ""):
            typer.echo(f"  {told}")


@cache_app.command("verify", epilog="Example: pgm cache verify food101")
def verify_command(
    target: Target = None,
    features: Features = ROOT,
    discard: Annotated[
        bool, typer.Option("--discard", help="Take damaged shards back, so that `pgm extract` writes just those again.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare every byte with the checksums; names the shard and samples of what is wrong, and exits 1."""
    from .selection import select
    from .verify import verify, verify_dataset

    selection = select(features, target)
    reports = [*map(verify_dataset, selection.datasets), *map(verify, selection.suspects)]
    discarded = {str(r.path): _discard(r) for r in reports if not r.sound} if discard else {}
    if as_json:
        print_json([{**_report(report), "discarded": discarded.get(str(report.path), [])} for report in reports])
    else:
        for report in reports:
            _print_report(report, discarded.get(str(report.path), []))
    if not all(report.sound for report in reports):
        raise typer.Exit(1)


@cache_app.command("rm", epilog="Example: pgm cache rm features/food101/text--t5-base--3f9c2a1b")
def rm(target: Named, features: Features = ROOT, yes: Yes = False, as_json: AsJson = False) -> None:
    """Remove a store, or a dataset with all its stores; asks first."""
    from .removal import disk_bytes, remove_dataset, remove_folder
    from .selection import select

    selection = select(features, target)
    doomed = [*(selection.datasets or selection.stores)]
    total = sum(disk_bytes(folder) for folder in doomed)
    _confirm(f"Remove {', '.join(map(str, doomed))} ({in_bytes(total)})?", yes, as_json)
    for folder in selection.folders:
        remove_folder(folder)
    for folder in selection.datasets:
        remove_dataset(folder)
    said({"removed": [str(folder) for folder in doomed], "bytes": total}, f"Removed {in_bytes(total)}.", as_json)


@cache_app.command("gc", epilog="Example: pgm cache gc --yes")
def gc(target: Target = None, features: Features = ROOT, yes: Yes = False, as_json: AsJson = False) -> None:
    """Remove what interrupted runs left (unfinished stores, stray files); asks first, spares what is being written."""
    from .errors import StoreLocked
    from .removal import leftovers, remove_leftover
    from .selection import select

    found = [leftover for folder in select(features, target).folders for leftover in leftovers(folder)]
    if not found:
        said({"removed": [], "kept": [], "bytes": 0}, "Nothing to remove.", as_json)
        return
    if not as_json:
        print_table(("path", "what", "size"), [(str(f.path), f.what, in_bytes(f.bytes)) for f in found])
    _confirm(f"Remove these {len(found)}? `pgm extract` can still continue an unfinished store.", yes, as_json)
    removed, kept = [], []
    for leftover in found:
        try:
            remove_leftover(leftover)
            removed.append(leftover)
        except StoreLocked as error:
            kept.append(str(leftover.path))
            typer.echo(f"Kept: {error}", err=True)
    total = sum(leftover.bytes for leftover in removed)
    value = {"removed": [str(leftover.path) for leftover in removed], "kept": kept, "bytes": total}
    said(value, f"Removed {len(removed)} of {len(found)}, {in_bytes(total)}.", as_json)


@cache_app.command("export", epilog="Example: pgm cache export food101 --as safetensors --to /tmp/food101")
def export(
    target: Named,
    to: Annotated[Path, typer.Option("--to", help="Where to write: a new file or folder.")],
    kind: Annotated[Kind, typer.Option("--as", help="safetensors, npy, hdf5, zarr, or mmsa (one pickle a dataset).")],
    codec: Annotated[Codec, typer.Option(help="For zarr: none, zstd or lz4.")] = "none",
    features: Features = ROOT,
    as_json: AsJson = False,
) -> None:
    """Write features for other tools. A dataset's stores go to one folder, each under its own name."""
    from .export import export_mmsa, export_store
    from .manifest import open_dataset
    from .selection import select
    from .store import open_features

    selection = select(features, target)
    if kind == "mmsa":
        if not selection.datasets:
            raise UserError("mmsa is a layout of whole datasets; name a dataset, not one store")
        written = [export_mmsa(open_dataset(folder.parent, folder.name), to) for folder in selection.datasets]
    else:
        suffix = ".safetensors" if kind == "safetensors" else ""
        written = [
            export_store(
                open_features(folder), to / f"{folder.name}{suffix}" if selection.datasets else to, kind, codec
            )
            for folder in selection.stores
        ]
    said({"written": [str(path) for path in written]}, f"Wrote {', '.join(map(str, written))}", as_json)


def _ls_row(folder: Path) -> dict[str, Any]:
    from .records import read_info
    from .removal import disk_bytes

    row: dict[str, Any] = {"dataset": folder.parent.name, "path": str(folder)}
    try:
        found = read_info(folder)
    except CorruptStore:
        blank = dict.fromkeys(("modality", "encoder", "digest", "format", "samples", "tokens"), "?")
        return {**row, **blank, "bytes": disk_bytes(folder), "state": "unreadable"}
    return {
        **row,
        "modality": found.identity.modality,
        "encoder": found.identity.encoder,
        "digest": found.identity.digest,
        "format": found.layout["format"],
        "samples": found.layout["samples"],
        "tokens": found.layout["tokens"],
        "bytes": found.bytes if found.complete else disk_bytes(folder),
        "state": found.state,
    }


def _described(found: "StoreInfo") -> dict[str, Any]:
    return {
        "path": str(found.path),
        "state": found.state,
        "digest": found.identity.digest,
        "identity": found.identity.as_dict(),
        "layout": dict(found.layout),
        "counts": dict(found.counts),
        "shards": len(found.shards),
        "bytes": found.bytes,
        **({"int8_error": dict(found.int8_error)} if found.int8_error is not None else {}),
    }


def _head_rows(store: Any, samples: int) -> list[dict[str, Any]]:
    import numpy as np

    from .manifest import CARD, open_dataset

    columns: dict[str, list[Any]] = {}
    folder = store.path.parent
    if (folder / CARD).exists():
        dataset = open_dataset(folder.parent, folder.name)
        table = dataset.samples.slice(0, samples)
        columns = {"id": table["id"].to_pylist(), "split": table["split"].to_pylist()}
        if dataset.card.label_column in table.column_names:
            columns["label"] = _class_names(table[dataset.card.label_column].to_pylist(), dataset.card.classes)
    elif store.info.complete:
        columns = {"id": list(store.ids[:samples])}
    rows = []
    for row in range(min(samples, len(store))):
        there = bool(store.available[row])
        norm = float(np.linalg.norm(store[row].astype(np.float32))) if there else None
        known = {name: columns[name][row] if name in columns else None for name in ("id", "split", "label")}
        status = str(store.status[row])
        rows.append({"row": row, **known, "S": int(store.lengths[row]), "norm": norm, "status": status})
    return rows


def _class_names(labels: list[Any], classes: tuple[str, ...]) -> list[Any]:
    return [classes[x] if isinstance(x, int) and 0 <= x < len(classes) else x for x in labels]


def _shared(folder: Path) -> "SharedSources | None":
    """What the test split shares with the others in a finished store of a dataset's present samples."""
    from .manifest import CARD, open_dataset
    from .records import read_info
    from .sources import rows_of, shared_sources

    found = read_info(folder)
    if not found.complete or not (folder.parent / CARD).exists():
        return None
    dataset = open_dataset(folder.parent.parent, folder.parent.name)
    if not dataset.is_current(found):
        return None
    return shared_sources(folder, found.identity.modality, rows_of(dataset.samples["split"]))


def _counts(shared: "SharedSources | None") -> dict[str, int] | None:
    return None if shared is None else {"test": shared.test, "train": shared.train, "val": shared.val}


def _discard(report: "Report") -> list[int]:
    """Take the damaged shards of a store back; the rest of it is untouched."""
    from .writer import discard_shards

    shards = sorted({problem.shard for problem in report.problems if problem.shard is not None})
    if shards:
        discard_shards(report.path, shards)
    return shards


def _print_report(report: "Report", discarded: list[int]) -> None:
    verdict = "sound" if report.sound else f"{len(report.problems)} problem{'s' * (len(report.problems) > 1)}"
    shards = "" if report.state == "dataset" else f", {report.shards} shards"
    typer.echo(f"{report.path}: {verdict} ({report.state}{shards}, {in_bytes(report.bytes)} read)")
    for problem in report.problems:
        typer.echo(f"  {problem}")
    if discarded:
        typer.echo(f"  took back shards {', '.join(map(str, discarded))}: `pgm extract` now writes just those again")
    elif any(problem.shard is not None for problem in report.problems):
        typer.echo("  `--discard` takes the damaged shards back, and `pgm extract` then writes just those again")
    elif not report.sound and report.state != "dataset":
        typer.echo("  `pgm cache rm` removes the store; `pgm extract` then makes it anew")


def _report(report: "Report") -> dict[str, Any]:
    problems = [{"file": p.file, "what": p.what, "shard": p.shard, "samples": list(p.samples)} for p in report.problems]
    return {
        "path": str(report.path),
        "state": report.state,
        "sound": report.sound,
        "shards": report.shards,
        "bytes": report.bytes,
        "problems": problems,
    }


def _confirm(question: str, yes: bool, as_json: bool) -> None:
    if yes:
        return
    if as_json:
        raise UserError("with --json nothing is asked: add --yes to remove")
    if not typer.confirm(question):
        raise UserError("nothing was removed")


def _sizes(row: dict[str, Any]) -> tuple[str, str, str]:
    samples, tokens = (f"{n:,}" if isinstance(n, int) else str(n) for n in (row["samples"], row["tokens"]))
    return samples, tokens, in_bytes(row["bytes"])
