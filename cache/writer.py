"""Writing a store: a plan, then shards in any order from any process, then one commit.

`FeatureWriter` owns the store (it holds its lock); `write_shard` needs only the path and the shard's number, so that
workers carry nothing. Whatever dies in between, opening the store again continues it: a shard counts as finished only
when its record belongs to this plan and its bytes have the record's checksum.
"""

import fcntl
import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa

from .durable import FileRecord, checksum, explain_full_disk, record_file, settle, write_parts
from .encoding import Array, encode, merge_errors, unfit_rows
from .errors import IdentityMismatch, NotFound, RunFailed, StoreIncomplete, UserError
from .identity import Identity, field_differences, ids_digest
from .items import NAME as ITEMS
from .items import Items, read_table, write_table
from .layout import Layout
from .lock import StoreLock
from .records import (
    PLAN,
    RECORDS,
    SCRATCH,
    STORE,
    WRITING,
    ShardRecord,
    StoreInfo,
    format_of,
    layout_of,
    plan_digest,
    read_info,
    read_record,
    record_path,
    write_info,
    write_record,
)
from .removal import remove_store
from .store import Features, open_features

IDS = f"{WRITING}/ids.parquet"
NAMED = 5  # samples an error names before it counts the rest


class FeatureWriter:
    """Creates a store, or continues an unfinished one; a context manager that holds the store's lock.

    path: the store's folder, for example features/food101/text--t5-base--3f9c2a1b.
    sample_ids: (N,) ids in the order of the layout's lengths.
    wait: seconds to wait for another writer of the same store before StoreLocked.
    reopen: accept a complete store, whose shards `reset` can then take back.
    Raises IdentityMismatch when the store there is of another identity, layout or sample list.
    """

    def __init__(
        self,
        path: Path,
        identity: Identity,
        layout: Layout,
        sample_ids: Sequence[str],
        *,
        wait: float = 0.0,
        reopen: bool = False,
    ) -> None:
        if len(sample_ids) != layout.samples:
            raise UserError(f"{len(sample_ids)} sample ids were given for a layout of {layout.samples} samples")
        self.path, self.identity, self.layout, self.sample_ids = Path(path), identity, layout, sample_ids
        self._format = format_of(self.path, layout.format)
        self._ids = ids_digest(sample_ids)
        self._plan = plan_digest(identity, layout.summary(), self._ids)
        with explain_full_disk(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        self._lock = StoreLock(self.path)
        self._lock.acquire(wait)
        try:
            self._open(reopen)
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> "FeatureWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the store; what was written stays."""
        self._lock.release()

    def pending(self) -> list[int]:
        """Shards with no valid record, ascending."""
        records = self._records()
        return [shard for shard in range(self.layout.shards) if shard not in records]

    def failures(self) -> dict[int, str]:
        """Sample row -> reason, over all finished shards."""
        return {row: reason for record in self._records().values() for row, reason in record.failures.items()}

    def finalize(self, items: Items) -> Features:
        """Write items, checksums and last of all store.json; refuses while shards are pending."""
        records = self._records()
        if len(records) < self.layout.shards:
            missing = [shard for shard in range(self.layout.shards) if shard not in records]
            raise StoreIncomplete(
                f"{self.path}: {len(missing)} of {self.layout.shards} shards are not written yet "
                f"({_some(missing)}); write them, then finalize"
            )
        self._check_items(items, records)
        items.write(self.path)
        index = [*self._format.index_files(self.layout), ITEMS]
        shards = tuple(records[shard] for shard in range(self.layout.shards))
        written = [*index, *(file.name for record in shards for file in record.files)]
        settle(self.path / name for name in written)
        errors = [dict(record.error) for record in shards if record.error is not None]
        write_info(
            replace(
                self._info("complete"),
                counts=items.counts(),
                shards=tuple(replace(record, failures={}) for record in shards),
                files=tuple(record_file(self.path, name) for name in index),
                int8_error=merge_errors(errors) if self.layout.stored == "int8" else None,
            )
        )
        shutil.rmtree(self.path / WRITING)
        return open_features(self.path)

    def reset(self, shards: Sequence[int]) -> None:
        """Take shards of a complete store back, to write them again; the store is unfinished from here to finalize.

        Everything else keeps its record. The step that matters is one unlink of store.json: before it the store is
        complete and untouched, after it the store has a plan in which exactly these shards are pending.
        """
        info = read_info(self.path)
        taken = set(shards)
        for shard in taken:
            self.layout.bounds(shard)
        if info.complete:
            self._reopen(info, taken)
        for shard in taken:
            record_path(self.path, shard).unlink(missing_ok=True)

    def _open(self, reopen: bool) -> None:
        try:
            found = read_info(self.path)
        except NotFound:
            self._create()
            return
        asked = self._info(found.state)
        differences = field_differences(_comparable(found), _comparable(asked))
        if differences:
            raise IdentityMismatch(
                f"{self.path} holds something else than was asked for:\n  " + "\n  ".join(differences) + "\n"
                "Use another store folder, or remove this one with `pgm cache rm`."
            )
        if found.complete:
            shutil.rmtree(self.path / WRITING, ignore_errors=True)
            if not reopen:
                raise UserError(f"{self.path} is complete; open it with reopen=True to write shards of it again")
            return
        self._sweep()
        self._drop_unsound_records()

    def _create(self) -> None:
        """Metadata first, the plan last: a folder without a plan is started over."""
        remove_store(self.path)
        with explain_full_disk(self.path):
            (self.path / RECORDS).mkdir(parents=True)
            (self.path / SCRATCH).mkdir()
            self._format.create(self.layout)
            self._write_ids()
            write_info(self._info("writing"), PLAN)

    def _reopen(self, info: StoreInfo, taken: set[int]) -> None:
        records = self._finished_records(info)
        shutil.rmtree(self.path / WRITING, ignore_errors=True)
        (self.path / RECORDS).mkdir(parents=True)
        (self.path / SCRATCH).mkdir()
        for shard, record in records.items():
            if shard not in taken:
                write_record(self.path, record, self._plan)
        self._write_ids()
        write_info(self._info("writing"), PLAN)
        (self.path / STORE).unlink()
        settle([self.path])

    def _write_ids(self) -> None:
        write_table(self.path / IDS, pa.table({"id": pa.array(self.sample_ids, pa.string())}))

    def _info(self, state: str) -> StoreInfo:
        return StoreInfo(self.path, self.identity, self.layout.summary(), self._ids, state, {}, (), (), None)

    def _sweep(self) -> None:
        """Remove what a killed writer left half done."""
        shutil.rmtree(self.path / SCRATCH, ignore_errors=True)
        (self.path / SCRATCH).mkdir()
        for leftover in [*self.path.glob(".*.tmp"), *(self.path / WRITING).rglob(".*.tmp")]:
            leftover.unlink()

    def _records(self) -> dict[int, ShardRecord]:
        """The records of this plan whose files are there in full; those of store.json in a complete store."""
        if (self.path / STORE).exists():
            return self._finished_records(read_info(self.path))
        records = {}
        for path in (self.path / RECORDS).glob("*.json"):
            record = read_record(self.path, int(path.stem), self._plan)
            if record and all(_size(self.path / file.name) == file.bytes for file in record.files):
                records[record.shard] = record
        return records

    def _finished_records(self, info: StoreInfo) -> dict[int, ShardRecord]:
        """A complete store's records; which samples failed in them stands in its items."""
        items = Items.read(self.path)
        failed = {row: items.error[row] for row, status in enumerate(items.status) if status == "failed"}
        return {
            record.shard: replace(
                record,
                failures={row: failed[row] for row in self.layout.samples_of(record.shard) if row in failed}
                if failed
                else {},
            )
            for record in info.shards
        }

    def _drop_unsound_records(self) -> None:
        """Believe no record from before this process: read every finished shard and compare its checksum."""
        sound = self._records()
        for path in (self.path / RECORDS).glob("*.json"):
            record = sound.get(int(path.stem))
            if record is None or any(checksum(self.path / file.name) != file.checksum for file in record.files):
                path.unlink()

    def _check_items(self, items: Items, records: Mapping[int, ShardRecord]) -> None:
        if list(items.ids) != list(self.sample_ids) or not np.array_equal(items.tokens, self.layout.lengths):
            raise ValueError("items do not describe the samples and lengths this writer was opened with")
        for record in records.values():
            if silent := [row for row in record.failures if items.status[row] == "ok"]:
                raise ValueError(
                    f"items call samples {_some(silent)} ok, and shard {record.shard} recorded them as failed"
                )


def write_shard(path: Path, shard: int, tokens: Array, failures: Mapping[int, str] | None = None) -> ShardRecord:
    """Write one shard of an unfinished store, whole or not at all; callable from any process.

    tokens: (rows, D) for exactly the rows of `layout.bounds(shard)`.
    failures: sample row -> reason, for samples that could not be encoded; their rows are stored as zeros.
    Raises RunFailed for a NaN, an infinity or a value beyond float16, naming the samples, and for a full disk.
    """
    folder, failures = Path(path), dict(failures or {})
    info = read_info(folder)
    if info.complete:
        raise UserError(f"{folder} is complete; its shards are only written again after FeatureWriter.reset")
    layout = layout_of(info)
    start, stop = layout.bounds(shard)
    if tokens.shape != (stop - start, layout.dim):
        raise ValueError(f"shard {shard} takes tokens of shape {(stop - start, layout.dim)}, not {tokens.shape}")
    if tokens.dtype.kind != "f":
        raise ValueError(f"tokens are float16, float32 or float64, not {tokens.dtype}")
    tokens = _blanked(tokens, layout, shard, failures)
    if (unfit := unfit_rows(tokens, layout.stored)).size:
        raise RunFailed(_unfit_message(folder, layout, shard, tokens, unfit))
    encoded, format_ = encode(tokens, layout.stored), format_of(folder, layout.format)
    scratch = folder / SCRATCH
    names, files, temporaries = format_.shard_files(layout, shard), [], []
    try:
        with explain_full_disk(folder / names[0]):
            for number, (name, parts) in enumerate(
                zip(names, format_.shard_parts(layout, encoded, scratch), strict=True)
            ):
                temporary = scratch / f"{shard}-{number}-{os.getpid()}-{threading.get_ident()}"
                temporaries.append(temporary)
                size, digest = write_parts(temporary, parts)
                files.append(FileRecord(name, size, digest))
            record = ShardRecord(shard, stop - start, tuple(files), failures, encoded.error)
            _commit(folder, record, temporaries, plan_digest(info.identity, info.layout, info.sample_ids))
    finally:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)
    return record


def discard_shards(path: Path, shards: Sequence[int]) -> None:
    """Take damaged shards of a store back, keeping the rest; the store is unfinished until they are written again."""
    info = read_info(path)
    if not info.complete:
        raise UserError(f"{path} is unfinished: damaged shards are found and written again when it is continued")
    ids = Items.read(path).ids
    with FeatureWriter(path, info.identity, layout_of(info), ids, reopen=True) as writer:
        writer.reset(shards)


def _commit(folder: Path, record: ShardRecord, temporaries: Sequence[Path], plan: str) -> None:
    """Move files into place and record them, one committer at a time, so that a record always speaks of its files."""
    with _committing(folder):
        for file, temporary in zip(record.files, temporaries, strict=True):
            target = folder / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(temporary, target)
        write_record(folder, record, plan)


@contextmanager
def _committing(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder / RECORDS, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _blanked(tokens: Array, layout: Layout, shard: int, failures: Mapping[int, str]) -> Array:
    """Tokens with the rows of failed samples set to zero."""
    if strangers := sorted(set(failures) - set(layout.samples_of(shard))):
        raise ValueError(f"failures name samples {_some(strangers)}, which have no token in shard {shard}")
    if failures:
        tokens, (start, stop) = tokens.copy(), layout.bounds(shard)
        for row in failures:
            tokens[max(layout.offsets[row] - start, 0) : max(min(layout.offsets[row + 1], stop) - start, 0)] = 0
    return tokens


def _unfit_message(folder: Path, layout: Layout, shard: int, tokens: Array, unfit: Array) -> str:
    start, _ = layout.bounds(shard)
    rows = np.unique(np.searchsorted(layout.offsets, unfit + start, side="right") - 1)
    ids = read_table(folder / IDS)["id"]
    names = ", ".join(f"{row} ({ids[row].as_py()})" for row in rows[:NAMED].tolist())
    more = f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
    first = tokens[unfit[0]].astype(np.float64)
    what = "a NaN" if np.isnan(first).any() else f"a value of {np.abs(first).max():g}"
    return (
        f"shard {shard} of {folder} was refused: {what} in sample {names}{more}. {layout.stored} holds finite values"
        f"{'' if layout.stored == 'float32' else ' up to 65504'}; compute in float32 or bfloat16, or store float32."
    )


def _comparable(info: StoreInfo) -> dict[str, object]:
    return {**info.identity.as_dict(), "layout": info.layout, "sample_ids": info.sample_ids}


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _some(rows: Sequence[int]) -> str:
    return ", ".join(map(str, rows[:NAMED])) + (f" and {len(rows) - NAMED} more" if len(rows) > NAMED else "")
