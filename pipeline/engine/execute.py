"""Who makes the segments: this process (`serial`, also the test path) or Dask workers (see cluster.py)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from ...cache.errors import UserError
from ..encoders import FrozenEncoder
from ..encoders.base import resolve_device
from ..encoders.spec import Device
from .events import Listener
from .worker import Job, Made, Task, make_segment


class Executor(Protocol):
    """Runs a job's tasks in any order, yielding each result as it comes."""

    def run(self, job: Job, tasks: Iterable[Task], encoder: FrozenEncoder, listen: Listener) -> Iterator[Made]:
        """Make the segments; tasks are taken as workers become free. `encoder` is the one the plan was made with, for
        executors that run in this process."""

    def device_kind(self, device: Device) -> str:
        """ "cpu" or "cuda": what an encoder with `--device device` will run on. Raises UserError where that differs
        from worker to worker."""

    def close(self) -> None:
        """Give back what the executor holds."""


class SerialExecutor:
    """One segment after another in this process, with the encoder the plan was made with."""

    def run(self, job: Job, tasks: Iterable[Task], encoder: FrozenEncoder, listen: Listener) -> Iterator[Made]:
        """Make the segments in order."""
        for task in tasks:
            yield make_segment(job, encoder, task)

    def device_kind(self, device: Device) -> str:
        """What this process would use."""
        return resolve_device(device).type

    def close(self) -> None:
        """Nothing is held."""


def make_executor(
    name: str, workers: int | None = None, scheduler: str | None = None, scheduler_file: str | None = None
) -> Executor:
    """The executor called `name`: "serial" or "dask"."""
    if name == "serial":
        return SerialExecutor()
    if name == "dask":
        # distributed takes half a second to import, which a serial run or a finished store need not pay.
        from .cluster import DaskExecutor

        return DaskExecutor(workers, scheduler, scheduler_file)
    raise UserError(f"--executor {name} is not known: use serial or dask.")
