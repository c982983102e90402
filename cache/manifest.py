"""A dataset in the cache: dataset.json, samples.parquet and the stores beside them.

This is all a trainer learns of a dataset: what the task is, which samples there are in which order, split and label.
"""

import difflib
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .durable import read_json, record_file, write_sealed_json
from .errors import CorruptStore, NotFound, StoreIncomplete, UserError
from .identity import ids_digest
from .items import read_table, write_table
from .presence import Present, presence, with_presence
from .records import PLAN, STORE, StoreInfo, read_info
from .store import Features, open_features

Task = Literal["classification", "emotion", "sentiment", "retrieval"]
CARD = "dataset.json"
SAMPLES = "samples.parquet"
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class DatasetCard:
    """What dataset.json holds.

    classes: names in label order (empty for sentiment and retrieval); metrics: in the order they are printed.
    splits: samples a split. source: where the raw data came from. notes: what a reader of results must know.
    """

    name: str
    task: Task
    classes: tuple[str, ...]
    metrics: tuple[str, ...]
    label_column: str = "label"
    splits: Mapping[str, int] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.task not in get_args(Task):
            raise UserError(f"task {self.task!r} is not one of {', '.join(get_args(Task))}")

    @staticmethod
    def read(folder: Path) -> "DatasetCard":
        """The card of a dataset's folder."""
        value = read_json(folder / CARD)
        try:
            card = {item.name: value[item.name] for item in fields(DatasetCard)}
        except KeyError as error:
            raise CorruptStore(f"{folder / CARD} lacks {error}; `pgm extract {folder.name}` writes it again") from error
        frozen: dict[str, Any] = {name: tuple(item) if isinstance(item, list) else item for name, item in card.items()}
        return DatasetCard(**frozen)


def write_dataset(folder: Path, card: DatasetCard, samples: pa.Table, present: Present | None = None) -> None:
    """Write samples.parquet (id, split, label columns, perhaps group), then dataset.json.

    present: modality -> (N,) whether the dataset has it for the sample, kept as the columns has_<modality>; what an
    earlier call said of other modalities of the same samples stays. Raises UserError for ids that repeat, unknown
    splits and missing columns.
    """
    if absent := {"id", "split"} - set(samples.column_names):
        raise UserError(f"a samples table needs the columns id and split; {', '.join(sorted(absent))} is not there")
    ids = samples["id"].to_pylist()
    if len(set(ids)) != len(ids):
        twice = Counter(ids).most_common(1)[0][0]
        raise UserError(f"sample ids must be unique in a dataset; {twice!r} appears more than once")
    if unknown := set(samples["split"].to_pylist()) - set(SPLITS):
        raise UserError(f"unknown split {', '.join(sorted(map(repr, unknown)))}; splits are {', '.join(SPLITS)}")
    folder.mkdir(parents=True, exist_ok=True)
    if present is not None:
        samples = with_presence(samples, present, _earlier(folder / SAMPLES))
    write_table(folder / SAMPLES, samples)
    files = [record_file(folder, SAMPLES).as_list()]
    write_sealed_json(folder / CARD, {"pgm_dataset": 1, "files": files, **asdict(card)}, sync=True)


def _earlier(path: Path) -> pa.Table | None:
    """samples.parquet as it is, where it can be read: it is about to be written anew."""
    try:
        return read_table(path)
    except CorruptStore:
        return None


@dataclass(frozen=True)
class CachedDataset:
    """A dataset's folder in the cache."""

    name: str
    path: Path
    card: DatasetCard

    @cached_property
    def samples(self) -> pa.Table:
        """samples.parquet: one row a sample, in the order every store follows."""
        return read_table(self.path / SAMPLES)

    @property
    def presence(self) -> dict[str, npt.NDArray[np.bool_]]:
        """Modality -> (N,) whether the dataset has a source of it for the sample; a failed one has."""
        return presence(self.samples)

    @property
    def stores(self) -> list[StoreInfo]:
        """Every store of the dataset, finished or not, by folder name."""
        return [read_info(folder) for folder in store_folders(self.path)]

    def features(self, modality: str, wanted: str | None = None) -> Features:
        """The finished store of one modality.

        wanted: the digest (or its beginning) or folder name to choose among several, as in --store text=3f9c2a1b.
        Raises NotFound, StoreIncomplete, or UserError when several fit and none was named.
        """
        every = [info for info in self.stores if info.identity.modality == modality]
        finished = [info for info in every if info.complete and _fits(info, wanted)]
        # A dataset that grew keeps the stores of its earlier list of samples; they answer no question about this one.
        current = [info for info in finished if self.is_current(info)]
        if len(current) > 1:
            listing = "\n".join(f"  {modality}={i.identity.digest}  {i.identity.encoder}" for i in current)
            raise UserError(
                f"{self.name} has {len(current)} finished {modality} stores and none was chosen:\n{listing}\n"
                f"Choose one, for example --store {modality}={current[0].identity.digest}"
            )
        if not finished:
            raise self._nothing(modality, wanted, every)
        if not current:
            raise UserError(
                f"{finished[0].path} was extracted for another list of samples than {self.path / SAMPLES} holds now; "
                f"run `pgm extract {self.name}` again"
            )
        return open_features(current[0].path)

    def is_current(self, info: StoreInfo) -> bool:
        """Whether a store was made for the list of samples the dataset has now."""
        return info.sample_ids == self._ids_digest

    @cached_property
    def _ids_digest(self) -> str:
        return ids_digest(self.samples["id"].to_pylist())

    def _nothing(self, modality: str, wanted: str | None, every: list[StoreInfo]) -> UserError:
        unfinished = [info for info in every if not info.complete and _fits(info, wanted)]
        if unfinished:
            return StoreIncomplete(
                f"{unfinished[0].path} is not finished; run `pgm extract {self.name}` again to continue it"
            )
        if wanted is not None and every:
            known = ", ".join(info.identity.digest for info in every)
            return NotFound(f"{self.name} has no {modality} store {wanted!r}; it has {known}")
        modalities = sorted({info.identity.modality for info in self.stores if info.complete})
        return NotFound(
            f"{self.name} has no {modality} features; it has {', '.join(modalities) or 'no finished store at all'}"
            f"{nearest(modality, modalities)}"
        )


def open_dataset(root: Path, name: str) -> CachedDataset:
    """The dataset `name` under a features root; NotFound suggests the nearest name."""
    root = Path(root)
    if not (root / name / CARD).is_file():
        known = list_datasets(root)
        raise NotFound(
            f"no dataset {name!r} in {root}/{nearest(name, known)}. "
            + (f"It holds: {', '.join(known)}." if known else f"It holds none; `pgm extract {name}` makes one.")
        )
    return CachedDataset(name, root / name, DatasetCard.read(root / name))


def list_datasets(root: Path) -> list[str]:
    """Names of the datasets under a features root, sorted; empty when there is no such folder."""
    return sorted(path.parent.name for path in Path(root).glob(f"*/{CARD}"))


def store_folders(dataset: Path) -> list[Path]:
    """The folders below a dataset's that hold a store, finished or not."""
    return sorted(
        {path.parent for path in dataset.glob(f"*/{STORE}")} | {p.parent.parent for p in dataset.glob(f"*/{PLAN}")}
    )


def _fits(info: StoreInfo, wanted: str | None) -> bool:
    return wanted is None or info.path.name == wanted or info.identity.digest.startswith(wanted)


def nearest(name: str, known: list[str]) -> str:
    """`; did you mean …?` when a known name is close."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
