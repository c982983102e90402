"""How running work looks: bars on a terminal, plain lines off it, always on stderr so that stdout stays data."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from .pipeline.engine.events import Event, Finished, Note, Planned, SegmentWritten, WorkerReport

LINE_EVERY_SECONDS = 5.0
if TYPE_CHECKING:
    from .pipeline.dry_run import Forecast

OFF_TERMINAL_WIDTH = 160
UNITS = ("B", "kB", "MB", "GB", "TB")


class ExtractionDisplay:
    """A listener for the pipeline's events; use it as a context manager."""

    def __init__(self) -> None:
        self.console = wide_console(stderr=True)
        self.bars = Progress(
            TextColumn("{task.description:>8}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self.live = self.console.is_terminal
        self.task: TaskID | None = None
        self.samples = self.done = self.there = self.failed = 0
        self.began = self.last_line = 0.0

    def __enter__(self) -> ExtractionDisplay:
        if self.live:
            self.bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.bars.stop()

    def __call__(self, event: Event) -> None:
        match event:
            case Planned():
                self._planned(event)
            case SegmentWritten():
                self._written(event)
            case Finished():
                self._finished(event)
            case Note():
                self.console.print(event.text)

    def summary(self, stores: Sequence[Finished]) -> None:
        """A closing table, one row a modality."""
        table = Table(box=box.SIMPLE)
        for name in ("modality", "samples", "failed", "missing", "tokens", "written", "samples/s", "store", "version"):
            table.add_column(name, justify="left" if name in ("modality", "store") else "right", overflow="fold")
        for store in stores:
            rate = f"{store.encoded / max(store.seconds, 1e-9):,.0f}" if store.encoded else "there"
            counts = (f"{store.samples:,}", str(store.failed), str(store.missing), f"{store.tokens:,}")
            name = store.store.rsplit("/", 1)[-1]
            table.add_row(store.modality, *counts, in_bytes(store.bytes), rate, name, str(store.version))
        self.console.print(table)
        if any(store.failed for store in stores):
            self.console.print(
                "`pgm cache info` lists failed items with their reasons; --retry-failed tries them again."
            )

    def _planned(self, plan: Planned) -> None:
        weights = " (random weights, not pretrained)" if plan.random_weights else ""
        self.console.print(
            f"{plan.modality}: {plan.encoder}{weights}, {plan.samples:,} samples"
            + (f", {plan.held:,} there already" if plan.held else "")
            + (
                f", {plan.pending:,} to encode"
                + (f" ({plan.distinct:,} sources, each once)" if plan.distinct < plan.pending else "")
                + f": about {plan.tokens:,} tokens of {plan.dim}, {in_bytes(plan.bytes)} in {plan.segments} segments"
                if plan.pending
                else ""
            )
        )
        self.samples = plan.pending
        self.done = self.there = self.failed = 0
        self.began = self.last_line = time.monotonic()
        if self.live and plan.pending:
            self.task = self.bars.add_task(plan.modality, total=plan.pending, rate="")

    def _written(self, segment: SegmentWritten) -> None:
        self.done += segment.samples
        self.there += segment.samples if segment.there else 0
        self.failed += segment.failures
        now = time.monotonic()
        rate = (self.done - self.there) / max(now - self.began, 1e-9)
        line = f"{rate:,.0f} samples/s" + (f", {self.failed} failed" if self.failed else "")
        if self.task is not None:
            self.bars.update(self.task, completed=self.done, rate=line)
        elif now - self.last_line >= LINE_EVERY_SECONDS:
            self.last_line = now
            left = (self.samples - self.done) / rate if rate else float("inf")
            print(f"{segment.modality}: {self.done:,} of {self.samples:,}, {line}, {left:.0f} s left", file=sys.stderr)

    def _finished(self, store: Finished) -> None:
        if self.task is not None:
            self.bars.remove_task(self.task)
            self.task = None
        failed = f", {store.failed} failed" if store.failed else ""
        said = f"done in {store.seconds:.1f} s" if store.encoded else "already there"
        self.console.print(f"{store.modality}: {said}{failed} -> {store.store}")
        for worker in store.workers:
            self.console.print(f"  {worker_line(worker)}")


def worker_line(report: WorkerReport) -> str:
    """Where a worker's time went, in shares of all that was counted."""
    waited = {"reading": report.read, "decoding": report.decode, "writing": report.write, "a task": report.idle}
    total = max(report.encode + sum(waited.values()), 1e-9)
    shares = ", ".join(f"{seconds / total:.0%} for {what}" for what, seconds in waited.items())
    return f"{report.worker}: {report.samples:,} samples, encoding {report.encode / total:.0%}, waiting {shares}"


def forecast_table(rows: Sequence[Forecast], workers: int) -> None:
    """`pgm extract --dry-run` for people, on stdout."""
    table = Table(title="Nothing is written. What extraction would take:", title_justify="left", box=box.SIMPLE)
    for name in ("modality", "encoder", "samples", "tokens", "longest", "D", "size", "segments", "time"):
        table.add_column(name, justify="left" if name in ("modality", "encoder") else "right")
    for row in rows:
        samples = f"{row.samples:,}" + (f" ({row.unusable} of {row.probed} tried unusable)" if row.unusable else "")
        took = (
            "already there" if row.state == "complete" else "unknown" if row.seconds is None else in_time(row.seconds)
        )
        table.add_row(
            row.modality,
            row.encoder + (" (random weights)" if row.random_weights else ""),
            samples,
            f"~{row.tokens:,}",
            str(row.longest),
            str(row.dim),
            in_bytes(row.bytes),
            str(row.segments),
            took,
        )
    out = wide_console()
    out.print(table)
    free = "" if rows[0].free is None else f"; {in_bytes(rows[0].free)} free on the disk"
    memory = in_bytes(max(row.memory for row in rows))
    out.print(
        f"{workers} workers, each with at most {memory} beside its model{free}. Tokens and sizes are estimated from "
        f"{max(row.probed for row in rows)} samples a modality, times from one batch each."
    )


def wide_console(stderr: bool = False) -> Console:
    """A console as wide as its terminal; off a terminal wide enough that no table is folded."""
    console = Console(stderr=stderr, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = OFF_TERMINAL_WIDTH
    return console


def in_time(seconds: float) -> str:
    """A duration for people: 40 s, 3 min, 2.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def in_bytes(count: float) -> str:
    """A size for people: 1.2 GB."""
    for unit in UNITS:
        if count < 1000 or unit == UNITS[-1]:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")
