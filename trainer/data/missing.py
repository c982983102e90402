"""Training on samples with some of their modalities taken away, by the masks of cache/masks.py.

A run's mask covers its training and validation rows; its own test split stays whole, and a finished run is tested
under as many masks as are asked for (masked_test.py). Two ways to be missing:

skip    the sample has no tokens of the modality, exactly as if the dataset lacked it: every method leaves it out of
        its fusion and scales what is left.
zero    its tokens are zeros, as many as before, and count as real: what MLA's released code does to raw inputs (spec
        A5), done to the cached features. The zeros stand where the stored tokens stood, before standardisation, so
        that a run is the same as on a store that holds zeros, input statistics included, and no method has to know.
        A run trained on whole samples and tested on zeros sees them off its statistics' centre, clipped at 10
        deviations.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...cache import Features, Fill, Mask, make_mask, masked
from ...cache.dataset.masks import Bools
from ..head.switches import Count, Share, Switches
from .feed import present_lengths

if TYPE_CHECKING:
    from .dataset import TrainingData

TRAINED = ("train", "val")


@dataclass(frozen=True)
class Missing(Switches):
    """rate: the share of the (sample, modality) cells that is taken away. seed: of the mask, not of the run."""

    rate: Share
    seed: Count = 0
    fill: Fill = "skip"

    @property
    def name(self) -> str:
        """What files about it are named after."""
        return f"rate{self.rate!r}-seed{self.seed}-{self.fill}"


def mask_of(data: TrainingData, missing: Missing) -> Mask:
    """The mask for this data: drawn once, then read; it is the same for every method and seed of a run."""
    known = data.masks.get((missing.rate, missing.seed))
    if known is None:
        present = {name: present_lengths(store) > 0 for name, store in data.features.items()}
        known = make_mask(data.storage, data.ids, present, data.splits, missing.rate, missing.seed)
        data.masks[missing.rate, missing.seed] = known
    return known


def without(features: Mapping[str, Features], hidden: Mapping[str, Bools], fill: Fill) -> dict[str, Features]:
    """The stores with `hidden` (modality -> (N,)) taken away; a store that loses nothing is itself."""
    return {
        name: masked(store, hidden[name], fill) if hidden[name].any() else store for name, store in features.items()
    }


def described(mask: Mask, missing: Missing, *parts: str) -> dict[str, Any] | None:
    """What decides the numbers under a mask of these splits, JSON-able; None where it hides nothing of them."""
    hidden = mask.of(*parts)
    if not any(cells.any() for cells in hidden.values()):
        return None
    hasher = hashlib.blake2b(digest_size=16)
    for name in sorted(hidden):
        hasher.update(name.encode() + np.packbits(hidden[name]).tobytes())
    return {"rate": mask.rate, "seed": mask.seed, "fill": missing.fill, "hidden": hasher.hexdigest()}


def restored_missing(config: Mapping[str, Any]) -> Missing | None:
    """What a run's config.json says it was trained without; None for a run on whole samples."""
    known = config.get("missing")
    return None if known is None else Missing(known["rate"], known["seed"], known["fill"])
