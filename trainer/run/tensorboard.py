"""TensorBoard, when it is asked for and installed: every scalar of every epoch, one folder a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...cache.errors import UserError
from .events import EpochFinished, Event, Listener, RunFinished, RunStarted


class TensorBoard:
    """A listener that writes event files under `folder`/<run>."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError("--tensorboard needs a package that is not installed: pip install tensorboard") from None
        self.open = SummaryWriter
        self.folder = folder
        self.writer: Any = None
        self.epochs = 0

    def __call__(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self.writer, self.epochs = self.open(str(self.folder / event.run)), event.finished_epochs
        elif isinstance(event, EpochFinished) and self.writer is not None:
            self.epochs += 1
            for group, values in (("loss", event.losses), ("val", event.val)):
                for name, value in values.items():
                    self.writer.add_scalar(f"{group}/{event.stage}/{name}", value, self.epochs)
            self.writer.add_scalar("speed/samples_per_second", event.samples_per_second, self.epochs)
            self.writer.add_scalar("speed/waiting", event.waiting, self.epochs)
        elif isinstance(event, RunFinished):
            self.close()

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None


@contextmanager
def listeners(first: Listener, folder: Path | None) -> Iterator[Listener]:
    """`first` alone, or with TensorBoard beside it when a folder is given."""
    if folder is None:
        yield first
        return
    board = TensorBoard(folder)

    def both(event: Event) -> None:
        first(event)
        board(event)

    try:
        yield both
    finally:
        board.close()
