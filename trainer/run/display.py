"""How training looks: a live line a stage on a terminal, plain lines off it, always on stderr."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from .events import BatchFinished, EpochFinished, Event, Note, RunFinished, RunStarted

LINE_EVERY_SECONDS = 2.0
NUMBERS = 3  # digits after the point


class TrainingDisplay:
    """A listener for training events; use it as a context manager."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self.live = self.console.is_terminal
        self.bars = Progress(
            TextColumn("{task.description:>12}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[line]}"),
            console=self.console,
        )
        self.tasks: dict[str, TaskID] = {}
        self.notes: set[str] = set()
        self.last_line = 0.0

    def __enter__(self) -> TrainingDisplay:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.bars.stop()

    def __call__(self, event: Event) -> None:
        match event:
            case RunStarted():
                self._started(event)
            case BatchFinished():
                self._batch(event)
            case EpochFinished():
                self._epoch(event)
            case RunFinished():
                self._finished(event)
            case Note():
                self._note(event)

    def _note(self, note: Note) -> None:
        # Several runs on one dataset have the same notes; once is enough.
        if note.text not in self.notes:
            self.notes.add(note.text)
            self.console.print(f"note: {note.text}")

    def _started(self, run: RunStarted) -> None:
        samples = ", ".join(f"{count:,} {split}" for split, count in run.samples.items())
        self.console.print(
            f"{run.method} on {run.dataset}, seed {run.seed}, run {run.run}: {run.parameters:,} parameters; {samples}; "
            f"{run.device} {run.precision}; {run.feed}"
        )
        if run.finished_epochs:
            self.console.print(f"continuing after epoch {run.finished_epochs} of {run.epochs}")
        if self.live:
            self.bars.start()

    def _batch(self, batch: BatchFinished) -> None:
        if self.live:
            bar = self._bar(batch.stage)
            done = self.bars.tasks[self.bars.task_ids.index(bar)].fields["epochs_done"]
            self.bars.update(bar, completed=done + batch.done / batch.total)

    def _bar(self, stage: str, epochs: int | None = None) -> TaskID:
        if stage not in self.tasks:
            self.tasks[stage] = self.bars.add_task(stage, total=epochs, line="", epochs_done=0)
        return self.tasks[stage]

    def _epoch(self, epoch: EpochFinished) -> None:
        line = epoch_line(epoch)
        if self.live:
            bar = self._bar(epoch.stage, epoch.epochs)
            self.bars.update(bar, total=epoch.epochs, completed=epoch.epoch, epochs_done=epoch.epoch, line=line)
        elif time.monotonic() - self.last_line >= LINE_EVERY_SECONDS or epoch.epoch == epoch.epochs:
            self.last_line = time.monotonic()
            self.console.print(f"{epoch.stage} {line}")

    def _finished(self, run: RunFinished) -> None:
        self.bars.stop()
        for stage in list(self.tasks):
            self.bars.remove_task(self.tasks.pop(stage))
        outcome = "already trained" if run.reused else f"done in {run.seconds:.1f} s"
        self.console.print(f"run {run.run} {outcome}; test: {numbers(run.test)}")


def epoch_line(epoch: EpochFinished) -> str:
    """What one epoch has to say: losses, validation, speed, waiting, time left."""
    parts = [f"{epoch.epoch}/{epoch.epochs}", numbers(epoch.losses)]
    if epoch.val:
        parts.append(f"val {numbers(epoch.val)}{' *' if epoch.best else ''}")
    parts.append(f"{epoch.samples_per_second:,.0f} samples/s, {epoch.waiting:.1%} waiting for data")
    parts.append(f"{epoch.eta:.0f} s left" if epoch.eta >= 1 else "last seconds")
    return " | ".join(parts)


def numbers(values: Mapping[str, float]) -> str:
    """`loss .123 ufc .045`, in the order they come."""
    return " ".join(f"{name} {value:.{NUMBERS}f}" for name, value in values.items())


def results_table(title: str, columns: Mapping[str, Mapping[str, object]]) -> Table:
    """Metrics down, methods across; mean ± deviation for several seeds."""
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    table = Table("", title=title, title_justify="left")
    for label in columns:
        table.add_column(label, justify="right")
    for name in names:
        table.add_row(name, *(cell(column.get(name)) for column in columns.values()))
    return table


def cell(value: object) -> str:
    """A metric for people: a number, or the mean and deviation of several."""
    if isinstance(value, Mapping):
        return f"{value['mean']:.4f} ± {value['std']:.4f}"
    return f"{value:.4f}" if isinstance(value, float) else ""
