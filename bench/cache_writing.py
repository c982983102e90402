"""Writing a committed store against ndarray.tofile of the same bytes; both are on the disk when the clock stops."""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from measure import Row
from random_store import TOKENS, store_of, write_segments

BARE = "ndarray.tofile and fsync"
MOST = 270_000_000  # bytes


def writing(root: Path, tokens: np.ndarray, rounds: int) -> list[Row]:
    """Each way of writing as a share of the bare one, whose turn comes before each."""
    tokens = tokens[: MOST // (TOKENS * tokens.shape[1] * 2) * TOKENS]

    def bare(path: Path) -> None:
        with path.open("wb") as file:
            tokens.tofile(file)
            os.fsync(file.fileno())

    ways: dict[str, tuple[Callable[[Path], object], float | None]] = {
        "write_features, Zarr": (lambda path: store_of(path, "zarr", tokens), 0.7),
        "write_features, HDF5": (lambda path: store_of(path, "hdf5", tokens, format="hdf5"), 0.7),
        "write_segment, one after another": (lambda path: write_segments(path, tokens), None),
    }
    ratios: dict[str, list[float]] = {name: [] for name in ways}
    times: dict[str, list[float]] = {name: [] for name in (BARE, *ways)}
    for _ in range(rounds):
        for name, (write, _) in ways.items():
            unit = timed(bare, root / "bare")
            took = timed(write, root / "store")
            times[BARE].append(unit)
            times[name].append(took)
            ratios[name].append(unit / took)
    speeds = {name: f"{tokens.nbytes / statistics.median(found) / 1e6:,.0f} MB/s" for name, found in times.items()}
    rows = [Row(BARE, 1.0, note=f"{speeds[BARE]}, {tokens.nbytes / 1e6:,.0f} MB")]
    for name, (_, least) in ways.items():
        rows.append(Row(name, statistics.median(ratios[name]), "of it", least=least, note=speeds[name]))
    return rows


def timed(write: Callable[[Path], object], path: Path) -> float:
    """Seconds until it is on the disk. What earlier ones left for the disk is not paid here."""
    os.sync()
    begun = time.perf_counter()
    write(path)
    took = time.perf_counter() - begun
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    return took
