"""Stage 1 from end to end: samples -> plan -> segments -> a version of every store, then of the dataset.

Rerunning continues: what is there is found by its sources and checked, what is missing is made. Segments are written by
the workers and never rewritten; the dataset's version comes last, so that whatever happens before leaves it as it was.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from ..cache.dataset import Place, list_datasets, open_dataset, publish, refuse_earlier
from ..cache.errors import RunFailed, TooManyFailures, UserError
from ..cache.segment import SEGMENTS, Segment, read_segment
from ..cache.storage import LocalStorage, Storage, absolute_url, storage_at
from .collection import Collection
from .datasets import adapters, load_dataset
from .encoders import EncoderSpec, fetch_encoders, resolve_spec, specs_for
from .engine.commit import Commit
from .engine.decoders import cannot_travel
from .engine.events import Finished, Listener, Note, Planned, SegmentWritten, ignore
from .engine.execute import Executor, make_executor
from .engine.held import Rows
from .engine.job import Made, Reports, Task
from .engine.options import StoreOptions
from .engine.plan import Plan, free_bytes, make_plan
from .engine.segments import next_attempt
from .engine.sources import spelled

MAX_FAILURES = 0.01
SHOWN = 5


@dataclass(frozen=True)
class ExtractOptions:
    """How an extraction runs. `encoders` names modalities that are not to use the preset; no preset is the dataset's
    default, `paper` for all but the embedded digits. `decoders`: processes that decode pictures and sounds beside each
    worker; None for none beside a CPU, and beside a GPU one a core, 8 at most."""

    encoders: Mapping[str, EncoderSpec] = field(default_factory=dict)
    preset: str | None = None
    store: StoreOptions = field(default_factory=StoreOptions)
    executor: str = "dask"
    workers: int | None = None
    decoders: int | None = None
    scheduler: str | None = None
    scheduler_file: str | None = None
    max_failures: float = MAX_FAILURES
    retry_failed: bool = False
    check_sources: bool = False


def extract(
    collection: Collection,
    features: Place,
    options: ExtractOptions = ExtractOptions(),
    listen: Listener = ignore,
) -> list[Finished]:
    """Encode every modality of `collection` into stores under `features`/<dataset name>, and commit a version of it.

    features: a folder or a URL. Returns what each modality's store holds. Raises UserError for a request that cannot be
    met (an unknown encoder, a store that holds something else), TooManyFailures when more than `max_failures` of a
    modality's samples are bad.
    """
    unknown = set(options.encoders) - set(collection.media)
    if unknown:
        raise UserError(
            f"An encoder was given for {', '.join(sorted(unknown))}; "
            f"{collection.card.name!r} has {', '.join(collection.media)}."
        )
    specs = specs_for(collection, options.encoders, options.preset)
    fetch_encoders(specs.values())
    # Absolute: workers of a scheduler elsewhere have another working directory.
    dataset = storage_at(absolute_url(features)).under(collection.card.name)
    refuse_earlier(dataset)
    executor = make_executor(options.executor, options.workers, options.scheduler, options.scheduler_file)
    run = _Run(options, dataset, executor, listen)
    for line in collection.told:
        listen(Note(line))
    try:
        finished = [_extract_modality(collection, spec, run) for spec in specs.values()]
    finally:
        run.executor.close()
    stores = {storage_at(event.store).name: event.version for event in finished}
    publish(dataset, collection.card, collection.samples, stores, collection.present, collection.version)
    if collection.version:
        run.listen(Note(f"This is version {collection.version!r} of {collection.card.name}; it replaces no full one."))
    return finished


def missing_modalities(features: Place, dataset: str) -> list[str]:
    """The modalities of a known dataset with no features under `features`; none for a dataset of one's own."""
    adapter = adapters().get(dataset)
    if adapter is None:
        return []
    there = open_dataset(features, dataset).modalities if dataset in list_datasets(features) else []
    return [modality for modality in adapter.modalities if modality not in there]


def extract_missing(features: Place, dataset: str | None, listen: Listener = ignore) -> None:
    """What `pgm train` does first without --cached: encode, with default options, what has no features.

    Raises NotFound where its raw media are not where they are looked for, saying how to name another place.
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
    listen(Note(f"{dataset} has no {' and no '.join(missing)} features under {storage_at(features).url} yet"))
    extract(load_dataset(dataset).only(missing), features, listen=listen)


@dataclass(frozen=True)
class _Run:
    """What all modalities of one extraction share."""

    options: ExtractOptions
    dataset: Storage
    executor: Executor
    listen: Listener


def _extract_modality(collection: Collection, spec: EncoderSpec, run: _Run) -> Finished:
    began = time.perf_counter()
    if spec.compute == "auto":
        spec = resolve_spec(spec, run.executor.device_kind(spec.device))
    options, media = run.options, collection.media[spec.modality]
    encoder = run.executor.encoder(spec)
    plan = make_plan(
        collection.ids,
        media,
        encoder,
        run.dataset,
        options.store,
        options.retry_failed,
        collection.version,
        options.check_sources,
    )
    if why := cannot_travel(encoder, options.decoders):
        run.listen(Note(f"{spec.modality}: {why}"))
    # Where workers encode, nobody holds it from here on.
    del encoder
    commit = Commit(plan.store, plan.ids, plan.missing, plan.found, plan.name)
    _announce(plan, run.listen)
    _check_failures(plan, commit, options)
    _check_disk(plan)
    reports = Reports()
    for written, rows, items, segment in _segments(plan, run, reports):
        commit.place(rows, segment, items)
        run.listen(written)
        _check_failures(plan, commit, options)
    version, new = commit.publish()
    event = Finished(
        modality=plan.modality,
        store=plan.store.storage.url,
        version=version.number,
        samples=version.samples,
        tokens=version.tokens,
        failed=version.counts["failed"],
        missing=version.counts["missing"],
        encoded=len(plan.pending.rows),
        bytes=commit.bytes,
        seconds=round(time.perf_counter() - began, 3),
        reused=not new,
        workers=reports.all(),
    )
    run.listen(event)
    return event


def _segments(plan: Plan, run: _Run, reports: Reports) -> Iterator[tuple[SegmentWritten, Rows, Rows, Segment]]:
    """Every segment of the plan, with the rows whose features it has and which item is each one's: first those an
    earlier run left, then new ones as they are made."""
    written = plan.store.segments() if len(plan.pending) else {}
    attempts: dict[int, int] = {}
    there: set[int] = set()
    encoded = 0
    for rows, task in plan.tasks() if written else ():
        digests = spelled(plan.sources[rows])
        attempts[task.number], name = next_attempt(plan.store, task.ids, digests, written, plan.retry)
        if name is not None:
            segment = read_segment(plan.store.storage, name)
            every, items = plan.pending.of(rows)
            yield written_event(plan.modality, segment, items, 0.0, there=True), every, items, segment
            there.add(task.number)
            encoded += len(rows)
    if encoded == len(plan.pending.rows):
        return
    rows_of: dict[int, Rows] = {}

    def to_make() -> Iterator[Task]:
        for rows, task in plan.tasks():
            if task.number not in there:
                rows_of[task.number] = rows
                yield replace(task, attempt=attempts.get(task.number, 0))

    for made in run.executor.run(replace(plan.job, decoders=run.options.decoders), to_make(), run.listen):
        _check_arrived(plan, made)
        rows = rows_of.pop(made.number)
        plan.remember(made)
        reports.add(made)
        every, items = plan.pending.of(rows)
        yield written_event(plan.modality, made.segment, items, made.seconds, there=False), every, items, made.segment


def written_event(modality: str, segment: Segment, items: Rows, seconds: float, there: bool) -> SegmentWritten:
    """What listeners are told of a segment. items: (n,) which of it n samples have."""
    failed = np.array([bool(why) for why in segment.items.errors])
    return SegmentWritten(
        modality=modality,
        segment=segment.name,
        samples=len(items),
        tokens=int(segment.lengths.sum()),
        failures=int(failed[items].sum()),
        bytes=segment.bytes,
        seconds=seconds,
        there=there,
    )


def _check_arrived(plan: Plan, made: Made) -> None:
    """Raises RunFailed where a worker wrote to a folder that is not this machine's."""
    storage = plan.store.storage
    if isinstance(storage, LocalStorage) and not (storage.path / SEGMENTS / made.segment.name).exists():
        raise RunFailed(
            f"A worker wrote {made.segment.name} below {storage.url}, and it is not there on this machine: the workers "
            "have another disk. Give --features a folder that all machines share, or a URL (s3://bucket/prefix)."
        )


def _check_failures(plan: Plan, commit: Commit, options: ExtractOptions) -> None:
    """All of the store's failures count, those of earlier runs too."""
    failed = commit.failed
    if failed > options.max_failures * len(plan.media):
        some = sorted(commit.reasons.items())[:SHOWN]
        shown = "".join(f"\n  {why}" for _, why in some)
        more = f"\n  and {failed - len(some)} more" if failed > len(some) else ""
        raise TooManyFailures(
            f"{failed} of {len(plan.media)} {plan.modality} items are bad, more than "
            f"--max-failures {options.max_failures:g} allows. Finished segments are kept: mend the files, or raise the "
            f"limit, and run the same command again.{shown}{more}"
        )


def _check_disk(plan: Plan) -> None:
    free = free_bytes(plan.store.storage) if len(plan.pending) else None
    if free is not None and (needed := plan.pending_bytes) > free:
        raise UserError(
            f"{plan.modality} needs about {needed:,} bytes under {run_folder(plan)}, and {free:,} are free. "
            "Make room, choose another --features folder, or pool tokens with --pool tokens:16."
        )


def run_folder(plan: Plan) -> str:
    """The dataset's folder."""
    return plan.store.storage.url.rsplit("/", 1)[0]


def _announce(plan: Plan, listen: Listener) -> None:
    if plan.found.damaged:
        listen(
            Note(
                f"{plan.modality}: {plan.found.damaged:,} samples in {plan.store.storage.url} are not as they were "
                "written; they are encoded again"
            )
        )
    pending, distinct = len(plan.pending), len(plan.pending.rows)
    listen(
        Planned(
            modality=plan.modality,
            encoder=plan.identity.encoder,
            random_weights=plan.random_weights,
            samples=len(plan.media),
            held=len(plan.media) - len(plan.missing) - pending,
            pending=pending,
            distinct=distinct,
            tokens=round(plan.estimate.tokens * distinct),
            dim=plan.store.dim,
            bytes=plan.pending_bytes,
            segments=-(-distinct // plan.segment_items) if distinct else 0,
        )
    )
