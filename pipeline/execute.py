"""Who runs the shards: this process (`serial`, also the test path) or Dask workers (see cluster.py)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from ..cache.errors import UserError
from .encoders import FrozenEncoder
from .encoders.base import resolve_device
from .encoders.spec import Device
from .events import Listener
from .job import EncodeJob, ShardResult, encode_shard


class Executor(Protocol):
    """Runs a job's shards in any order, yielding each result as it comes."""

    def run(
        self, job: EncodeJob, shards: Sequence[int], encoder: FrozenEncoder, listen: Listener
    ) -> Iterator[ShardResult]:
        """Encode `shards`; `encoder` is the one the plan was made with, for executors that run in this process."""

    def device_kind(self, device: Device) -> str:
        """ "cpu" or "cuda": what an encoder with `--device device` will run on. Raises UserError where that differs
        from worker to worker."""

    def close(self) -> None:
        """Give back what the executor holds."""


class SerialExecutor:
    """One shard after another in this process, with the encoder the plan was made with."""

    def run(
        self, job: EncodeJob, shards: Sequence[int], encoder: FrozenEncoder, listen: Listener
    ) -> Iterator[ShardResult]:
        """Encode `shards` in order."""
        for shard in shards:
            yield encode_shard(job, encoder, shard)

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
        # distributed takes half a second to import, which a serial run or a complete store need not pay.
        from .cluster import DaskExecutor

        return DaskExecutor(workers, scheduler, scheduler_file)
    raise UserError(f"--executor {name} is not known: use serial or dask.")
