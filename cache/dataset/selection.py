"""What a `pgm cache` command speaks of: everything under a features root, one dataset, or one store."""

from dataclasses import dataclass

from ..errors import NotFound
from ..nearest import did_you_mean
from ..storage import Storage, storage_at
from ..store import Features, open_features
from ..store.store import STORE
from ..store.version import VERSIONS
from .dataset import Place, open_dataset, refuse_earlier, store_folders


@dataclass(frozen=True)
class Selection:
    """Datasets meant as a whole, and stores; a single store comes without its dataset."""

    datasets: tuple[Storage, ...]
    stores: tuple[Storage, ...]


def select(root: Place, target: str | None = None) -> Selection:
    """Resolve a dataset's name or place, or a store's place; None is all of `root`. NotFound suggests a name."""
    storage = storage_at(root)
    if target is None:
        datasets = [storage.under(name) for name in dataset_names(storage)]
        for place in datasets:
            refuse_earlier(place)
        return _whole(datasets)
    for place in ([] if "://" in target else [storage.under(target)]) + [storage_at(target)]:
        refuse_earlier(place)
        if place.exists(STORE):
            return Selection((), (place,))
        if is_dataset(place):
            return _whole([place])
    known = dataset_names(storage)
    raise NotFound(
        f"{target!r} is neither a dataset under {storage.url}/ nor the place of a store.{did_you_mean(target, known)} "
        + (f"Datasets: {', '.join(known)}." if known else f"{storage.url}/ holds no dataset.")
    )


def open_selected(selection: Selection, version: int | str | None = None) -> list[Features]:
    """The features meant: a dataset's at one of the dataset's versions, a single store at one of its own."""
    if not selection.datasets:
        return [open_features(store, version) for store in selection.stores]
    opened = (open_dataset(storage.parent, storage.name, version) for storage in selection.datasets)
    return [
        open_features(store.storage, dataset.version.stores[folder])
        for dataset in opened
        for folder, store in dataset.stores.items()
    ]


def dataset_names(root: Storage) -> list[str]:
    """The datasets under a root, also those of which nothing is published yet."""
    return [name for name in root.names() if is_dataset(root.under(name))]


def datasets_at(place: Place) -> list[Storage]:
    """The dataset at a place, or those of a features root. Raises NotFound for neither."""
    storage = storage_at(place)
    refuse_earlier(storage)
    found = [storage] if is_dataset(storage) else [storage.under(name) for name in dataset_names(storage)]
    if not found:
        raise NotFound(f"{storage.url} is no dataset, and holds none")
    return found


def is_dataset(place: Storage) -> bool:
    """Whether there is a published dataset, or a store of one that is still being made."""
    return bool(place.names(VERSIONS) or store_folders(place))


def _whole(datasets: list[Storage]) -> Selection:
    stores = (dataset.under(folder) for dataset in datasets for folder in store_folders(dataset))
    return Selection(tuple(datasets), tuple(stores))
