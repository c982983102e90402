"""Groups of samples: the utterances of a video or of a dialogue, one after the other.

The column `group` says which samples belong together. They follow each other by the numbers in their ids where these
differ in nothing else (video_2 before video_10), and as the dataset lists them otherwise (IEMOCAP's ids name the
speaker before the number). Within a split they are counted anew: a group that straddles splits is another in each.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...cache.errors import UserError
from .order import Rows

NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Groups:
    """codes: (N,) a number a group, for the samples of one split. turns: (N,) each sample's place in its group, from 0.

    whole: whether batches hold whole groups. context: neighbours to either side that become a sample's tokens
    (sequence.py); 0 leaves it its own.
    """

    codes: Rows
    turns: Rows
    whole: bool = False
    context: int = 0


def groups_of(
    names: Sequence[str] | None, ids: Sequence[str], rows: Rows, whole: bool = False, context: int = 0
) -> Groups | None:
    """The groups of a split's rows (ascending); None where neither batches nor tokens ask for them.

    names, ids: of all samples; names None where the dataset has no groups, for which UserError is raised.
    """
    if not (whole or context):
        return None
    if names is None:
        asked = "--sequence group reads" if context else "This method reads whole"
        raise UserError(
            f"{asked} videos or dialogues, and this dataset does not say which samples belong together: "
            "its table of samples has no column 'group'."
        )
    codes = np.unique([names[row] for row in rows], return_inverse=True)[1].astype(np.int64)
    turns = np.empty(len(codes), np.int64)
    for members in members_of(codes):
        turns[members[following([ids[rows[m]] for m in members])]] = np.arange(len(members))
    return Groups(codes, turns, whole, context)


def members_of(codes: Rows) -> list[Rows]:
    """The positions of each group's samples, ascending."""
    counts = np.bincount(codes)
    return np.split(np.argsort(codes, kind="stable"), np.cumsum(counts)[:-1]) if len(counts) else []


def following(ids: Sequence[str]) -> list[int]:
    """The order in which samples with these ids follow each other."""
    order = list(range(len(ids)))
    if len({NUMBER.sub("", name) for name in ids}) > 1:
        return order
    return sorted(order, key=lambda i: [int(n) for n in NUMBER.findall(ids[i])])


def grouped(groups: Groups, batch: int, seed: int | None) -> list[Rows]:
    """Whole groups in batches of at least `batch` samples, the last excepted; in random order where there is a seed.

    A group's samples follow each other.
    """
    members = [m[np.argsort(groups.turns[m])] for m in members_of(groups.codes)]
    count = len(members)
    names = np.arange(count) if seed is None else np.random.default_rng(seed).permutation(count)
    batches: list[Rows] = []
    held: list[Rows] = []
    for name in names:
        held.append(members[name])
        if sum(map(len, held)) >= batch:
            batches.append(np.concatenate(held))
            held = []
    return batches + ([np.concatenate(held)] if held else [])
