"""Shuffled batches out of stores of every kind, against the copy itself: np.take from an array in RAM into a warm one.

np.take is given mode="clip": without it numpy copies twice when it has an `out`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tensorstore
import zarr
from measure import Row, in_turns, large_pages, seconds_of
from pgm.cache import Features
from random_store import DIM, TOKENS, store_of

BATCH = 64
SAMPLE_BYTES = TOKENS * DIM * 2
LIMIT = "np.take(x, rows, axis=0, out=warm)"
INTO, PLAIN = "gather(rows, out=)", "gather(rows)"
PASS = "zstd: batches(64, shuffle=0)"
FEW = 4  # a share of the samples for the rows that no bar is set for


def reading(root: Path, tokens: np.ndarray, seconds: float) -> list[Row]:
    """Every row as a share of what np.take reaches in RAM."""
    x = tokens.reshape(-1, TOKENS, DIM)
    bytes_each = tokens.nbytes // 1000 + 1
    barred = {
        "1 segment": store_of(root, "one", tokens, segment_bytes=tokens.nbytes + 1),
        "segments of 64 MiB": store_of(root, "some", tokens),
        "1,000 segments": store_of(root, "thousand", tokens, segment_bytes=bytes_each),
        "HDF5 of 64 MiB": store_of(root, "hdf5", tokens, format="hdf5"),
    }
    part = tokens[: len(x) // FEW * TOKENS]
    others = {
        "int8": store_of(root, "int8", part, stored="int8"),
        "zstd": store_of(root, "zstd", part, codec="zstd"),
    }
    batches, few = shuffled(len(x)), shuffled(len(x) // FEW)
    warm, folded = np.empty((BATCH * TOKENS, DIM), np.float16), np.empty((BATCH, TOKENS, DIM), np.float16)
    contests: dict[str, Any] = {
        LIMIT: (lambda rows: np.take(x, rows, axis=0, out=folded, mode="clip"), batches),
        "numpy fancy indexing, x[rows]": (lambda rows: x[rows], batches),
    }
    for name, store in (barred | others).items():
        own = batches if name in barred else few
        contests[f"{name}: {INTO}"] = (into(store, warm), own)
        contests[f"{name}: {PLAIN}"] = (lambda rows, store=store: store.gather(rows), own)
    contests |= plain_readers(root, x, barred["segments of 64 MiB"], batches)
    took = in_turns(contests, seconds)
    took[PASS] = seconds_of(lambda: scan(others["zstd"]), 3) / len(few)
    pages = {name: large_pages(Path(store.url)) for name, store in barred.items()}
    return [row_of(name, took, pages) for name in took]


def row_of(name: str, took: dict[str, float], pages: dict[str, float]) -> Row:
    """A contest's share of the limit; where the pages are those of RAM, the bar is 0.8, where they are small, 0.5."""
    note = f"{BATCH / took[name]:,.0f} samples/s, {BATCH * SAMPLE_BYTES / took[name] / 1e9:.1f} GB/s"
    store, _, call = name.partition(": ")
    if store not in pages:
        return Row(name, took[LIMIT] / took[name], "of the limit", note=note)
    if call == PLAIN:
        ratio = took[f"{store}: {INTO}"] / took[name]
        return Row(name, ratio, "of it with out=", least=0.8, note=note)
    least = 0.8 if pages[store] > 0.9 else 0.5
    told = f"{note}; {100 * pages[store]:.0f} % in pages of 2 MiB"
    return Row(name, took[LIMIT] / took[name], "of the limit", least=least, note=told)


def shuffled(count: int) -> list[np.ndarray]:
    """One epoch in batches of 64."""
    order = np.random.default_rng(1).permutation(count)
    return [order[start : start + BATCH] for start in range(0, count - BATCH + 1, BATCH)]


def into(store: Features, warm: np.ndarray) -> Any:
    """Gathering into one warm buffer."""
    return lambda rows: store.gather(rows, out=warm)


def scan(store: Features) -> None:
    """One block-shuffled pass."""
    for _ in store.batches(BATCH, shuffle=0):
        pass


def plain_readers(root: Path, x: np.ndarray, store: Features, batches: list[np.ndarray]) -> dict[str, Any]:
    """The formats' own readers: h5py on one contiguous dataset, zarr-python and tensorstore on a segment of ours."""
    with h5py.File(root / "contiguous.h5", "w") as file:
        file["x"] = x
    rows = h5py.File(root / "contiguous.h5", "r")["x"]
    segment = Path(store.url) / "segments" / store.version.segments[0]
    here = np.flatnonzero(store.index.segment == 0)
    plain = zarr.open_group(segment, mode="r")["tokens"]
    kvstore = {"driver": "file", "path": str(segment / "tokens")}
    concurrent = tensorstore.open({"driver": "zarr3", "kvstore": kvstore}).result()
    inside = [here[each] for each in shuffled(len(here))]

    def slices(numbers: np.ndarray) -> list[slice]:
        return [slice(start, start + TOKENS) for start in store.index.start[numbers].tolist()]

    return {
        "h5py, sorted fancy indexing": (lambda numbers: rows[np.sort(numbers)], batches),
        "tensorstore, concurrent reads of a segment": (
            lambda numbers: [read.result() for read in [concurrent[at].read() for at in slices(numbers)]],
            inside,
        ),
        "zarr-python, a slice a sample of a segment": (
            lambda numbers: [plain[at] for at in slices(numbers)],
            inside,
        ),
    }
