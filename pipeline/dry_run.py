"""`pgm extract --dry-run`: the plan as numbers, estimated from a few samples and one batch. Nothing is written."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from ..cache.dataset import ids_digest, refuse_earlier
from ..cache.errors import NotFound
from ..cache.segment import SEGMENTS
from ..cache.storage import Storage
from ..cache.store import Store
from .collection import Collection
from .encode import encode_batch
from .encoders import EncoderSpec, FrozenEncoder, build_encoder, fetch_encoders
from .engine.batches import Waiting, filled
from .engine.decoding import decode_part
from .engine.job import encoder_identity
from .engine.memory import worker_memory
from .engine.options import StoreOptions
from .engine.plan import PROBED, Estimate, estimate, few, free_bytes, sample_bytes
from .engine.segments import segment_items
from .engine.worker import one_thread
from .media import Media

LOOKED_AT = 8  # sources, for the memory that decoding takes


@dataclass(frozen=True)
class Forecast:
    """What extracting one modality would take.

    tokens, bytes, segments: of all samples, estimated from `probed` of them, of which `unusable` could not be decoded;
    longest: the most tokens of one of those. seconds: for the workers there are, from a batch decoded and encoded here;
    None where nothing can be encoded. memory: the most bytes a worker holds beside its model, for items as large as
    those probed. free: what the disk has where the store would lie, None for an object store.
    fits: whether that is enough for all modalities together. state: what is there: absent, unfinished or complete.
    """

    modality: str
    encoder: str
    random_weights: bool
    store: str
    samples: int
    probed: int
    unusable: int
    tokens: int
    longest: int
    dim: int
    bytes: int
    segments: int
    free: int | None
    fits: bool
    state: str
    seconds: float | None
    memory: int


def forecast(
    collection: Collection,
    dataset: Storage,
    specs: Mapping[str, EncoderSpec],
    options: StoreOptions,
    workers: int,
    decoders: int | None = None,
) -> list[Forecast]:
    """Probe every modality; the disk must hold all of them together."""
    refuse_earlier(dataset)
    fetch_encoders(specs.values())
    rows = [_forecast(collection, dataset, build_encoder(spec), options, workers, decoders) for spec in specs.values()]
    free = free_bytes(dataset)
    fits = free is None or sum(row.bytes for row in rows) <= free
    return [replace(row, free=free, fits=fits) for row in rows]


def _forecast(
    collection: Collection,
    dataset: Storage,
    encoder: FrozenEncoder,
    options: StoreOptions,
    workers: int,
    decoders: int | None,
) -> Forecast:
    media = collection.media[encoder.spec.modality]
    # A source that several samples have is encoded once.
    distinct = len({source for source in media if source is not None})
    found: Estimate = estimate(media, encoder)
    size = sample_bytes(found, encoder.dim, options)
    items = segment_items(distinct, size)
    segments = -(-distinct // items)
    store = dataset.under(encoder_identity(encoder, options).folder)
    rate = probe(collection, encoder, options)
    return Forecast(
        modality=encoder.spec.modality,
        encoder=encoder.name,
        random_weights=encoder.random_weights,
        store=store.url,
        samples=len(media),
        probed=found.probed,
        unusable=found.unusable,
        tokens=round(found.tokens * distinct),
        longest=found.longest,
        dim=encoder.dim,
        bytes=round(size * distinct),
        segments=segments,
        free=None,
        fits=True,
        state=state(store, collection),
        seconds=None if rate is None else round(distinct * rate / min(workers, max(segments, 1)), 1),
        memory=worker_memory(encoder, decodable(encoder, media), items * size, decoders),
    )


def decodable(encoder: FrozenEncoder, media: Sequence[Media | None]) -> list[Media]:
    """A few sources that can be decoded."""
    sources = few(media, LOOKED_AT)
    return [sources[place] for place in decode_part(encoder, sources).places]


def state(store: Storage, collection: Collection) -> str:
    """What lies at a store's place, of these samples."""
    with suppress(NotFound):
        latest = Store.open(store).latest(collection.version)
        if latest is not None and latest.sample_ids == ids_digest(collection.ids):
            return "complete"
    return "unfinished" if store.names(SEGMENTS) else "absent"


def probe(collection: Collection, encoder: FrozenEncoder, options: StoreOptions) -> float | None:
    """Seconds a sample, decoding and encoding, of samples spread over the dataset; None where none can be decoded."""
    with one_thread(encoder):
        began = time.perf_counter()
        sources = few(collection.media[encoder.spec.modality], min(PROBED, encoder.batch_size))
        items = decode_part(encoder, sources).of(None, sources, 0)
        decoding = time.perf_counter() - began
        if not items:
            return None
        # Once to warm up: the first call pays for allocation and, on a GPU, for loading kernels.
        encode_batch(encoder, filled(items[:1], encoder), options.stored)
        began = time.perf_counter()
        waiting = Waiting(encoder)
        for batch in [*waiting.add(items), *waiting.of(None)]:
            encode_batch(encoder, filled(batch, encoder), options.stored)
        return (decoding + time.perf_counter() - began) / len(items)
