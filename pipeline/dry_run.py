"""`pgm extract --dry-run`: the plan as numbers, with a time estimate from one probed batch. Nothing is written."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..cache import open_features
from ..cache.errors import NotFound, StoreIncomplete
from .collection import Collection
from .encode import Failure, decode_item
from .encoders import EncoderSpec, FrozenEncoder, build_encoder
from .job import one_thread
from .media import Media
from .plan import ModalityPlan, StoreOptions, free_bytes, make_plan


@dataclass(frozen=True)
class Forecast:
    """What extracting one modality would take.

    `seconds` is for `workers` workers, from one batch of average length decoded and encoded here; None where nothing
    can be encoded. `free` is what the disk has where the store would lie, `fits` whether that is enough for all
    modalities together. `state` is what is there already: absent, unfinished or complete.
    """

    modality: str
    encoder: str
    random_weights: bool
    store: str
    samples: int
    unusable: int
    tokens: int
    longest: int
    dim: int
    bytes: int
    shards: int
    free: int
    fits: bool
    state: str
    seconds: float | None


def forecast(
    collection: Collection, features: Path, specs: Mapping[str, EncoderSpec], options: StoreOptions, workers: int
) -> list[Forecast]:
    """Plan every modality and probe its encoder with one batch; the disk must hold all of them together."""
    plans: list[tuple[ModalityPlan, float | None]] = []
    for spec in specs.values():
        encoder = build_encoder(spec)
        plan = make_plan(collection, encoder, features / collection.card.name, options)
        plans.append((plan, probe(plan, encoder)))
    free = free_bytes(features)
    fits = sum(plan.bytes for plan, _ in plans) <= free
    return [_forecast(plan, rate, workers, free, fits) for plan, rate in plans]


def _forecast(plan: ModalityPlan, rate: float | None, workers: int, free: int, fits: bool) -> Forecast:
    usable = int((plan.layout.lengths > 0).sum())
    return Forecast(
        modality=plan.modality,
        encoder=plan.identity.encoder,
        random_weights=plan.random_weights,
        store=str(plan.path),
        samples=len(plan.media),
        unusable=len(plan.media) - usable,
        tokens=plan.layout.total,
        longest=int(plan.layout.lengths.max(initial=0)),
        dim=plan.layout.dim,
        bytes=plan.bytes,
        shards=plan.layout.shards,
        free=free,
        fits=fits,
        state=found(plan.path),
        seconds=None if rate is None else round(usable * rate / min(workers, max(plan.layout.shards, 1)), 1),
    )


def found(path: Path) -> str:
    """What lies at a store's path."""
    try:
        open_features(path)
    except StoreIncomplete:
        return "unfinished"
    except NotFound:
        return "absent"
    return "complete"


def probe(plan: ModalityPlan, encoder: FrozenEncoder) -> float | None:
    """Seconds a sample, decoding and encoding, on the batch in the middle of the lengths."""
    usable = np.flatnonzero(plan.layout.lengths)
    ordered = usable[np.argsort(plan.layout.lengths[usable], kind="stable")]
    half = len(ordered) // 2
    rows = ordered[max(0, half - encoder.batch_size // 2) :][: encoder.batch_size]
    if not encoder.mixes_lengths:
        rows = rows[plan.layout.lengths[rows] == plan.layout.lengths[ordered[half]]] if len(rows) else rows
    with one_thread(encoder):
        began = time.perf_counter()
        items = _decoded([plan.media[row] for row in rows], encoder)
        decoding = time.perf_counter() - began
        if not items:
            return None
        # Once to warm up: the first call pays for allocation and, on a GPU, for loading kernels.
        encoder.encode(encoder.collate(items[:1]))
        began = time.perf_counter()
        encoder.encode(encoder.collate(items))
        return (decoding + time.perf_counter() - began) / len(items)


def _decoded(sources: Sequence[Media | None], encoder: FrozenEncoder) -> list[Any]:
    """The items that decode; what does not is the run's to report, not the estimate's."""
    items = [decode_item(encoder, source) for source in sources if source is not None]
    return [item for item in items if not isinstance(item, Failure)]
