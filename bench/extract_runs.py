"""Whole runs of `pgm extract` as a user starts them, of many files or texts: time, processor and memory."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

HERE = Path(__file__).parents[1]


@dataclass
class Cost:
    """Seconds of the clock and of all processors; the most MB of the main process and of its largest child; main's MB
    when a quarter and when all of the time had passed."""

    clock: float
    processor: float
    main: float
    child: float
    quarter: float
    last: float


def extraction(checkout: Path, *arguments: str) -> Cost:
    """`pgm extract` of a checkout's code, watched."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "pgm").symlink_to(checkout.resolve())
        environment = {**os.environ, "PYTHONPATH": folder, "XDG_CACHE_HOME": str(Path(folder) / "cache")}
        program = "from pgm.cli import main; main()"
        began, before = time.perf_counter(), os.times()
        child = subprocess.Popen([sys.executable, "-c", program, "extract", *arguments], env=environment)
        watch = Watch(child.pid)
        if child.wait():
            raise SystemExit("the extraction failed")
        after = os.times()
        watch.stop()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    main = [main for main, _ in watch.seen]
    largest = max(child for _, child in watch.seen)
    return Cost(time.perf_counter() - began, used, max(main), largest, main[len(main) // 4], main[-1])


class Watch:
    """Resident megabytes of a process and of its largest child, five times a second."""

    def __init__(self, pid: int) -> None:
        self.process, self.seen = psutil.Process(pid), [(0.0, 0.0)]
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()

    def stop(self) -> None:
        self.stopped.set()
        self.thread.join()

    def _watch(self) -> None:
        while not self.stopped.wait(0.2):
            try:
                below = [child.memory_info().rss / 1e6 for child in self.process.children(recursive=True)]
                self.seen.append((self.process.memory_info().rss / 1e6, max(below, default=0.0)))
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue


def items(scratch: Path, count: int, against: Path | None) -> float:
    """JPEGs with titles, as UPMC Food-101 has 90,686, through two workers; the same by an earlier commit's code.

    Returns the seconds that today's code took.
    """
    (scratch / "images").mkdir()
    rng = np.random.default_rng(0)
    print(f"generating {count:,} JPEGs of 256 pixels ...", flush=True)
    with (scratch / "table.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["title", "path", "class"])
        for number in range(count):
            low = Image.fromarray(rng.integers(0, 256, (16, 16, 3)).astype(np.uint8))
            low.resize((256, 256), Image.Resampling.BICUBIC).save(scratch / "images" / f"{number}.jpg", quality=85)
            rows.writerow([f"dish {number} of the day", f"images/{number}.jpg", number % 101])
    columns = ("--text-column", "title", "--image-column", "path", "--label-column", "class")
    common = (str(scratch / "table.csv"), *columns, "--encoders", "tiny", "--workers", "2", "--features")
    runs: Sequence[tuple[str, Path]] = [("now", HERE), *([("before", against)] if against else [])]
    clock = 0.0
    for name, checkout in runs:
        cost = extraction(checkout, *common, str(scratch / name))
        print(
            f"{name:<7} {count:,} JPEGs with titles, 2 workers: {cost.clock:.0f} s, {cost.processor:.0f} s of "
            f"processors, {count / cost.clock:,.0f} samples/s; main {cost.main:,.0f} MB, "
            f"largest worker {cost.child:,.0f} MB",
            flush=True,
        )
        if name == "now":
            clock = cost.clock
            again = extraction(checkout, *common, str(scratch / name))
            print(f"        again, finished: {again.clock:.1f} s, {again.processor:.1f} s of processors", flush=True)
    return clock


def texts(scratch: Path, count: int) -> None:
    """Texts of one token, no two the same: whether the client grows with what is done, and how fast a rerun answers."""
    table = pa.table({"text": [f"{number:07d}" for number in range(count)], "label": np.arange(count) % 10})
    pq.write_table(table, scratch / "texts.parquet")
    columns = ("--text-column", "text", "--label-column", "label", "--pool", "mean", "--encoders", "tiny")
    common = (str(scratch / "texts.parquet"), *columns, "--workers", "2", "--features", str(scratch / "features"))
    cost = extraction(HERE, *common)
    print(
        f"{count:,} texts of one token, 2 workers: {cost.clock:.0f} s, {cost.processor:.0f} s of processors; main "
        f"{cost.quarter:,.0f} MB after a quarter of the time, {cost.last:,.0f} MB at the end, most {cost.main:,.0f} MB",
        flush=True,
    )
    again = extraction(HERE, *common)
    print(f"again, finished: {again.clock:.1f} s, {again.processor:.1f} s of processors", flush=True)
