"""How a table looks while it is made: a bar with the time left on a terminal, a line a run off it, always on stderr."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .plan import Cell
from .runner import Outcome


class TableDisplay:
    """Takes outcomes as they come; use it as a context manager."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self.live = self.console.is_terminal
        self.bar = Progress(
            TextColumn("runs"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=self.console
        )
        self.task = self.bar.add_task("runs", total=None)
        self.began = time.perf_counter()

    def __enter__(self) -> TableDisplay:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.bar.stop()

    def announce(self, title: str, runs: int, missing: Sequence[Cell]) -> None:
        """Say what is there and what is to be done."""
        to_train = sum(not cell.run.finished for cell in missing)
        to_evaluate = len(missing) - to_train
        there = f"{runs - to_train} of {runs} runs are there"
        wanted = [f"{count} to {what}" for count, what in ((to_train, "train"), (to_evaluate, "evaluate")) if count]
        self.console.print(", ".join([f"{title}: {there}", *wanted]))
        if self.live and missing:
            self.bar.update(self.task, total=len(missing), completed=0)
            self.bar.start()

    def __call__(self, outcome: Outcome, done: int, total: int) -> None:
        cell = outcome.cell
        if outcome.error is not None:
            text = f"FAILED: {outcome.error}"
        else:
            test = cell.run.test
            name = cell.resolved.data.task.primary
            text = f"{name} {test[name]:.4f}, {outcome.seconds:.1f} s" if test else f"{outcome.seconds:.1f} s"
        left = (time.perf_counter() - self.began) / done * (total - done)
        tail = "" if self.live or done == total else f", about {left:.0f} s left"
        where = "" if cell.request.split is None else f", {cell.request.split}"
        self.console.print(f"{done}/{total} {cell.row.label}{where}, seed {cell.seed}: {text}{tail}", markup=False)
        if self.live:
            self.bar.update(self.task, completed=done)
