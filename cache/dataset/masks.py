"""Missing-modality masks: which modalities a sample is shown without, drawn once and the same for every method.

How a rate is met. The cells are the (sample, modality) pairs that have features; a rate r hides round(r C) of the C
cells of a split, exactly, in train, val and test each for itself. For every sample one of the modalities it has, drawn
uniformly, is kept whatever the rate; all other cells stand in one random order, and the first round(r C) of them are
hidden. So

- the achieved share is within half a cell of the rate, without redrawing;
- every sample that has a modality keeps one;
- masks of one seed are nested: what is hidden at .2 is hidden at .3 too, and nothing but the rate differs between two
  columns of a table;
- with V modalities and all of them there, the largest rate is (V - 1) / V: .5 for two, .667 for three. A rate above
  what the data allows is taken down to it.

A modality that a sample lacks anyway (no source, or its extraction failed) is no cell: it is neither hidden nor kept,
and rate 0 is the data as it is.

A mask's table holds `id` and a bool column a modality (True: shown), sealed as named splits are (sealed.py). The name
holds rate, seed and a digest of the cells and splits, so that other stores or splits have their own masks.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..errors import CorruptStore, PgMError, UserError
from ..segment.contents import Int64s
from ..storage import Storage
from .samples import ids_digest
from .sealed import MASK, put_named_table, read_named_table, read_recipe

Bools = npt.NDArray[np.bool_]
PARTS = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class Mask:
    """hidden: modality -> (N,) bool; splits: name -> rows.

    rate: what was asked, or the largest there is. achieved: split -> the share of its cells that is hidden. note: why
    the mask could not be saved, nothing where it was.
    """

    rate: float
    seed: int
    hidden: Mapping[str, Bools]
    splits: Mapping[str, Int64s]
    achieved: Mapping[str, float]
    note: str = field(default="")

    def of(self, *parts: str) -> dict[str, Bools]:
        """modality -> (N,) bool: what is hidden in these splits."""
        inside = np.zeros(len(next(iter(self.hidden.values()))), np.bool_)
        for part in parts:
            inside[self.splits[part]] = True
        return {name: hidden & inside for name, hidden in self.hidden.items()}


def make_mask(
    dataset: Storage,
    ids: Sequence[str],
    present: Mapping[str, Bools],
    splits: Mapping[str, Int64s],
    rate: float,
    seed: int = 0,
) -> Mask:
    """The mask of this rate and seed: the saved one, else drawn and saved beside the dataset's features.

    ids: (N,) of the samples. present: modality -> (N,) bool, whether the sample has features. splits: train, val and
    test as they are used. Where nothing can be written there, the mask is the same and says so in its note.
    Raises UserError for a rate outside [0, 1), a negative seed or fewer than two modalities, CorruptStore for a saved
    mask that is not as it was written.
    """
    check_request(rate, seed, tuple(present))
    names = sorted(present)
    there = np.stack([present[name] for name in names], axis=1)
    parts = {name: splits[name] for name in PARTS}
    rate = min(rate, largest_rate(there, parts))
    if not rate:
        return Mask(0.0, seed, {name: np.zeros(len(ids), np.bool_) for name in names}, parts, dict.fromkeys(PARTS, 0.0))
    digest = cells_digest(ids, names, there, parts)
    name = f"rate{rate!r}-seed{seed}-{digest[:8]}"
    if (known := saved(dataset, name, names, digest, there)) is not None:
        return Mask(rate, seed, known, parts, achieved(known, there, parts))
    cells = draw_hidden(there, parts, rate, seed)
    hidden = {modality: cells[:, column] for column, modality in enumerate(names)}
    reached = achieved(hidden, there, parts)
    table = pa.table({"id": list(ids), **{modality: ~hidden[modality] for modality in names}})
    recipe = {"name": name, "rate": rate, "seed": seed, "cells": digest, "achieved": reached}
    try:
        put_named_table(dataset, MASK, name, table, recipe)
    except (OSError, PgMError) as error:
        told = f"The missing-modality masks are not saved, {dataset.url} cannot be written to ({error})."
        return Mask(rate, seed, hidden, parts, reached, told)
    return Mask(rate, seed, hidden, parts, reached)


def check_request(rate: float, seed: int, modalities: Sequence[str]) -> None:
    """Raises UserError for what no mask can be drawn for."""
    if not 0 <= rate < 1:
        raise UserError(f"A missing rate is a share from 0 to under 1, not {rate:g}.")
    if seed < 0:
        raise UserError(f"A mask's seed is 0 or more, not {seed}.")
    if len(modalities) < 2:
        raise UserError(
            f"Masks hide some of several modalities, and {', '.join(modalities) or 'none'} is all there is: a sample "
            "would be left with nothing."
        )


def draw_hidden(present: Bools, splits: Mapping[str, Int64s], rate: float, seed: int) -> Bools:
    """(N, M) bool: the hidden cells of `present` (N, M); see the head of this file."""
    hidden = np.zeros_like(present)
    for place, part in enumerate(PARTS):
        rows = splits[part]
        there = present[rows]
        generator = np.random.default_rng([seed, place])
        # The rate takes no part in what is drawn, so that masks of one seed are nested.
        kept = np.where(there, generator.random(there.shape), -1.0).argmax(axis=1)
        spare = there.copy()
        spare[np.arange(len(rows)), kept] = False
        order = generator.permutation(np.flatnonzero(spare))
        chosen = np.zeros(there.size, np.bool_)
        chosen[order[: round(rate * int(there.sum()))]] = True
        hidden[rows] = chosen.reshape(there.shape)
    return hidden


def largest_rate(present: Bools, splits: Mapping[str, Int64s]) -> float:
    """The share of cells that is not some sample's last, in the split where it is largest; `present` is (N, M)."""
    found = [0.0]
    for rows in splits.values():
        cells = int(present[rows].sum())
        found.append((cells - int(present[rows].any(axis=1).sum())) / max(1, cells))
    return max(found)


def achieved(hidden: Mapping[str, Bools], present: Bools, splits: Mapping[str, Int64s]) -> dict[str, float]:
    """Split -> hidden cells over cells."""
    cells = np.stack([hidden[name] for name in sorted(hidden)], axis=1)
    return {part: int(cells[rows].sum()) / max(1, int(present[rows].sum())) for part, rows in splits.items()}


def cells_digest(ids: Sequence[str], names: Sequence[str], present: Bools, splits: Mapping[str, Int64s]) -> str:
    """32 hex digits of all that a mask is drawn from besides rate and seed."""
    hasher = hashlib.blake2b(repr((ids_digest(list(ids)), list(names))).encode(), digest_size=16)
    hasher.update(np.packbits(present).tobytes())
    for part in PARTS:
        hasher.update(part.encode() + np.ascontiguousarray(splits[part], np.int64).tobytes())
    return hasher.hexdigest()


def saved(dataset: Storage, name: str, names: Sequence[str], digest: str, present: Bools) -> dict[str, Bools] | None:
    """The hidden cells of a saved mask, None where there is none. Raises CorruptStore for one that has changed."""
    seal = f"{dataset.url}/{MASK.seal_key(name)}"
    remedy = "run the command again: it draws the same mask"
    try:
        recipe = read_recipe(dataset, MASK, name)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except CorruptStore as error:
        raise CorruptStore(f"{error}. Delete {seal} and {remedy}") from error
    table = read_named_table(dataset, MASK, name, recipe["table"], remedy)
    if recipe["cells"] != digest or table.num_rows != len(present) or table.column_names != ["id", *names]:
        raise CorruptStore(f"{seal} belongs to other samples than those it lies beside. Delete it and {remedy}")
    return {modality: ~table[modality].to_numpy() for modality in names}
