"""A dataset in the cache: versions, each of one card, one table of samples and one version of every store.

`versions/000002.json` is published last, when the stores it lists are committed: whoever opens the dataset sees card,
samples and features that belong together, and an extraction that was broken off has changed nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..errors import NotFound, UserError
from ..nearest import did_you_mean
from ..storage import Storage, storage_at
from ..storage.base import joined
from ..store import Features, Log, Store, open_features
from ..store.store import STORE
from ..store.version import VERSIONS, version_key
from .card import DatasetCard
from .presence import Present, presence, with_presence
from .samples import check_samples, ids_digest, put_samples, read_samples

EARLIER = "dataset.json"  # what the formats before this one kept beside their stores
Place = Storage | PathLike[str] | str


@dataclass(frozen=True)
class DatasetVersion:
    """One commit of a dataset. name: as a store's version has it. samples: digest of the table of samples.

    stores: folder -> the number of the store's version.
    """

    number: int
    name: str
    created: str
    card: DatasetCard
    samples: str
    sample_ids: str
    stores: Mapping[str, int]


def version_from(value: Mapping[str, Any], where: str) -> DatasetVersion:
    """A dataset's version from its JSON."""
    card = DatasetCard.from_dict(value.get("card", {}), where)
    names = ("number", "name", "created", "samples", "sample_ids", "stores")
    return DatasetVersion(card=card, **{name: value[name] for name in names})


@dataclass(frozen=True, eq=False)
class CachedDataset:
    """A dataset at one of its versions."""

    storage: Storage
    version: DatasetVersion

    @property
    def name(self) -> str:
        """The dataset's name: its folder's."""
        return self.storage.name

    @property
    def card(self) -> DatasetCard:
        """What a trainer must know of it."""
        return self.version.card

    @cached_property
    def samples(self) -> pa.Table:
        """One row a sample, in the order every store of this version follows."""
        return read_samples(self.storage, self.version.samples)

    @property
    def presence(self) -> dict[str, npt.NDArray[np.bool_]]:
        """Modality -> (N,) whether the dataset has a source of it for the sample; a failed one has."""
        return presence(self.samples)

    @cached_property
    def stores(self) -> dict[str, Store]:
        """Folder -> store, of every store of this version."""
        return {folder: Store.open(self.storage.under(folder)) for folder in sorted(self.version.stores)}

    @property
    def modalities(self) -> list[str]:
        """The modalities this version has features of, sorted."""
        return sorted({store.identity.modality for store in self.stores.values()})

    def features(self, modality: str, wanted: str | None = None) -> Features:
        """The features of one modality.

        wanted: the digest (or its beginning) or folder name to choose among several, as in --store text=3f9c2a1b.
        Raises NotFound, or UserError when several fit and none was named.
        """
        every = {f: s for f, s in self.stores.items() if s.identity.modality == modality}
        fitting = {f: s for f, s in every.items() if _fits(f, s, wanted)}
        if len(fitting) > 1:
            listing = "\n".join(f"  {modality}={s.identity.digest}  {s.identity.encoder}" for s in fitting.values())
            first = next(iter(fitting.values())).identity.digest
            raise UserError(
                f"{self.name} has {len(fitting)} {modality} stores and none was chosen:\n{listing}\n"
                f"Choose one, for example --store {modality}={first}"
            )
        if not fitting:
            raise self._nothing(modality, wanted, list(every.values()))
        [folder] = fitting
        return open_features(self.storage.under(folder), self.version.stores[folder])

    def _nothing(self, modality: str, wanted: str | None, every: list[Store]) -> UserError:
        if wanted is not None and every:
            known = ", ".join(store.identity.digest for store in every)
            return NotFound(f"{self.name} has no {modality} store {wanted!r}; it has {known}")
        at = f"version {self.version.number} of {self.name}"
        if any(folder.startswith(f"{modality}--") for folder in store_folders(self.storage)):
            return NotFound(
                f"{at} has no {modality} features of its list of samples; run `pgm extract {self.name}` to finish them"
            )
        return NotFound(
            f"{at} has no {modality} features; it has {', '.join(self.modalities) or 'none'}."
            f"{did_you_mean(modality, self.modalities)}"
        )


def _fits(folder: str, store: Store, wanted: str | None) -> bool:
    return wanted is None or folder == wanted or store.identity.digest.startswith(wanted)


def open_dataset(root: Place, name: str, version: int | str | None = None) -> CachedDataset:
    """The dataset `name` under a features root, at a version; NotFound suggests the nearest name."""
    storage = storage_at(root)
    dataset = storage.under(name)
    refuse_earlier(dataset)
    if not dataset.names(VERSIONS):
        known = list_datasets(storage)
        raise NotFound(
            f"no dataset {name!r} in {storage.url}/.{did_you_mean(name, known)} "
            + (f"It holds: {', '.join(known)}." if known else f"It holds none; `pgm extract {name}` makes one.")
        )
    return dataset_at(dataset, version)


def dataset_at(dataset: Storage, version: int | str | None = None) -> CachedDataset:
    """The dataset at a place of its own. Raises NotFound for a version that is not there."""
    return CachedDataset(dataset, version_from(Log(dataset).find(version), dataset.url))


def dataset_with(features: Features) -> CachedDataset:
    """The latest version of a store's dataset that has the samples of these features. Raises NotFound."""
    dataset = features.store.storage.parent
    for number in reversed(Log(dataset).numbers()):
        found = dataset_at(dataset, number)
        if found.version.sample_ids == features.version.sample_ids:
            return found
    raise NotFound(
        f"no version of {dataset.url} has the samples of version {features.version.number} of {features.url}: the "
        "`pgm extract` that wrote it has not published it; run it again"
    )


def refuse_earlier(dataset: Storage) -> None:
    """Raises UserError for a dataset of the format before segments; called before anything is written there."""
    if dataset.exists(EARLIER):
        raise UserError(
            f"{dataset.url} has the format of an earlier PgM, which this one does not read: "
            "remove the folder and extract again."
        )


def list_datasets(root: Place) -> list[str]:
    """Names of the datasets under a features root, sorted; empty when there is no such folder."""
    storage = storage_at(root)
    return [name for name in storage.names() if storage.names(f"{name}/{VERSIONS}")]


def store_folders(dataset: Storage) -> list[str]:
    """The folders below a dataset's that hold a store, listed by a version or not."""
    return [name for name in dataset.names() if name.count("--") >= 2 and dataset.exists(f"{name}/{STORE}")]


def publish(
    dataset: Storage,
    card: DatasetCard,
    samples: pa.Table,
    stores: Mapping[str, int],
    present: Present | None = None,
    name: str = "",
) -> DatasetVersion:
    """Commit a version of a dataset: the last step of an extraction or an import.

    stores: folder -> version of what was just written. Stores of the version before (of the same name) stay when they
    follow the same list of samples. present: modality -> (N,) whether the dataset has it for the sample. Nothing is
    committed where nothing would change. Raises UserError for samples that are not a proper table.
    """
    check_samples(samples)
    ids = ids_digest(samples["id"].to_pylist())
    log = Log(dataset)
    for folder in stores:
        # A version that another writer has just committed may not be durable yet.
        dataset.flush(joined(folder, VERSIONS))

    def later(folder: str, kept: Mapping[str, int]) -> int:
        """The version that another writer of the same samples has published meanwhile, unless it went."""
        number = kept.get(folder, 0)
        return number if dataset.exists(joined(folder, version_key(number))) else 0

    def draft(latest: int) -> dict[str, Any] | None:
        before = _latest(log, name)
        kept: Mapping[str, int] = {}
        table = samples
        if before is not None and before.sample_ids == ids:
            kept = before.stores
            earlier = read_samples(dataset, before.samples)
            table = with_presence(samples, present or {}, earlier)
        elif present:
            table = with_presence(samples, present)
        value = {
            "pgm_dataset": 2,
            "name": name,
            "card": card.as_dict(),
            "samples": put_samples(dataset, table),
            "sample_ids": ids,
            "stores": {**kept, **{folder: max(number, later(folder, kept)) for folder, number in stores.items()}},
        }
        return None if before is not None and _same(before, value) else value

    number = log.commit(draft)
    return version_from(log.find(number if number is not None else name or None), dataset.url)


def relist(dataset: Storage, change: Callable[[dict[str, int]], Mapping[str, int]], name: str = "") -> None:
    """Commit a version of a dataset that lists other stores, and is its latest one of this name otherwise.

    change: from folder -> version as they are to what they shall be; where that is the same, nothing is committed.
    """
    log = Log(dataset)

    def draft(latest: int) -> dict[str, Any] | None:
        before = _latest(log, name)
        if before is None or (stores := dict(change(dict(before.stores)))) == before.stores:
            return None
        return {**log.read(before.number), "stores": stores}

    log.commit(draft)


def _latest(log: Log, name: str) -> DatasetVersion | None:
    value = log.latest(name)
    return None if value is None else version_from(value, log.storage.url)


def _same(before: DatasetVersion, value: Mapping[str, Any]) -> bool:
    after = version_from({**value, "number": before.number, "created": before.created}, "")
    return replace(after, card=before.card) == before and after.card.as_dict() == before.card.as_dict()
