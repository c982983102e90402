"""Stage 1 from end to end: samples -> plan -> execute -> finalize, one modality after another.

Rerunning continues: a complete store is recognised by its identity and left alone, an unfinished one has its missing
shards written. Nothing that is on disk is lost by a failure.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..cache import FeatureWriter, list_datasets, open_dataset, write_dataset
from ..cache.errors import TooManyFailures, UserError
from .collection import Collection
from .datasets import adapters, load_dataset
from .encoders import EncoderSpec, FrozenEncoder, build_encoder, resolve_spec, specs_for
from .events import Finished, Listener, Note, Planned, ShardWritten, ignore
from .execute import Executor, make_executor
from .job import EncodeJob
from .plan import ModalityPlan, StoreOptions, free_bytes, make_plan
from .standing import Reuse, find_reuse, replacement, standing, swap

MAX_FAILURES = 0.01


@dataclass(frozen=True)
class ExtractOptions:
    """How an extraction runs. `encoders` names modalities that are not to use the preset; no preset is the dataset's
    default, `paper` for all but the embedded digits."""

    encoders: Mapping[str, EncoderSpec] = field(default_factory=dict)
    preset: str | None = None
    store: StoreOptions = field(default_factory=StoreOptions)
    executor: str = "dask"
    workers: int | None = None
    scheduler: str | None = None
    scheduler_file: str | None = None
    max_failures: float = MAX_FAILURES
    retry_failed: bool = False


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
    specs = specs_for(collection, options.encoders, options.preset)
    # Absolute: workers of a scheduler elsewhere have another working directory.
    dataset = features.absolute() / collection.card.name
    write_dataset(dataset, collection.card, collection.samples, collection.present)
    executor = make_executor(options.executor, options.workers, options.scheduler, options.scheduler_file)
    run = _Run(options, dataset, executor, listen)
    for line in collection.told:
        listen(Note(line))
    try:
        return [_extract_modality(collection, spec, run) for spec in specs.values()]
    finally:
        run.executor.close()


def missing_modalities(features: Path, dataset: str) -> list[str]:
    """The modalities of a known dataset with no finished store under `features`; none for a dataset of one's own."""
    adapter = adapters().get(dataset)
    if adapter is None:
        return []
    finished: set[str] = set()
    if dataset in list_datasets(features):
        cached = open_dataset(features, dataset)
        finished = {info.identity.modality for info in cached.stores if info.complete and cached.is_current(info)}
    return [modality for modality in adapter.modalities if modality not in finished]


def extract_missing(features: Path, dataset: str | None, listen: Listener = ignore) -> None:
    """What `pgm train` does first without --cached: encode, with default options, what has no finished store.

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
    listen(Note(f"{dataset} has no {' and no '.join(missing)} features under {features} yet"))
    extract(load_dataset(dataset).only(missing), features, listen=listen)


@dataclass(frozen=True)
class _Run:
    """What all modalities of one extraction share."""

    options: ExtractOptions
    dataset: Path
    executor: Executor
    listen: Listener


def _extract_modality(collection: Collection, spec: EncoderSpec, run: _Run) -> Finished:
    began = time.perf_counter()
    if spec.compute == "auto":
        spec = resolve_spec(spec, run.executor.device_kind(spec.device))
    encoder = build_encoder(spec)
    plan = make_plan(collection, encoder, run.dataset, run.options.store)
    there = standing(plan, run.options.retry_failed)
    if there.store is not None and there.state != "outdated":
        # Asked for in another format or with another codec, a finished store of the same numbers is still the answer.
        plan = replace(plan, layout=there.store.layout)
    match there.state:
        case "complete":
            assert there.store is not None
            _announce(plan, plan.layout.shards, 0, run.listen)
            failed = there.store.info.counts["failed"]
        case "damaged":
            names = ", ".join(map(str, there.shards))
            run.listen(Note(f"{plan.modality}: shard {names} is not what was written; encoding it again"))
            failed = _fill(plan, encoder, run, damaged=there.shards)
        case "outdated":
            failed = _renew(plan, encoder, run, there.rows)
        case "new":
            _check_disk(plan)
            failed = _fill(plan, encoder, run, reuse=find_reuse(plan, run.dataset))
    event = Finished(
        modality=plan.modality,
        store=str(plan.path),
        samples=len(plan.media),
        tokens=plan.layout.total,
        bytes=plan.bytes,
        failed=failed,
        missing=sum(source is None for source in plan.media),
        seconds=round(time.perf_counter() - began, 3),
        reused=there.state == "complete",
    )
    run.listen(event)
    return event


def _renew(plan: ModalityPlan, encoder: FrozenEncoder, run: _Run, rows: Sequence[int]) -> int:
    """Make the store anew with `rows` encoded again and all others taken over, then let the two change places."""
    run.listen(Note(f"{plan.modality}: {len(rows)} changed or failed items are encoded again, the others kept"))
    beside = replacement(plan)
    _check_disk(beside)
    # Begun anew each time: what an earlier attempt left may be of other lengths, and most of this is copying.
    shutil.rmtree(beside.path, ignore_errors=True)
    beside.path.parent.mkdir(exist_ok=True)
    failed = _fill(beside, encoder, run, reuse=find_reuse(plan, run.dataset, rows))
    swap(beside.path, plan.path)
    return failed


def _fill(
    plan: ModalityPlan,
    encoder: FrozenEncoder,
    run: _Run,
    reuse: Reuse | None = None,
    damaged: Sequence[int] = (),
) -> int:
    """Write the missing shards and complete the store; returns how many samples failed."""
    with FeatureWriter(plan.path, plan.identity, plan.layout, plan.ids, reopen=bool(damaged)) as writer:
        if damaged:
            writer.reset(damaged)
        pending = writer.pending()
        _announce(plan, plan.layout.shards - len(pending), reuse.count if reuse else 0, run.listen)
        failures = len(plan.problems)
        _check_failures(plan, failures, run.options)
        for result in run.executor.run(EncodeJob.of(plan, reuse), pending, encoder, run.listen) if pending else ():
            failures += result.failures
            run.listen(ShardWritten(plan.modality, result.shard, result.samples, result.failures, result.seconds))
            _check_failures(plan, failures, run.options)
        items = plan.items(writer.failures())
        writer.finalize(items)
        return items.counts()["failed"]


def _check_failures(plan: ModalityPlan, failures: int, options: ExtractOptions) -> None:
    if failures > options.max_failures * len(plan.media):
        shown = "".join(f"\n  {plan.media[row]}: {why}" for row, why in list(plan.problems.items())[:5])
        raise TooManyFailures(
            f"{failures} of {len(plan.media)} {plan.modality} items are bad, more than "
            f"--max-failures {options.max_failures:g} allows. Finished shards are kept: mend the files, or raise the "
            f"limit, and run the same command again.{shown}"
        )


def _check_disk(plan: ModalityPlan) -> None:
    free = free_bytes(plan.path)
    if plan.bytes > free:
        raise UserError(
            f"{plan.modality} needs {plan.bytes:,} bytes under {plan.path.parent}, and {free:,} are free. "
            "Make room, choose another --features folder, or pool tokens with --pool tokens:16."
        )


def _announce(plan: ModalityPlan, shards_done: int, reused: int, listen: Listener) -> None:
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
            reused=reused,
        )
    )
