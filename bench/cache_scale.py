"""Sizes that must not matter: a million samples, 1e8 rows of index, a hundred thousand segments, a tenth more."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from measure import Row, seconds_of
from pgm.cache import (
    Draft,
    Identity,
    IndexBuilder,
    Items,
    Store,
    Version,
    ids_digest,
    open_features,
    storage_at,
    write_features,
    write_segment,
)
from pgm.cache.store.index import COLUMNS
from pgm.cache.store.version import draft_of
from pgm.pipeline.encoders import EncoderSpec, build_encoder
from pgm.pipeline.engine.commit import Commit
from pgm.pipeline.engine.held import Found, Held
from pgm.pipeline.engine.job import encoder_identity
from pgm.pipeline.engine.journal import Journal
from pgm.pipeline.engine.options import StoreOptions
from pgm.pipeline.engine.plan import Estimate, Plan
from pgm.pipeline.media import TextMedia
from random_store import DIM, TOKENS, store_of, write_segments

MILLION, MANY = 1_000_000, 100_000_000
KERNEL_LIMIT = 65_530  # mappings of a process, by default
NARROW = 16
# A process that has the cache alone: pipeline and torch are none of a reader's memory.
OPEN = """
import json, sys, time
import numpy as np
from measure import anonymous_mb
from pgm.cache import open_features

before, begun = anonymous_mb(), time.perf_counter()
features = open_features(sys.argv[1])
took = time.perf_counter() - begun
for seed in range(10):
    features.gather(np.random.default_rng(seed).integers(0, len(features), 64))
print(json.dumps({"seconds": took, "mb": anonymous_mb(), "before": before}))
"""


def scale(root: Path, segments: int) -> list[Row]:
    """All of them, each in a folder of its own."""
    parts = (million, hundred_million, messages, growth)
    rows = [row for part in parts for row in part(root / part.__name__)]
    return [*rows, *many_segments(root / "segments", segments)]


def million(root: Path) -> list[Row]:
    """Opening a store of a million samples, and committing to it when one file has changed."""
    ids = [f"{row:07d}" for row in range(MILLION)]
    tokens = np.random.default_rng(0).standard_normal((MILLION, NARROW), np.float32).astype(np.float16)
    identity = Identity("vision", "million", {})
    version = write_features(storage_at(root), identity, ids, ids_digest(ids), np.ones(MILLION, np.int64), tokens)
    store = Store.open(storage_at(root / identity.folder))
    opened = seconds_of(lambda: open_features(store.storage))
    features = open_features(store.storage)
    one = seconds_of(lambda: [features[row] for row in range(0, MILLION, 1000)], 30) / (MILLION // 1000)
    took = seconds_of(lambda: commit_one(store, ids, version, tokens))
    return [
        Row("open_features, 1,000,000 samples", opened, "s", under=0.1),
        Row("features[row] of it", 1e6 * one, "us"),
        Row("commit of one changed file to it", took, "s", under=1, note="digest of the ids, index, fsync"),
    ]


def commit_one(store: Store, ids: list[str], before: Version, tokens: np.ndarray) -> None:
    """What an extraction does at its end when the source of one sample has changed."""
    changed = before.number + len(store.log.numbers())
    items = Items([ids[changed]], [f"{changed:032x}"], [""])
    segment = write_segment(store.storage, store.identity.whole_digest, items, np.array([1]), tokens[:1])
    rows = np.delete(np.arange(before.samples), changed)
    held = Held(before, store.index(before), rows, rows)
    commit = Commit(store, ids, np.zeros(0, np.int64), Found((held,), (), {}, 0), "")
    commit.place(np.array([changed]), segment)
    assert commit.publish()[1]


def hundred_million(root: Path) -> list[Row]:
    """A generated index: all samples lie in one real segment, of which 640 are read."""
    tokens = np.zeros((64 * TOKENS, DIM), np.float16)
    version = store_of(root, "many", tokens).version
    [folder] = root.iterdir()
    store = Store.open(storage_at(folder))
    file = generated_index(folder / "versions")
    there = {"samples": MANY, "tokens": MANY * TOKENS, "counts": {"ok": MANY}, "index": file}
    generated = replace(version, **there)
    store.log.commit(lambda _: draft_of(generated))
    command = [sys.executable, "-c", OPEN, str(folder)]
    told = json.loads(subprocess.check_output(command, text=True, cwd=Path(__file__).parent))
    return [
        Row("open_features, 1e8 rows of index", told["seconds"], "s", under=1),
        Row(
            "anonymous memory after it and ten batches",
            told["mb"],
            "MB",
            under=200,
            note=f"{told['before']:.0f} MB before",
        ),
    ]


def generated_index(folder: Path) -> str:
    """An index of which only lengths are written: every sample is the first of segment 0. Returns its name."""
    sizes = {name: MANY * np.dtype(dtype).itemsize * int(np.prod(width)) for name, (dtype, width) in COLUMNS.items()}
    with (folder / "000002-generated.index").open("wb") as file:
        for name, size in sizes.items():
            begin = file.tell()
            if name == "length":
                for _ in range(0, MANY, MILLION):
                    file.write(np.full(MILLION, TOKENS, "<u4"))
            file.seek(begin + size)
        file.truncate()
    return Path(file.name).name


class Generated(Sequence[Any]):
    """A hundred million values that are made when asked for."""

    def __init__(self, make: Any) -> None:
        self.make = make

    def __len__(self) -> int:
        return MANY

    def __getitem__(self, row: Any) -> Any:
        return self.make(row)


def messages(root: Path) -> list[Row]:
    """What a worker is sent of a dataset of a hundred million texts: the job once, and each task."""
    encoder, options = build_encoder(EncoderSpec("text")), StoreOptions()
    store = Store.create(storage_at(root), encoder_identity(encoder, options), encoder.dim, options.stored)
    nothing = np.zeros(0, np.int64)
    plan = Plan(
        store=store,
        spec=encoder.spec,
        random_weights=True,
        options=options,
        ids=Generated(lambda row: f"{row:09d}"),
        media=Generated(lambda row: TextMedia(f"sample {row}: " + "twenty words or so of a caption " * 4)),
        sources=np.broadcast_to(np.uint8(1), (MANY, 16)),
        keys=np.broadcast_to(np.uint8(0), (MANY, 16)),
        journal=Journal(root / "none.journal"),
        missing=nothing,
        found=Found((), (), {}, 0),
        pending=np.arange(MANY),
        estimate=Estimate(20.0, 20, 64, 0),
        retry=False,
    )
    sizes = [len(pickle.dumps(task)) for _, (_, task) in zip(range(20), plan.tasks(), strict=False)]
    return [
        Row(
            "a task's message at 1e8 samples",
            max(sizes) / 1e6,
            "MB",
            under=1,
            note=f"{plan.segment_items} items",
        ),
        Row("the job's message, once a worker", len(pickle.dumps(plan.job)) / 1e6, "MB", under=1),
    ]


def many_segments(root: Path, count: int) -> list[Row]:
    """So many segments, all linked to one real one: read them all, count the mappings."""
    [segment] = write_segments(root, np.ones((TOKENS, DIM), np.float16))
    [folder] = root.iterdir()
    store, real = Store.open(storage_at(folder)), folder / "segments" / segment.name
    names = [f"{number:016x}-{segment.name.split('-')[1]}" for number in range(count)]
    for name in names:
        os.symlink(real, folder / "segments" / name)
    ids = [f"{row:06d}" for row in range(count)]
    builder = IndexBuilder(count)
    for row, name in enumerate(names):
        builder.place(np.array([row]), replace(segment, name=name))
    store.commit(lambda: Draft(builder, ids_digest(ids)))
    features, most = open_features(folder), 0
    begun = time.perf_counter()
    for number, rows in enumerate(np.split(np.random.default_rng(0).permutation(count), 100)):
        features.gather(rows)
        if number % 5 == 4:
            most = max(most, Path("/proc/self/maps").read_text().count("\n"))
    took = time.perf_counter() - begun
    return [
        Row(
            f"mappings while {count:,} segments are read",
            most,
            under=KERNEL_LIMIT,
            note=f"{count / took:,.0f} opened/s",
        ),
    ]


def growth(root: Path) -> list[Row]:
    """A dataset a tenth larger: what is written, and whether anything that was there was touched."""
    tokens = np.random.default_rng(0).standard_normal((1100 * TOKENS, DIM), np.float32).astype(np.float16)
    before = store_of(root, "growth", tokens[: 1000 * TOKENS])
    there = dict(files(Path(before.url)))
    store_of(root, "growth", tokens)
    now = dict(files(Path(before.url)))
    size = sum(size for size, _ in there.values())
    written = sum(now[name][0] for name in now.keys() - there.keys())
    return [
        Row("bytes written when a dataset grows by 10 %", 100 * written / size, "% of the store", under=12),
        Row("files rewritten by it", sum(now.get(name) != found for name, found in there.items()), under=1),
    ]


def files(folder: Path) -> Iterator[tuple[str, tuple[int, tuple[int, int]]]]:
    """Every file below a folder: its size, and what changes when it is written."""
    for path in folder.rglob("*"):
        if path.is_file():
            status = path.stat()
            yield str(path), (status.st_size, (status.st_ino, status.st_mtime_ns))
