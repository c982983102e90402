"""What a `pgm cache` command speaks of: everything under a features root, one dataset, or one store."""

from dataclasses import dataclass

from ..errors import NotFound
from ..nearest import nearest
from ..storage import Storage, storage_at
from ..store.store import STORE
from ..store.version import VERSIONS
from .dataset import Place, list_datasets, store_folders


@dataclass(frozen=True)
class Selection:
    """Datasets meant as a whole, and stores; a single store comes without its dataset."""

    datasets: tuple[Storage, ...]
    stores: tuple[Storage, ...]


def select(root: Place, target: str | None = None) -> Selection:
    """Resolve a dataset's name or place, or a store's place; None is all of `root`. NotFound suggests a name."""
    storage = storage_at(root)
    if target is None:
        return _whole([storage.under(name) for name in list_datasets(storage)])
    for place in (storage_at(target), storage.under(target)):
        if place.exists(STORE):
            return Selection((), (place,))
        if place.names(VERSIONS):
            return _whole([place])
    known = list_datasets(storage)
    raise NotFound(
        f"{target!r} is neither a dataset under {storage.url}/ nor the place of a store{nearest(target, known)}. "
        + (f"Datasets: {', '.join(known)}." if known else f"{storage.url}/ holds no dataset.")
    )


def _whole(datasets: list[Storage]) -> Selection:
    stores = (dataset.under(folder) for dataset in datasets for folder in store_folders(dataset))
    return Selection(tuple(datasets), tuple(stores))
