"""Removing a store or a whole dataset, and nothing else: a folder that holds other files is left alone."""

from ..errors import UserError
from ..segment import SEGMENTS
from ..storage import Storage
from ..store import Log
from ..store.store import STORE
from ..store.version import VERSIONS
from .dataset import relist, store_folders
from .samples import FOLDER
from .sealed import KINDS

OF_STORE = {STORE, SEGMENTS, VERSIONS}
OF_DATASET = {VERSIONS, FOLDER, *(kind.folder for kind in KINDS)}


def remove_store(store: Storage) -> None:
    """Publish versions of the dataset without a store, then delete it. Versions of before can no longer be opened."""
    refuse_strangers(store, OF_STORE)
    dataset, folder = store.parent, store.name
    for name in {Log(dataset).read(number)["name"] for number in Log(dataset).numbers()}:
        relist(dataset, lambda stores: {kept: n for kept, n in stores.items() if kept != folder}, name)
    store.delete("")


def remove_dataset(dataset: Storage) -> None:
    """Delete a dataset with its stores, samples, named splits and masks."""
    folders = store_folders(dataset)
    refuse_strangers(dataset, OF_DATASET | set(folders))
    for folder in folders:
        refuse_strangers(dataset.under(folder), OF_STORE)
    dataset.delete("")


def refuse_strangers(place: Storage, own: set[str]) -> None:
    """Raises UserError where a folder holds what PgM did not write."""
    if strangers := sorted(set(place.names()) - own):
        raise UserError(
            f"{place.url} holds files that are not the cache's ({', '.join(strangers[:5])}); "
            "move them away, and run the command again"
        )
