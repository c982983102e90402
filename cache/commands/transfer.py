"""`pgm cache push` and `pgm cache pull`: copy a dataset's version to another place, or from one."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from .printing import ROOT, AsJson, AtVersion, Features, in_bytes, said

if TYPE_CHECKING:
    from ..dataset import CachedDataset
    from ..dataset.transfer import Arrived
    from ..storage import Storage

PUSH_EXAMPLE = """Example: pgm cache push digits s3://bucket/features

Then, elsewhere: pgm cache pull s3://bucket/features/digits, or pgm train --cached --features s3://bucket/features

The same command again copies what is missing, and nothing where nothing is."""
PULL_EXAMPLE = "Example: pgm cache pull s3://bucket/features/digits --features features"


def push(
    dataset: Annotated[str, typer.Argument(help="A cached dataset.")],
    url: Annotated[str, typer.Argument(help="A folder or s3://bucket/prefix, as another's --features.")],
    version: AtVersion = None,
    features: Features = ROOT,
    as_json: AsJson = False,
) -> None:
    """Copy a version of a dataset to another place: only what is not there, checked by its digests."""
    from ..dataset import open_dataset
    from ..storage import storage_at

    copy([open_dataset(features, dataset, version)], storage_at(url), as_json)


def pull(
    url: Annotated[str, typer.Argument(help="A dataset's place, or a place of several: a folder or s3://...")],
    version: AtVersion = None,
    features: Features = ROOT,
    as_json: AsJson = False,
) -> None:
    """Copy a version of the datasets at another place into --features: only what is not there, checked."""
    from ..dataset import open_dataset
    from ..dataset.selection import datasets_at
    from ..storage import storage_at

    found = [open_dataset(place.parent, place.name, version) for place in datasets_at(url)]
    copy(found, storage_at(features), as_json)


def copy(sources: "list[CachedDataset]", root: "Storage", as_json: bool) -> None:
    """Copy datasets below `root`, saying how far it has come on stderr and what came of it on stdout."""
    from ..dataset.transfer import copy_dataset

    for source in sources:
        target = root.under(source.card.name)
        copied = copy_dataset(source, target, show)
        value = {
            "dataset": source.card.name,
            "from": source.storage.url,
            "to": target.url,
            "version": copied.version.number,
            "segments": copied.segments,
            "there": copied.there,
            "bytes": copied.bytes,
        }
        did = f"{copied.segments:,} segments copied ({in_bytes(copied.bytes)}), {copied.there:,} were there"
        said(value, f"{target.url}: version {copied.version.number}, {did}", as_json)


def show(arrived: "Arrived") -> None:
    """A line on stderr for every tenth of a store, and the last segment."""
    step = max(arrived.of // 10, 1)
    if arrived.segments % step == 0 or arrived.segments == arrived.of:
        print(f"{arrived.store}: {arrived.segments:,} of {arrived.of:,} segments", file=sys.stderr)
