"""What a store says about itself: shard records while it is written, store.json once it is complete.

While a store is written, `.writing/` holds the plan and one record a finished shard. A record names the plan it belongs
to, so a changed plan never believes an old record. store.json appears last, in one rename, and then `.writing/` goes.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .durable import FileRecord, read_json, read_sealed_json, write_json, write_sealed_json
from .errors import CorruptStore, NotFound
from .hdf5_format import Hdf5Format
from .identity import Identity, canonical_json
from .layout import Format, Layout
from .zarr_format import ZarrFormat

STORE = "store.json"
WRITING = ".writing"
PLAN = f"{WRITING}/plan.json"
RECORDS = f"{WRITING}/records"
SCRATCH = f"{WRITING}/scratch"
VERSION = 1


@dataclass(frozen=True)
class ShardRecord:
    """A finished shard: rows, files with their checksums, samples that failed in it and, for int8, the error."""

    shard: int
    rows: int
    files: tuple[FileRecord, ...]
    failures: Mapping[int, str] = field(default_factory=dict)
    error: Mapping[str, float] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The record as JSON."""
        value: dict[str, Any] = {
            "shard": self.shard,
            "rows": self.rows,
            "files": [file.as_list() for file in self.files],
        }
        if self.failures:
            value["failures"] = {str(row): reason for row, reason in self.failures.items()}
        if self.error is not None:
            value["error"] = dict(self.error)
        return value

    @staticmethod
    def from_dict(value: Mapping[str, Any]) -> "ShardRecord":
        """The inverse of `as_dict`."""
        return ShardRecord(
            value["shard"],
            value["rows"],
            tuple(FileRecord(*file) for file in value["files"]),
            {int(row): reason for row, reason in value.get("failures", {}).items()},
            value.get("error"),
        )


@dataclass(frozen=True)
class StoreInfo:
    """store.json (or, for an unfinished store, its plan) without opening any array."""

    path: Path
    identity: Identity
    layout: Mapping[str, Any]
    sample_ids: str
    state: str
    counts: Mapping[str, int]
    shards: tuple[ShardRecord, ...]
    files: tuple[FileRecord, ...]
    int8_error: Mapping[str, float] | None

    @property
    def complete(self) -> bool:
        """Whether every shard is there and finalize has run."""
        return self.state == "complete"

    @property
    def bytes(self) -> int:
        """Bytes on disk of a complete store."""
        return sum(file.bytes for shard in self.shards for file in shard.files) + sum(file.bytes for file in self.files)


def format_of(folder: Path, name: Format) -> ZarrFormat | Hdf5Format:
    """The format's reader and writer for one store folder."""
    return Hdf5Format(folder) if name == "hdf5" else ZarrFormat(folder)


def plan_digest(identity: Identity, layout: Mapping[str, Any], sample_ids: str) -> str:
    """Names a plan: what is computed, where it goes, and for which samples."""
    plan = {"identity": identity.as_dict(), "layout": layout, "sample_ids": sample_ids}
    return hashlib.sha256(canonical_json(plan).encode()).hexdigest()[:16]


def layout_of(info: StoreInfo) -> Layout:
    """The layout with its lengths, from the offsets on disk (a few ms for a million samples, checksum included)."""
    files = format_of(info.path, info.layout["format"])
    try:
        offsets = files.read_offsets()
    except FileNotFoundError as error:
        raise CorruptStore(f"{info.path / files.offsets_file} is missing; run `pgm cache verify`") from error
    summary = info.layout
    lengths = offsets[1:] - offsets[:-1]
    if len(lengths) == summary["samples"] and lengths.min(initial=0) >= 0:
        options = (summary["dim"], summary["shard_tokens"], summary["format"], summary["codec"], summary["stored"])
        layout = Layout(lengths, *options)
        if layout.lengths_digest == summary["lengths"] and np.array_equal(layout.offsets, offsets):
            return layout
    raise CorruptStore(
        f"the offsets in {info.path / files.offsets_file} are not those the store was written with; "
        "`pgm cache verify` names the samples"
    )


def write_info(info: StoreInfo, name: str = STORE) -> None:
    """Write store.json or a plan; written as store.json, this rename is what makes a store complete."""
    value: dict[str, Any] = {
        "pgm_store": VERSION,
        "state": info.state,
        "digest": info.identity.digest,
        "identity": info.identity.as_dict(),
        "layout": dict(info.layout),
        "sample_ids": info.sample_ids,
        "counts": dict(info.counts),
        "files": [file.as_list() for file in info.files],
        "shards": [shard.as_dict() for shard in info.shards],
    }
    if info.int8_error is not None:
        value["int8_error"] = dict(info.int8_error)
    write_sealed_json(info.path / name, value, sync=name == STORE)


def read_info(folder: Path) -> StoreInfo:
    """What a store says of itself, complete or not; NotFound when the folder is no store."""
    if (folder / STORE).exists():
        value = read_sealed_json(folder / STORE)
    elif (folder / PLAN).exists():
        value = read_sealed_json(folder / PLAN)
    else:
        raise NotFound(
            f"{folder} is not a feature store (it has no {STORE}); `pgm cache ls` lists the stores there are"
        )
    if value.get("pgm_store") != VERSION:
        raise CorruptStore(f"{folder} has store version {value.get('pgm_store')}; this PgM reads version {VERSION}")
    try:
        return StoreInfo(
            folder,
            Identity.from_dict(value["identity"]),
            value["layout"],
            value["sample_ids"],
            value["state"],
            value["counts"],
            tuple(ShardRecord.from_dict(shard) for shard in value["shards"]),
            tuple(FileRecord(*file) for file in value["files"]),
            value.get("int8_error"),
        )
    except (KeyError, TypeError) as error:
        raise CorruptStore(f"{folder}: its description lacks or garbles {error}; run `pgm cache verify`") from error


def record_path(folder: Path, shard: int) -> Path:
    """Where the record of a finished shard stands while the store is written."""
    return folder / RECORDS / f"{shard:05d}.json"


def write_record(folder: Path, record: ShardRecord, plan: str) -> None:
    """Write a shard's record, whole or not at all."""
    write_json(record_path(folder, record.shard), {"plan": plan, **record.as_dict()})


def read_record(folder: Path, shard: int, plan: str | None = None) -> ShardRecord | None:
    """A shard's record; None when there is none, it is unreadable, or it belongs to another plan."""
    try:
        value = read_json(record_path(folder, shard))
        return ShardRecord.from_dict(value) if plan in (None, value["plan"]) else None
    except (FileNotFoundError, CorruptStore, KeyError, TypeError):
        # An unreadable record is no record: its shard is written again.
        return None
