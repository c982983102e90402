"""Shards on Dask workers: local processes, one a GPU where there are GPUs, or any running scheduler.

The encoder is built once per worker by a plugin; a task carries only its shard's number; a bounded window of futures
keeps the scheduler small. A lost worker costs the shard it was writing, which Dask gives to another. Scheduler, workers
and dashboard of a local cluster listen on loopback alone.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from distributed import (
    Client,
    KilledWorker,
    LocalCluster,
    Nanny,
    Scheduler,
    SpecCluster,
    WorkerPlugin,
    as_completed,
    get_worker,
)
from distributed.client import FutureCancelledError
from distributed.comm import CommClosedError

from ..cache.errors import RunFailed, UserError
from .encoders import FrozenEncoder
from .events import Listener, Note
from .job import EncodeJob, ShardResult, encode_shard

TASKS_PER_WORKER = 2
LOOPBACK = "127.0.0.1"


class DaskExecutor:
    """Shards on `workers` local processes, or on those of a running scheduler.

    scheduler: its address, tcp://host:port. scheduler_file: the JSON file `dask scheduler --scheduler-file` writes.
    The cluster starts with the first job that has work to do.
    """

    def __init__(
        self, workers: int | None = None, scheduler: str | None = None, scheduler_file: str | None = None
    ) -> None:
        if workers is not None and workers < 1:
            raise UserError(f"--workers {workers}: at least one worker is needed.")
        if scheduler and scheduler_file:
            raise UserError("--scheduler and --scheduler-file were both given: they name one scheduler; choose one.")
        self.workers: int = default_workers() if workers is None else workers
        self.scheduler = scheduler
        self.scheduler_file = scheduler_file
        self._client: Any = None
        self._cluster: Any = None

    def run(
        self, job: EncodeJob, shards: Sequence[int], encoder: FrozenEncoder, listen: Listener
    ) -> Iterator[ShardResult]:
        """Encode `shards`; `encoder` stays with the caller, as each worker builds its own."""
        client = self._start(listen)
        plugin = _EncoderPlugin(job)
        client.register_plugin(plugin)
        waiting = iter(shards)
        found = len(client.scheduler_info(n_workers=-1)["workers"])
        if not found:
            listen(Note(f"the scheduler has no worker yet; {job.modality} begins when one joins"))
        running = as_completed()
        for _, shard in zip(range(TASKS_PER_WORKER * max(1, found)), waiting, strict=False):
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
        except (FutureCancelledError, CommClosedError) as error:
            raise RunFailed(
                f"The Dask scheduler at {client.scheduler.address} was lost. Finished shards are kept: the same "
                "command continues with another scheduler, or without one."
            ) from error
        finally:
            running.clear()
            # After Ctrl-C the workers, which had it too, may be gone before this is said to them.
            with suppress(CommClosedError, OSError, RuntimeError):
                if client.status == "running":
                    client.unregister_worker_plugin(plugin.name)

    def _submit(self, plugin: str, shard: int) -> Any:
        # Not pure: a rerun must not be answered from a result some earlier client left on the scheduler.
        return self._client.submit(_encode_on_worker, plugin, shard, pure=False)

    def _start(self, listen: Listener) -> Any:
        if self._client is None:
            if self.scheduler or self.scheduler_file:
                self._client = connect(self.scheduler, self.scheduler_file)
            else:
                with deaf_children():
                    self._cluster = local_cluster(self.workers, visible_gpus())
                self._client = Client(self._cluster)
                if importlib.util.find_spec("bokeh") is not None:
                    listen(Note(f"Dask dashboard: {self._client.dashboard_link} (this machine only)"))
            # Last, as each of Dask's parts sets its own: what goes wrong is told once, by this package.
            for name in [name for name in logging.root.manager.loggerDict if name.startswith("distributed")]:
                logging.getLogger(name).setLevel(logging.CRITICAL)
        return self._client

    def close(self) -> None:
        """Stop the local cluster, or let go of the scheduler."""
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._cluster is not None:
            self._cluster.close()
            self._cluster = None


def connect(address: str | None, file: str | None) -> Any:
    """A client of a running scheduler. Raises UserError where none answers."""
    try:
        return Client(address, timeout="10s") if address else Client(scheduler_file=file, timeout="10s")
    except (OSError, ValueError) as error:
        raise UserError(
            f"No Dask scheduler answers at {address or file}: {error}. Start one with `dask scheduler`, and workers "
            "with `dask worker ADDRESS`, in this environment."
        ) from error


def local_cluster(workers: int, gpus: Sequence[str]) -> Any:
    """`workers` processes of one thread each; with GPUs each sees one of them, in turn. Raises RunFailed.

    With GPUs the cluster is dask-cuda's where that is installed.
    """
    quiet = {"silence_logs": logging.CRITICAL}
    try:
        if not gpus:
            return LocalCluster(
                n_workers=workers, threads_per_worker=1, host=LOOPBACK, dashboard_address=f"{LOOPBACK}:0", **quiet
            )
        if importlib.util.find_spec("dask_cuda") is not None:
            cuda = importlib.import_module("dask_cuda")
            return cuda.LocalCUDACluster(gpus[:workers], threads_per_worker=1, host=LOOPBACK, **quiet)
        spec = {
            worker: {
                "cls": Nanny,
                "options": {"nthreads": 1, "host": LOOPBACK, "env": {"CUDA_VISIBLE_DEVICES": gpus[worker % len(gpus)]}},
            }
            for worker in range(workers)
        }
        scheduler = {"cls": Scheduler, "options": {"host": LOOPBACK, "dashboard_address": f"{LOOPBACK}:0"}}
        return SpecCluster(workers=spec, scheduler=scheduler, **quiet)
    except RuntimeError as error:
        raise RunFailed(
            f"Dask could not start {workers} worker processes: {error} In a script of your own, call extract under "
            "`if __name__ == '__main__':`; --executor serial needs no workers."
        ) from error


@contextmanager
def deaf_children() -> Iterator[None]:
    """Processes started here ignore Ctrl-C: a terminal sends it to all, and it is this process that ends the others."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def visible_gpus() -> list[str]:
    """The names CUDA_VISIBLE_DEVICES has for this process's GPUs, one each."""
    count = torch.cuda.device_count()
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return named[:count] or [str(number) for number in range(count)]


def default_workers() -> int:
    """One worker a GPU, else one a core this process may use."""
    return torch.cuda.device_count() or len(os.sched_getaffinity(0))


class _EncoderPlugin(WorkerPlugin):
    """Holds a job and its encoder in a worker process. Setup stays light: the encoder is built by the first task."""

    def __init__(self, job: EncodeJob) -> None:
        self.job = job
        self.name = f"pgm-{job.store}"
        self.encoder: FrozenEncoder | None = None

    def setup(self, worker: Any) -> None:
        # A scheduler's workers may run several threads; one encoder works for one shard at a time.
        self.lock = threading.Lock()

    def encode(self, shard: int) -> ShardResult:
        with self.lock:
            if self.encoder is None:
                self.encoder = self.job.build()
            return encode_shard(self.job, self.encoder, shard)

    def teardown(self, worker: Any) -> None:
        self.encoder = None


def _encode_on_worker(plugin: str, shard: int) -> ShardResult:
    held: _EncoderPlugin = get_worker().plugins[plugin]
    return held.encode(shard)
