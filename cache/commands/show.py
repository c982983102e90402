"""`pgm cache ls`, `info`, `head`, `stats` and `log`: look, and change nothing."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import PgMError
from .printing import ROOT, AsJson, AtVersion, Features, Named, Target, in_bytes, plain, print_json, print_table

if TYPE_CHECKING:
    from ..dataset import CachedDataset
    from ..dataset.sources import SharedSources
    from ..storage import Storage
    from ..store import Features as OpenFeatures


def ls(target: Target = None, features: Features = ROOT, as_json: AsJson = False) -> None:
    """List datasets and stores: encoder, version, samples, tokens, bytes."""
    from ..dataset.selection import select

    rows = [_ls_row(store) for store in select(features, target).stores]
    if as_json:
        print_json(rows)
        return
    if not rows:
        typer.echo(f"No stores under {features}/. `pgm extract digits` makes the first one.")
        return
    columns = ("dataset", "modality", "encoder", "store", "version", "samples", "tokens", "size", "state")
    table = [
        (
            *(str(row[name]) for name in ("dataset", "modality", "encoder", "digest", "version")),
            *(f"{row[name]:,}" if isinstance(row[name], int) else row[name] for name in ("samples", "tokens")),
            in_bytes(row["bytes"]),
            row["state"],
        )
        for row in rows
    ]
    print_table(columns, table)


def _ls_row(storage: "Storage") -> dict[str, Any]:
    from ..store import Store

    path = storage.url
    row: dict[str, Any] = {"dataset": path.rstrip("/").rsplit("/", 2)[-2], "path": path}
    row["bytes"] = sum(entry.bytes for entry in storage.entries())
    blank = dict.fromkeys(("modality", "encoder", "digest", "version", "samples", "tokens"), "?")
    try:
        store = Store.open(storage)
        known = {
            "modality": store.identity.modality,
            "encoder": store.identity.encoder,
            "digest": store.identity.digest,
        }
    except PgMError:
        return {**row, **blank, "state": "unreadable"}
    try:
        version = store.version()
    except PgMError:
        state = "unreadable" if store.log.numbers() else "unfinished"
        return {**row, **blank, **known, "state": state}
    label = f"{version.number} ({version.name})" if version.name else str(version.number)
    return {**row, **known, "version": label, "samples": version.samples, "tokens": version.tokens, "state": "complete"}


def info(target: Target = None, version: AtVersion = None, features: Features = ROOT, as_json: AsJson = False) -> None:
    """Print what a store holds (its identity) and what a version of it lists."""
    from ..dataset.selection import open_selected, select
    from ..store.identity import flatten

    described = [_described(opened) for opened in open_selected(select(features, target), version)]
    if as_json:
        print_json(described)
        return
    for store in described:
        typer.echo(store.pop("path"))
        print_table((), [(f"  {name}", plain(value)) for name, value in flatten(store).items()])


def _described(features: "OpenFeatures") -> dict[str, Any]:
    from ..segment.encoding import merge_errors
    from ..segment.read import read_segment

    store, version = features.store, features.version
    described = {
        "path": features.url,
        "digest": store.identity.digest,
        "identity": store.identity.as_dict(),
        "dim": store.dim,
        "stored": store.stored,
        "version": version.number,
        "name": version.name,
        "created": version.created,
        "samples": version.samples,
        "tokens": version.tokens,
        "counts": dict(version.counts),
        "content": version.content,
        "segments": len(version.segments),
    }
    if store.stored == "int8":
        sums = (read_segment(store.storage, name).items.quantisation for name in version.segments)
        described["int8_error"] = merge_errors([dict(error) for error in sums if error])
    return described


def head(
    target: Target = None,
    samples: Annotated[int, typer.Option("-n", help="Samples a store.", min=1)] = 5,
    version: AtVersion = None,
    features: Features = ROOT,
    as_json: AsJson = False,
) -> None:
    """Print the first samples: id, split, label, tokens S and norm."""
    shown = {opened.url: _head_rows(dataset, opened, samples) for dataset, opened in _opened(features, target, version)}
    if as_json:
        print_json(shown)
        return
    for path, rows in shown.items():
        typer.echo(path)
        columns = ("row", "id", "split", "label", "S", "norm", "status")
        print_table(columns, [tuple(plain(row[name]) for name in columns) for row in rows])


def _head_rows(dataset: "CachedDataset", store: "OpenFeatures", samples: int) -> list[dict[str, Any]]:
    import numpy as np

    table, card = dataset.samples.slice(0, samples), dataset.card
    columns = {name: table[name].to_pylist() for name in ("id", "split")}
    if card.label_column in table.column_names:
        labels = table[card.label_column].to_pylist()
        named = [isinstance(x, int) and 0 <= x < len(card.classes) for x in labels]
        columns["label"] = [card.classes[x] if known else x for x, known in zip(labels, named, strict=True)]
    rows = []
    for row in range(min(samples, len(store))):
        there = bool(store.available[row])
        norm = float(np.linalg.norm(store[row].astype(np.float32))) if there else None
        known = {name: columns[name][row] if name in columns else None for name in ("id", "split", "label")}
        status = str(store.status[row])
        rows.append({"row": row, **known, "S": int(store.lengths[row]), "norm": norm, "status": status})
    return rows


def stats(target: Target = None, version: AtVersion = None, features: Features = ROOT, as_json: AsJson = False) -> None:
    """Token-length histogram, per-dimension mean and deviation, NaN count, duplicates by source digest."""
    from ..dataset.sources import rows_of, shared_sources
    from ..dataset.stats import store_stats

    results, shared = {}, {}
    for dataset, opened in _opened(features, target, version):
        results[opened.url] = store_stats(opened)
        shared[opened.url] = shared_sources(opened, rows_of(dataset.samples["split"]))
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
        if told := str(shared[path]):
            typer.echo(f"  {told}")


def _counts(shared: "SharedSources") -> dict[str, int]:
    return {"test": shared.test, "train": shared.train, "val": shared.val}


def _opened(root: str, target: str | None, version: str | None) -> "list[tuple[CachedDataset, OpenFeatures]]":
    """The stores meant, each with its dataset, at the dataset's version; a single store at one of its own."""
    from ..dataset import open_dataset
    from ..dataset.dataset import dataset_with
    from ..dataset.selection import open_selected, select
    from ..store import open_features

    selection = select(root, target)
    if not selection.datasets:
        return [(dataset_with(opened), opened) for opened in open_selected(selection, version)]
    found = []
    for storage in selection.stores:
        place, folder = storage.parent, storage.name
        dataset = open_dataset(place.parent, place.name, version)
        if folder in dataset.version.stores:
            found.append((dataset, open_features(storage, dataset.version.stores[folder])))
    return found


def log(target: Named, features: Features = ROOT, as_json: AsJson = False) -> None:
    """List a dataset's versions: when, samples, what each store's segments cost."""
    from ..dataset.selection import select
    from ..store import Log

    selection = select(features, target)
    rows = [row for place in selection.datasets or selection.stores for row in _log_rows(place, Log(place))]
    if as_json:
        print_json(rows)
        return
    names = ("version", "name", "created", "samples", "stores", "new", "reused", "bytes")
    heads = ("version", "name", "created", "samples", "stores", "segments new", "reused", "written")
    table = [(*(plain(row[name]) for name in names[:-1]), in_bytes(row["bytes"])) for row in rows]
    print_table(heads, table)


def _log_rows(place: "Storage", log: Any) -> list[dict[str, Any]]:
    from ..store import Log

    rows: list[dict[str, Any]] = []
    costed: set[tuple[str, int]] = set()
    for number in log.numbers():
        value = log.read(number)
        listed = value.get("stores", {}).items()
        parts = {key: Log(place.under(key[0])).read(key[1]) for key in listed} or {("", number): value}
        written = [part["written"] for key, part in parts.items() if "written" in part and key not in costed]
        costed |= parts.keys()
        rows.append(
            {
                "version": number,
                "name": value["name"],
                "created": value["created"][:19].replace("T", " "),
                "samples": next((part["samples"] for part in parts.values() if "written" in part), None),
                "stores": len(value.get("stores", {})) or None,
                "new": sum(part["segments"] for part in written),
                "reused": sum(part["reused"] for part in written),
                "bytes": sum(part["bytes"] for part in written),
            }
        )
    return rows
