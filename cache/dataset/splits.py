"""Named splits: other ways to cut a dataset into train, val and test, beside its own and without touching features.

Its table holds `id` and `split`, in the order of the dataset's samples; splits/<name>.split.json says how it was drawn
(sealed.py). The JSON is put last: without it there is no such split.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import CorruptStore, NotFound, UserError
from ..nearest import did_you_mean
from ..storage import Storage
from .card import SPLITS
from .dataset import CachedDataset
from .draw import By, Numbers, draw
from .samples import table_key
from .sealed import SPLIT, put_named_table, read_named_table, read_recipe, table_names

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class NamedSplit:
    """How a named split was drawn. test: None where the dataset's own was kept.

    samples: how many in each part. groups: the same of groups, where it was drawn by group. sample_ids: the digest of
    the list of samples it was drawn for.
    """

    name: str
    by: By
    val: float
    test: float | None
    seed: int
    samples: Mapping[str, int]
    sample_ids: str
    groups: Mapping[str, int] = field(default_factory=dict)

    def command(self, dataset: str) -> str:
        """The command that draws it again."""
        test = "" if self.test is None else f" --test {self.test:g}"
        return (
            f"pgm cache split {dataset} --by {self.by} --val {self.val:g}{test} --seed {self.seed} --name {self.name}"
        )


def make_split(
    dataset: CachedDataset, by: By, val: float = 0.1, test: float | None = None, seed: int = 0, name: str | None = None
) -> NamedSplit:
    """Draw a split and keep it under its name; the same split again changes nothing.

    val, test: shares of the samples that are drawn: all of them, or without `test` those outside the dataset's own
    test split, which then stays. How close the sizes come to the shares stands in draw.py.
    Raises UserError where there is nothing to draw by, a part would be empty, a kept test split would tear groups
    apart, or the name stands for another split.
    """
    name = name or f"{by}-val{val:g}" + ("" if test is None else f"-test{test:g}") + f"-seed{seed}"
    check_request(by, val, test, seed, name)
    samples = dataset.samples
    column = np.array(samples["split"].to_pylist(), "<U5")
    rows = np.flatnonzero(column != "test") if test is None else np.arange(len(column))
    shares = {"val": val} if test is None else {"test": test, "val": val}
    keys = keys_of(dataset, by)
    check_enough(dataset, by, keys[rows], shares)
    if by == "group" and test is None:
        check_whole(dataset, keys, column)
    column[rows] = draw(keys[rows], by, shares, seed)
    table = pa.table({"id": samples["id"], "split": pa.array(column.tolist(), pa.string())})
    told = {part: int((column == part).sum()) for part in SPLITS}
    groups = {part: len(np.unique(keys[column == part])) for part in SPLITS} if by == "group" else {}
    made = NamedSplit(name, by, val, test, seed, told, dataset.version.sample_ids, groups)
    if name in split_names(dataset) or not put_named_table(dataset.storage, SPLIT, name, table, asdict(made)):
        return same_split(dataset, made, table)
    return made


def check_request(by: str, val: float, test: float | None, seed: int, name: str) -> None:
    """Raises UserError for options that mean nothing."""
    if by not in get_args(By):
        raise UserError(f"--by is {', '.join(get_args(By))}, not {by!r}.")
    for option, share in (("--val", val), ("--test", test)):
        if share is not None and not 0 < share < 1:
            raise UserError(f"{option} is a share between 0 and 1, not {share:g}.")
    if val + (test or 0) >= 1:
        raise UserError(f"--val {val:g} and --test {test:g} leave nothing to train on; together they must be under 1.")
    if seed < 0:
        raise UserError(f"--seed is 0 or more, not {seed}.")
    if not NAME.fullmatch(name):
        raise UserError(f"--name {name!r}: a split's name is made of letters, digits, '.', '_' and '-'.")


def keys_of(dataset: CachedDataset, by: By) -> Numbers:
    """(N,) the number of each sample's group or class; a sample without a group is a group of its own."""
    samples, card = dataset.samples, dataset.card
    if by == "random":
        return np.zeros(len(samples), np.int64)
    name = "group" if by == "group" else card.label_column
    if name not in samples.column_names:
        raise UserError(
            f"--by {by}: {dataset.name} has no column {name!r}; it has {', '.join(samples.column_names)}. "
            f"Use --by {'label or --by random' if by == 'group' else 'random'}."
        )
    if by == "label" and pa.types.is_floating(samples[name].type):
        raise UserError(
            f"--by label: the labels of {dataset.name} are scores, not classes. Use --by random or --by group."
        )
    # Numbered in the order of the names, so that the order of the samples does not matter.
    values = pc.cast(samples[name].combine_chunks(), pa.string())
    known = pc.unique(values.drop_null())
    known = known.take(pc.sort_indices(known))
    keys: Numbers = pc.fill_null(pc.index_in(values, value_set=known), -1).to_numpy(zero_copy_only=False)
    keys = keys.astype(np.int64)
    alone = np.flatnonzero(keys < 0)
    keys[alone] = len(known) + (np.arange(len(alone)) if by == "group" else 0)
    return keys


def check_enough(dataset: CachedDataset, by: By, keys: Numbers, shares: Mapping[str, float]) -> None:
    """Raises UserError where some part would get nothing."""
    there = len(np.unique(keys)) if by == "group" else len(keys)
    parts = [*shares, "train"]
    if there < len(parts):
        raise UserError(
            f"{dataset.name} has {there} {'groups' if by == 'group' else 'samples'} to draw from "
            f"for {len(parts)} parts ({', '.join(parts)}): one would be empty."
        )


def check_whole(dataset: CachedDataset, keys: Numbers, column: npt.NDArray[np.str_]) -> None:
    """Raises UserError where the dataset's own test split shares groups with the rest."""
    torn = np.intersect1d(keys[column == "test"], keys[column != "test"])
    if len(torn):
        raise UserError(
            f"{len(torn)} of the {len(np.unique(keys))} groups of {dataset.name} lie both in its own test split and "
            "outside it, so that keeping it tears them apart. Draw the test split by group too, with --test 0.2."
        )


def same_split(dataset: CachedDataset, made: NamedSplit, table: pa.Table) -> NamedSplit:
    """The split that has the name already. Raises UserError where it is another one."""
    there, kept = read_split(dataset.storage, made.name)
    if there.sample_ids == made.sample_ids and kept.equals(table):
        return there
    raise UserError(
        f"{dataset.name} has another split named {made.name!r} ({there.command(dataset.name)}). Choose another --name, "
        f"or delete {seal_url(dataset.storage, made.name)}; runs made with it stay."
    )


def split_names(dataset: CachedDataset) -> list[str]:
    """The names of a dataset's named splits, sorted."""
    return table_names(dataset.storage, SPLIT)


def named_splits(dataset: CachedDataset) -> list[NamedSplit]:
    """The named splits of a dataset and how they were drawn, by name."""
    return [split_from(dataset.storage, name)[0] for name in split_names(dataset)]


def open_split(dataset: CachedDataset, name: str) -> tuple[NamedSplit, pa.ChunkedArray]:
    """A named split: how it was drawn, and (N,) train, val or test for each of the dataset's samples.

    Raises NotFound with the nearest name, UserError where the dataset has other samples by now, CorruptStore for a
    file that is not as it was written.
    """
    known = split_names(dataset)
    if name not in known:
        having = f"it has {', '.join(known)}" if known else "it has none but its own"
        raise NotFound(
            f"{dataset.name} has no split named {name!r}; {having}.{did_you_mean(name, known)} "
            f"Draw one with pgm cache split {dataset.name} (--help shows how)."
        )
    recipe, table = read_split(dataset.storage, name)
    if recipe.sample_ids != dataset.version.sample_ids:
        raise UserError(
            f"Split {name!r} of {dataset.name} was drawn for another list of samples than version "
            f"{dataset.version.number} has. Delete {seal_url(dataset.storage, name)} and draw it again: "
            f"{recipe.command(dataset.name)}"
        )
    return recipe, table["split"]


def read_split(dataset: Storage, name: str) -> tuple[NamedSplit, pa.Table]:
    """A split and its table, each after its checksum. Raises CorruptStore."""
    recipe, digest = split_from(dataset, name)
    remedy = f"draw the split again: {recipe.command(dataset.name)}"
    return recipe, read_named_table(dataset, SPLIT, name, digest, remedy)


def split_from(dataset: Storage, name: str) -> tuple[NamedSplit, str]:
    """What <name>.split.json says, and its table's digest; CorruptStore where it is not as it was written."""
    value = read_recipe(dataset, SPLIT, name)
    try:
        return NamedSplit(**{item.name: value[item.name] for item in fields(NamedSplit)}), value["table"]
    except KeyError as error:
        where = seal_url(dataset, name)
        raise CorruptStore(f"{where} lacks {error}; delete it and draw the split again") from error


def table_url(dataset: CachedDataset, name: str) -> str:
    """Where a split's table lies: an ordinary Parquet file."""
    return f"{dataset.storage.url}/{table_key(SPLIT.folder, split_from(dataset.storage, name)[1])}"


def seal_url(dataset: Storage, name: str) -> str:
    """Where a split's recipe lies, for people."""
    return f"{dataset.url}/{SPLIT.seal_key(name)}"
