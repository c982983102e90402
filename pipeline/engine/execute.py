"""Who makes the segments: this process (`serial`, also the test path) or Dask workers (see cluster.py)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from ...cache.errors import UserError
from ..encoders import EncoderSpec, FrozenEncoder, build_encoder
from ..encoders.base import resolve_device
from ..encoders.spec import Device
from .events import Listener
from .job import Job, Made, Task
from .worker import Pipeline


class Executor(Protocol):
    """Runs a job's tasks in any order, yielding each result as it comes."""

    def encoder(self, spec: EncoderSpec) -> FrozenEncoder:
        """An encoder to plan with: what it is called, how wide and how long its tokens are."""

    def run(self, job: Job, tasks: Iterator[Task], listen: Listener) -> Iterator[Made]:
        """Make the segments; tasks are taken as workers become free."""

    def device_kind(self, device: Device) -> str:
        """ "cpu" or "cuda": what an encoder with `--device device` will run on. Raises UserError where that differs
        from worker to worker."""

    def close(self) -> None:
        """Give back what the executor holds."""


class SerialExecutor:
    """This process is the only worker, with the encoder the plan was made with."""

    def encoder(self, spec: EncoderSpec) -> FrozenEncoder:
        """The encoder that will run."""
        self._built = build_encoder(spec)
        return self._built

    def run(self, job: Job, tasks: Iterator[Task], listen: Listener) -> Iterator[Made]:
        """Make the segments."""
        yield from Pipeline(job, self._built, lambda wait: next(tasks, None)).run()

    def device_kind(self, device: Device) -> str:
        """What this process would use."""
        return resolve_device(device).type

    def close(self) -> None:
        """Let the encoder go."""
        vars(self).pop("_built", None)


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
