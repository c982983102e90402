"""A split of a cached dataset as a torch `Dataset`: samples for a `DataLoader`, or whole batches gathered in one call.

Everything is read at the version the dataset was opened at, whatever is written meanwhile, and comes in the precision
it is stored in. A modality that a sample lacks, or that failed, has no tokens: (0, D). Pickled, it is a place and a
version: a loader's spawned workers open it anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
import xxhash
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ..cache import CachedDataset, Storage, open_dataset, open_split, rows_of
from ..cache.errors import NotFound, UserError
from ..cache.nearest import did_you_mean
from .collate import Batch, Sample

Rows = NDArray[np.int64]
UNLABELLED = -100  # what torch.nn.functional.cross_entropy ignores


class FeatureDataset(Dataset[Sample]):
    """The samples of a split with their tokens, labels and ids.

    A sample is {"id": str, "row": int, "label": int or float, "tokens": {modality: (S, D) tensor}}; `row` is its place
    in the dataset's table of samples. Without a label it is -100, or NaN among scores; "label" is absent where the
    dataset has no labels.

    split: "train", "val" or "test"; None: all samples. modalities: default all that are cached. stores: modality ->
    digest, where several stores of one are cached. named_split: one of `pgm cache split`, instead of the dataset's own.
    Raises NotFound, with the nearest name, for what is not there.
    """

    def __init__(
        self,
        dataset: CachedDataset,
        split: str | None = None,
        modalities: Sequence[str] | None = None,
        stores: Mapping[str, str] | None = None,
        named_split: str | None = None,
    ) -> None:
        self.dataset, self.split, self.named_split = dataset, split, named_split
        self.stores = dict(stores or {})
        self.modalities = tuple(dataset.modalities if modalities is None else modalities)
        if not self.modalities:
            raise NotFound(f"{dataset.storage.url} holds no features yet. Make them with: pgm extract {dataset.name}")
        self.features = {name: dataset.features(name, self.stores.get(name)) for name in self.modalities}
        self.rows = split_rows(dataset, split, named_split)
        self.ids = dataset.samples["id"].take(pa.array(self.rows)).cast(pa.large_string()).combine_chunks()
        labels = labels_of(dataset)
        self.labels = None if labels is None else labels[self.rows]

    @property
    def widths(self) -> dict[str, int]:
        """Modality -> D."""
        return {name: features.dim for name, features in self.features.items()}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> Sample:
        [sample] = self.__getitems__([position])
        return sample

    def __getitems__(self, positions: Sequence[int]) -> list[Sample]:
        """Several samples at once, as a DataLoader asks for them: one gather a modality."""
        samples = []
        for position, tokens in zip(positions, self.tokens(positions), strict=True):
            sample = {"id": self.ids[position].as_py(), "row": int(self.rows[position])}
            if self.labels is not None:
                sample["label"] = self.labels[position].item()
            samples.append({**sample, "tokens": tokens})
        return samples

    def tokens(self, positions: ArrayLike) -> list[dict[str, Tensor]]:
        """Modality -> tokens (S, D) of each of these samples: views of one gathered buffer a modality."""
        rows, pieces = self.rows[np.asarray(positions, np.int64)], []
        for features in self.features.values():
            packed, lengths = features.gather(rows, unavailable="empty")
            pieces.append(torch.split(torch.from_numpy(packed), lengths.tolist()))
        return [dict(zip(self.features, each, strict=True)) for each in zip(*pieces, strict=True)]

    def padded(self, positions: ArrayLike) -> Batch:
        """The batch that `collate_padded` makes of these samples, gathered at once."""
        chosen = np.asarray(positions, np.int64)
        tokens, mask = {}, {}
        for name, features in self.features.items():
            gathered, real = features.padded(self.rows[chosen], unavailable="empty")
            if not gathered.shape[1]:
                gathered, real = (
                    np.zeros((len(chosen), 1, features.dim), features.dtype),
                    np.zeros((len(chosen), 1), bool),
                )
            tokens[name], mask[name] = torch.from_numpy(gathered), torch.from_numpy(real)
        return {**self._described(chosen), "tokens": tokens, "mask": mask}

    def packed(self, positions: ArrayLike) -> Batch:
        """The batch that `collate_packed` makes of these samples, gathered at once."""
        chosen = np.asarray(positions, np.int64)
        tokens, offset = {}, {}
        for name, features in self.features.items():
            gathered, lengths = features.gather(self.rows[chosen], unavailable="empty")
            tokens[name] = torch.from_numpy(gathered)
            offset[name] = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]))
        return {**self._described(chosen), "tokens": tokens, "offset": offset}

    def digest(self) -> str:
        """32 hex digits of which samples these are, in their order, and of their features."""
        hasher = xxhash.xxh3_128(self.rows.tobytes())
        contents = {name: features.content for name, features in self.features.items()}
        hasher.update(f"{self.dataset.version.sample_ids} {contents}".encode())
        return hasher.hexdigest()

    def __reduce__(self) -> tuple[Any, ...]:
        storage, version = self.dataset.storage, self.dataset.version.number
        return reopened, (storage, version, self.split, self.modalities, self.stores, self.named_split)

    def _described(self, positions: Rows) -> Batch:
        """What a batch holds besides tokens."""
        ids = self.ids.take(pa.array(positions)).to_pylist()
        batch: Batch = {"id": ids, "row": torch.from_numpy(self.rows[positions])}
        if self.labels is not None:
            batch["label"] = torch.from_numpy(self.labels[positions])
        return batch


def reopened(storage: Storage, version: int, *selection: Any) -> FeatureDataset:
    """What `FeatureDataset.__reduce__` names, opened again."""
    return FeatureDataset(open_dataset(storage.parent, storage.name, version), *selection)


def split_rows(dataset: CachedDataset, split: str | None, named_split: str | None) -> Rows:
    """The rows of a split, ascending. Raises NotFound."""
    if split is None:
        return np.arange(len(dataset.samples))
    column = dataset.samples["split"] if named_split is None else open_split(dataset, named_split)[1]
    rows = rows_of(column)
    if split not in rows or not len(rows[split]):
        there = [name for name, found in rows.items() if len(found)]
        raise NotFound(
            f"{dataset.name} has no samples in split {split!r}; it has {', '.join(there)}.{did_you_mean(split, there)}"
        )
    return rows[split]


def labels_of(dataset: CachedDataset) -> NDArray[Any] | None:
    """(N,) int64 classes, -100 where there is none, or float32 scores, NaN where there is none; None without labels."""
    name = dataset.card.label_column
    if name not in dataset.samples.column_names:
        return None
    column = dataset.samples[name]
    if pa.types.is_floating(column.type):
        scores: NDArray[Any] = column.to_numpy().astype(np.float32)
        return scores
    if not pa.types.is_integer(column.type):
        raise UserError(f"The labels of {dataset.name} ({name}) are {column.type}; classes are whole numbers.")
    labels: NDArray[Any] = pc.fill_null(column.cast(pa.int64()), UNLABELLED).to_numpy()
    return labels
