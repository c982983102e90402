"""Shards on Dask workers: a LocalCluster of processes, or any running scheduler by its address.

The encoder is built once per worker by a plugin; a task carries only its shard's number; a bounded window of futures
keeps the scheduler small. A lost worker costs the shard it was writing, which Dask gives to another.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from distributed import Client, KilledWorker, LocalCluster, WorkerPlugin, as_completed, get_worker

from ..cache.errors import RunFailed, UserError
from .encoders import FrozenEncoder
from .job import EncodeJob, ShardResult, encode_shard

TASKS_PER_WORKER = 2


class DaskExecutor:
    """Shards on Dask workers: `workers` local processes, or those of the scheduler at `address`.

    The cluster starts with the first job that has work to do.
    """

    def __init__(self, workers: int | None = None, address: str | None = None) -> None:
        if workers is not None and workers < 1:
            raise UserError(f"--workers {workers}: at least one worker is needed.")
        self.workers: int = default_workers() if workers is None else workers
        self.address = address
        self._client: Any = None
        self._cluster: Any = None

    def run(self, job: EncodeJob, shards: Sequence[int], encoder: FrozenEncoder) -> Iterator[ShardResult]:
        """Encode `shards`; `encoder` stays with the caller, as each worker builds its own."""
        client = self._start()
        plugin = _EncoderPlugin(job)
        client.register_plugin(plugin)
        waiting = iter(shards)
        window = TASKS_PER_WORKER * max(1, len(client.scheduler_info(n_workers=-1)["workers"]))
        running = as_completed()
        for _, shard in zip(range(window), waiting, strict=False):
            running.add(self._submit(plugin.name, shard))
        try:
            for future in running:
                yield future.result()
                if (following := next(waiting, None)) is not None:
                    running.add(self._submit(plugin.name, following))
        except KilledWorker as error:
            raise RunFailed(
                f"Workers died again and again on one shard of {job.modality} ({error.args[0]}). Finished shards are "
                "kept; if memory ran out, try fewer --workers or a smaller --batch-size, then the same command."
            ) from error
        finally:
            running.clear()
            if client.status == "running":
                client.unregister_worker_plugin(plugin.name)

    def _submit(self, plugin: str, shard: int) -> Any:
        # Not pure: a rerun must not be answered from a result some earlier client left on the scheduler.
        return self._client.submit(_encode_on_worker, plugin, shard, pure=False)

    def _start(self) -> Any:
        if self._client is not None:
            return self._client
        if self.address:
            try:
                self._client = Client(self.address, timeout="10s")
            except (OSError, ValueError) as error:
                raise UserError(f"No Dask scheduler answers at {self.address}: {error}") from error
            return self._client
        # One thread a worker: decoding has threads of its own, and zarr-python and torch are told to add none.
        try:
            self._cluster = LocalCluster(
                n_workers=self.workers,
                threads_per_worker=1,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.ERROR,
            )
        except RuntimeError as error:
            raise RunFailed(
                f"Dask could not start {self.workers} worker processes: {error} In a script of your own, call extract "
                "under `if __name__ == '__main__':`; --executor serial needs no workers."
            ) from error
        self._client = Client(self._cluster)
        return self._client

    @property
    def dashboard(self) -> str | None:
        """The address of Dask's dashboard while a cluster runs."""
        return str(self._client.dashboard_link) if self._client is not None else None

    def close(self) -> None:
        """Stop the local cluster, or let go of the scheduler."""
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._cluster is not None:
            self._cluster.close()
            self._cluster = None


def default_workers() -> int:
    """One worker a GPU, else one a core this process may use."""
    return torch.cuda.device_count() or len(os.sched_getaffinity(0))


class _EncoderPlugin(WorkerPlugin):
    """Holds a job and its encoder in a worker process. Setup stays light: the encoder is built by the first task."""

    def __init__(self, job: EncodeJob) -> None:
        self.job = job
        self.name = f"pgm-{job.store}"
        self.encoder: FrozenEncoder | None = None

    def encode(self, shard: int) -> ShardResult:
        if self.encoder is None:
            self.encoder = self.job.build()
        return encode_shard(self.job, self.encoder, shard)

    def teardown(self, worker: Any) -> None:
        self.encoder = None


def _encode_on_worker(plugin: str, shard: int) -> ShardResult:
    held: _EncoderPlugin = get_worker().plugins[plugin]
    return held.encode(shard)
