"""Drawing splits anew: whole groups, stratified by label, or at random; the same seed gives the same splits.

How close a part of N samples comes to the wanted number W = round(share * N), at least 1:

random   exactly W.
label    exactly W, and of every class within one sample of the share of what the earlier parts left.
group    within half the largest group. Groups are gone through in random order, and one is taken where that brings the
         number closer to W: the one that overshoots does so by less than half its size, and one passed over is at
         least twice what is still wanted. Where that takes none, the smallest goes; and every part gets a group.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt

By = Literal["group", "label", "random"]
Numbers = npt.NDArray[np.int64]
Chosen = npt.NDArray[np.bool_]
Pick = Callable[[Numbers, int, int, np.random.Generator], Chosen]
REST = "train"


def draw(keys: Numbers, by: By, shares: Mapping[str, float], seed: int) -> npt.NDArray[np.str_]:
    """(N,) a part's name for each sample: those of `shares`, drawn in their order, and "train" for the rest.

    keys: (N,) the number of each sample's group or class; at random only their count matters. There must be at least
    as many groups (or samples) as parts, train among them.
    """
    pick: Pick = {"group": groups_near, "label": stratified, "random": at_random}[by]
    generator = np.random.default_rng(seed)
    parts = np.full(len(keys), REST, "<U5")
    left = np.arange(len(keys))
    for place, (name, share) in enumerate(shares.items()):
        after = len(shares) - place
        wanted = min(max(1, round(share * len(keys))), len(left) - after)
        chosen = pick(keys[left], wanted, after, generator)
        parts[left[chosen]] = name
        left = left[~chosen]
    return parts


def groups_near(keys: Numbers, wanted: int, after: int, generator: np.random.Generator) -> Chosen:
    """(N,) samples of whole groups, about `wanted` of them; `after` groups at least stay for the parts to come."""
    _, member, counts = np.unique(keys, return_inverse=True, return_counts=True)
    sizes: list[int] = counts.tolist()
    order: list[int] = generator.permutation(len(sizes)).tolist()
    taken: list[int] = []
    reached = 0
    for group in order:
        if len(taken) == len(sizes) - after:
            break
        if abs(reached + sizes[group] - wanted) < abs(reached - wanted):
            taken.append(group)
            reached += sizes[group]
    chosen: Chosen = np.isin(member, taken or [min(order, key=sizes.__getitem__)])
    return chosen


def stratified(keys: Numbers, wanted: int, _after: int, generator: np.random.Generator) -> Chosen:
    """(N,) exactly `wanted` samples, of every class its share rounded down or up."""
    _, member, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    take, remainder = np.divmod(sizes * wanted, len(keys))
    # The last sample of a class is taken only where no other class has one to give.
    remainder = np.where(sizes - take > 1, remainder, remainder - len(keys))
    order = generator.permutation(len(sizes))
    take[order[np.argsort(-remainder[order], kind="stable")][: wanted - int(take.sum())]] += 1
    shuffled = generator.permutation(len(keys))
    by_class = shuffled[np.argsort(member[shuffled], kind="stable")]
    rank = np.arange(len(keys)) - (np.cumsum(sizes) - sizes)[member[by_class]]
    chosen = np.zeros(len(keys), bool)
    chosen[by_class[rank < take[member[by_class]]]] = True
    return chosen


def at_random(keys: Numbers, wanted: int, _after: int, generator: np.random.Generator) -> Chosen:
    """(N,) exactly `wanted` samples."""
    chosen = np.zeros(len(keys), bool)
    chosen[generator.permutation(len(keys))[:wanted]] = True
    return chosen
