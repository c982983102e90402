"""`pgm cache push` and `pgm cache pull`: copy a dataset's version to another place, or from one."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from .completion import cached_datasets
from .printing import ROOT, AsJson, AtVersion, Features, in_bytes, said

if TYPE_CHECKING:
    from ..dataset import CachedDataset
    from ..dataset.hub_card import LicenceOf
    from ..dataset.transfer import Arrived
    from ..storage import Storage

HUB = "hf:"
PAGE = "README.md"
PUSH_EXAMPLE = """Example: pgm cache push digits s3://bucket/features

Then, elsewhere: pgm cache pull s3://bucket/features/digits, or pgm train --cached --features s3://bucket/features

    pgm cache push digits hf://datasets/OWNER/NAME, with HF_TOKEN set, also writes the repository's page

The same command again copies what is missing, and nothing where nothing is."""
PULL_EXAMPLE = "Example: pgm cache pull s3://bucket/features/digits --features features"


def make_push_command(licence_of: "LicenceOf") -> Callable[..., None]:
    """`pgm cache push`; `licence_of` says what the cache cannot know: the licence of an encoder, or of a dataset."""

    def push(
        dataset: Annotated[str, typer.Argument(help="A cached dataset.", autocompletion=cached_datasets)],
        url: Annotated[
            str,
            typer.Argument(help="Another --features (a folder, s3://bucket/prefix), or hf://datasets/OWNER/NAME."),
        ],
        version: AtVersion = None,
        features: Features = ROOT,
        as_json: AsJson = False,
    ) -> None:
        """Copy a version of a dataset to another place: only what is not there, checked by its digests."""
        from ..dataset import open_dataset
        from ..storage import storage_at

        source = open_dataset(features, dataset, version)
        if url.startswith(HUB):
            to_hub(source, url, licence_of, as_json)
        else:
            copy(source, storage_at(url).under(source.card.name), as_json)

    return push


def to_hub(source: "CachedDataset", url: str, licence_of: "LicenceOf", as_json: bool) -> None:
    """Copy to a repository of the Hub, with a page that says what is in it, in one commit."""
    from ..dataset.hub_card import hub_card
    from ..storage.hub import HubStorage, repository_at

    repository = repository_at(url)
    repository.create()
    page = hub_card(source, url, licence_of).encode()

    def publish() -> None:
        if repository.files.get(PAGE) is None or repository.read(PAGE) != page:
            repository.add({PAGE: [page]})
        repository.commit(f"Features of {source.card.name}, {len(source.samples):,} samples")

    copy(source, HubStorage(repository), as_json, publish)


def pull(
    url: Annotated[
        str,
        typer.Argument(help="A dataset's place, or a place of several: a folder, s3://... or hf://datasets/OWNER/NAME"),
    ],
    version: AtVersion = None,
    features: Features = ROOT,
    as_json: AsJson = False,
) -> None:
    """Copy a version of the datasets at another place into --features: only what is not there, checked."""
    from ..dataset.dataset import dataset_at
    from ..dataset.selection import datasets_at
    from ..storage import storage_at

    if url.startswith(HUB):
        from ..storage.hub import HubStorage, repository_at

        places: list[Storage] = [HubStorage(repository_at(url))]
    else:
        places = datasets_at(url)
    root = storage_at(features)
    for source in [dataset_at(place, version) for place in places]:
        copy(source, root.under(source.card.name), as_json)


def copy(source: "CachedDataset", target: "Storage", as_json: bool, last: Callable[[], None] = lambda: None) -> None:
    """Copy a dataset, saying how far it has come on stderr and what came of it on stdout; `last` ends it."""
    from ..dataset.transfer import copy_dataset

    copied = copy_dataset(source, target, show)
    last()
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
    more = "" if copied.exact else " (a later one, which has this and more)"
    said(value, f"{target.url}: version {copied.version.number}{more}, {did}", as_json)


def show(arrived: "Arrived") -> None:
    """A line on stderr for every tenth of a store, and the last segment."""
    step = max(arrived.of // 10, 1)
    if arrived.segments % step == 0 or arrived.segments == arrived.of:
        print(f"{arrived.store}: {arrived.segments:,} of {arrived.of:,} segments", file=sys.stderr)
