"""Stage 1 from end to end: samples -> plan -> execute -> finalize, one modality after another.

Rerunning continues: a complete store is recognised by its identity and left alone, an unfinished one has its missing
shards written. Nothing that is on disk is lost by a failure.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..cache import FeatureWriter, list_datasets, open_dataset, open_features, write_dataset
from ..cache.errors import NotFound, StoreIncomplete, TooManyFailures, UserError
from .collection import Collection
from .datasets import ADAPTERS, load_dataset
from .encoders import EncoderSpec, FrozenEncoder, build_encoder
from .events import Finished, Listener, Planned, ShardWritten, ignore
from .execute import Executor, make_executor
from .job import EncodeJob
from .plan import ModalityPlan, StoreOptions, make_plan

MAX_FAILURES = 0.01


@dataclass(frozen=True)
class ExtractOptions:
    """How an extraction runs. `encoders` names the modalities that are not to use the tiny preset."""

    encoders: Mapping[str, EncoderSpec] = field(default_factory=dict)
    store: StoreOptions = field(default_factory=StoreOptions)
    executor: str = "dask"
    workers: int | None = None
    scheduler: str | None = None
    max_failures: float = MAX_FAILURES


def extract(
    collection: Collection, features: Path, options: ExtractOptions = ExtractOptions(), listen: Listener = ignore
) -> list[Finished]:
    """Encode every modality of `collection` into stores under `features`/<dataset name>.

    Returns what each modality's store holds. Raises UserError for a request that cannot be met (an unknown encoder, a
    store that holds something else), TooManyFailures when more than `max_failures` of a modality's samples are bad.
    """
    unknown = set(options.encoders) - set(collection.media)
    if unknown:
        raise UserError(
            f"An encoder was given for {', '.join(sorted(unknown))}; "
            f"{collection.card.name!r} has {', '.join(collection.media)}."
        )
    dataset = features / collection.card.name
    write_dataset(dataset, collection.card, collection.samples)
    executor = make_executor(options.executor, options.workers, options.scheduler)
    try:
        return [
            _extract_modality(
                collection, options.encoders.get(modality, EncoderSpec(modality)), dataset, options, executor, listen
            )
            for modality in collection.media
        ]
    finally:
        executor.close()


def missing_modalities(features: Path, dataset: str) -> list[str]:
    """The modalities of a known dataset with no finished store under `features`; none for a dataset of one's own."""
    adapter = ADAPTERS.get(dataset)
    if adapter is None:
        return []
    stores = open_dataset(features, dataset).stores if dataset in list_datasets(features) else []
    finished = {info.identity.modality for info in stores if info.complete}
    return [modality for modality in adapter.modalities if modality not in finished]


def extract_missing(features: Path, dataset: str | None, listen: Listener = ignore) -> None:
    """What `pgm train` does first without --cached: encode, with default options, what has no finished store.

    Raises UserError where that needs a folder of raw media, saying which command takes it.
    """
    cached = list_datasets(features)
    if dataset is None and len(cached) == 1:
        [dataset] = cached
    if dataset is None:
        # Several cached, or none: choosing is the trainer's question, and its answer says how.
        return
    missing = missing_modalities(features, dataset)
    if not missing:
        return
    adapter = ADAPTERS[dataset]
    if adapter.default_root is None:
        raise UserError(
            f"{dataset!r} has no {' and no '.join(missing)} features under {features} yet, and its raw media lie in a "
            f"folder of yours: run {adapter.example} --features {features}"
        )
    extract(load_dataset(dataset).only(missing), features, listen=listen)


def _extract_modality(
    collection: Collection,
    spec: EncoderSpec,
    dataset: Path,
    options: ExtractOptions,
    executor: Executor,
    listen: Listener,
) -> Finished:
    began = time.perf_counter()
    encoder = build_encoder(spec)
    plan = make_plan(collection, encoder, dataset, options.store)
    try:
        done = open_features(plan.path)
    except (NotFound, StoreIncomplete):
        done = None
    if done is not None:
        _announce(plan, plan.layout.shards, listen)
        return _finished(plan, done.info.counts.get("failed", 0), time.perf_counter() - began, listen, reused=True)
    _check_disk(plan)
    failed = _fill(plan, encoder, options, executor, listen)
    return _finished(plan, failed, time.perf_counter() - began, listen, reused=False)


def _fill(
    plan: ModalityPlan, encoder: FrozenEncoder, options: ExtractOptions, executor: Executor, listen: Listener
) -> int:
    """Write the missing shards and complete the store; returns how many samples failed."""
    with FeatureWriter(plan.path, plan.identity, plan.layout, plan.ids) as writer:
        pending = writer.pending()
        _announce(plan, plan.layout.shards - len(pending), listen)
        failures = len(plan.problems)
        _check_failures(plan, failures, options)
        for result in executor.run(EncodeJob.of(plan), pending, encoder) if pending else ():
            failures += result.failures
            listen(ShardWritten(plan.modality, result.shard, result.samples, result.failures, result.seconds))
            _check_failures(plan, failures, options)
        items = plan.items(writer.failures())
        writer.finalize(items)
        return items.counts()["failed"]


def _check_failures(plan: ModalityPlan, failures: int, options: ExtractOptions) -> None:
    allowed = options.max_failures * len(plan.media)
    if failures > allowed:
        shown = "".join(f"\n  {plan.media[row]}: {why}" for row, why in list(plan.problems.items())[:5])
        raise TooManyFailures(
            f"{failures} of {len(plan.media)} {plan.modality} items are bad, more than "
            f"--max-failures {options.max_failures:g} allows. Finished shards are kept: mend the files, or raise the "
            f"limit, and run the same command again.{shown}"
        )


def _check_disk(plan: ModalityPlan) -> None:
    there = plan.path.parent
    free = shutil.disk_usage(there).free
    if plan.bytes > free:
        raise UserError(
            f"{plan.modality} needs {plan.bytes:,} bytes under {there}, and {free:,} are free. "
            "Make room, choose another --features folder, or pool tokens with --pool tokens:16."
        )


def _announce(plan: ModalityPlan, shards_done: int, listen: Listener) -> None:
    listen(
        Planned(
            modality=plan.modality,
            encoder=plan.identity.encoder,
            random_weights=plan.random_weights,
            samples=len(plan.media),
            tokens=plan.layout.total,
            dim=plan.layout.dim,
            bytes=plan.bytes,
            shards=plan.layout.shards,
            shards_done=shards_done,
        )
    )


def _finished(plan: ModalityPlan, failed: int, seconds: float, listen: Listener, *, reused: bool) -> Finished:
    event = Finished(
        plan.modality, str(plan.path), len(plan.media), plan.layout.total, plan.bytes, failed, round(seconds, 3), reused
    )
    listen(event)
    return event
