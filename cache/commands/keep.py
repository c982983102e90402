"""`pgm cache rm`, `gc`, `compact` and `export`: remove, sweep, rewrite, hand on."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..dataset.export import Kind
from ..errors import UserError
from ..segment import Codec, Format
from .printing import ROOT, AsJson, AtVersion, Features, Named, Target, Yes, in_bytes, print_json, print_table, said

if TYPE_CHECKING:
    from ..dataset.collect import Garbage


def rm(target: Named, features: Features = ROOT, yes: Yes = False, as_json: AsJson = False) -> None:
    """Remove a store, or a dataset with all its stores; asks first."""
    from ..dataset.removal import remove_dataset, remove_store
    from ..dataset.selection import select

    selection = select(features, target)
    doomed = [*(selection.datasets or selection.stores)]
    total = sum(entry.bytes for storage in doomed for entry in storage.entries())
    _confirm(f"Remove {', '.join(storage.url for storage in doomed)} ({in_bytes(total)})?", yes, as_json)
    for storage in doomed:
        (remove_dataset if selection.datasets else remove_store)(storage)
    said({"removed": [storage.url for storage in doomed], "bytes": total}, f"Removed {in_bytes(total)}.", as_json)


def gc(
    target: Target = None,
    keep: Annotated[
        int | None, typer.Option(help="Keep so many of a dataset's versions of every name; without it all.", min=1)
    ] = None,
    now: Annotated[
        bool, typer.Option("--now", help="Also what is younger than a day: only while nothing is being extracted.")
    ] = False,
    features: Features = ROOT,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Remove what no version lists: segments of runs that died, and versions before the last --keep; asks first."""
    from ..dataset.collect import GRACE, garbage, remove
    from ..dataset.selection import select

    selection = select(features, target)
    if not selection.datasets and selection.stores:
        raise UserError("what can go is a matter of a whole dataset's versions; name the dataset, not one store")

    def listed() -> "list[Garbage]":
        return [item for dataset in selection.datasets for item in garbage(dataset, keep, 0.0 if now else GRACE)]

    found = listed()
    if not found:
        said({"removed": [], "bytes": 0}, "Nothing to remove.", as_json)
        return
    if not as_json:
        rows = [(f"{item.storage.url}/{item.key}", item.why, in_bytes(item.bytes)) for item in found]
        print_table(("what", "why", "size"), rows)
    _confirm(f"Remove these {len(found)}?", yes, as_json)
    # While the question stood, a version that lists some of it may have been committed.
    still = set(listed())
    found = [item for item in found if item in still]
    total = remove(found)
    value = {"removed": [f"{item.storage.url}/{item.key}" for item in found], "bytes": total}
    said(value, f"Removed {len(found)}, {in_bytes(total)}.", as_json)


def compact_command(
    target: Named,
    version: AtVersion = None,
    format: Annotated[Format | None, typer.Option(help="Of the new segments; default what there is.")] = None,
    codec: Annotated[Codec, typer.Option(help="Of the new segments, for zarr: none, zstd or lz4.")] = "none",
    features: Features = ROOT,
    as_json: AsJson = False,
) -> None:
    """Rewrite stores of many small or half-used segments into few full ones; contents and run names stay."""
    from ..dataset.compact import compact
    from ..dataset.selection import open_selected, select

    told: list[dict[str, Any]] = []
    for opened in open_selected(select(features, target), version):
        made = compact(opened.store.storage, opened.version.number, format, codec)
        told.append({"path": opened.url, "version": made.number if made else None, **(made.written if made else {})})
    if as_json:
        print_json(told)
        return
    for one in told:
        what = (
            "is compact already" if one["version"] is None else f"version {one['version']}, {one['segments']} segments"
        )
        size = "" if one["version"] is None else f", {in_bytes(one['bytes'])} written"
        typer.echo(f"{one['path']}: {what}{size}")
    if any(one["version"] is not None for one in told):
        typer.echo("`pgm cache gc --keep 1` removes the versions of before, and what only they use")


def export(
    target: Named,
    to: Annotated[Path, typer.Option("--to", help="Where to write: a new file or folder.")],
    kind: Annotated[Kind, typer.Option("--as", help="safetensors, npy, hdf5, zarr, or mmsa (one pickle a dataset).")],
    codec: Annotated[Codec, typer.Option(help="For zarr: none, zstd or lz4.")] = "none",
    version: AtVersion = None,
    features: Features = ROOT,
    as_json: AsJson = False,
) -> None:
    """Write features for other tools; hdf5 and zarr are one dense array (N, S, D) with ids and masks.

    A dataset's stores go to one folder, each under its own name.
    """
    from ..dataset import open_dataset
    from ..dataset.export import export_mmsa, export_store
    from ..dataset.selection import open_selected, select

    selection = select(features, target)
    if kind == "mmsa":
        if not selection.datasets:
            raise UserError("mmsa is a layout of whole datasets; name a dataset, not one store")
        written = [export_mmsa(open_dataset(features, storage.name, version), to) for storage in selection.datasets]
    else:
        suffix = {"safetensors": ".safetensors", "hdf5": ".h5", "zarr": ".zarr"}.get(kind, "")
        written = [
            export_store(opened, to / f"{opened.store.storage.name}{suffix}" if selection.datasets else to, kind, codec)
            for opened in open_selected(selection, version)
        ]
    said({"written": [str(path) for path in written]}, f"Wrote {', '.join(map(str, written))}", as_json)


def _confirm(question: str, yes: bool, as_json: bool) -> None:
    if yes:
        return
    if as_json:
        raise UserError("with --json nothing is asked: add --yes to remove")
    if not typer.confirm(question):
        raise UserError("nothing was removed")
