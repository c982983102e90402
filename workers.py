"""Dask workers as both rooms use them: local processes, one a GPU where there are GPUs, or a running scheduler's.

Scheduler, workers and dashboard of a local cluster listen on loopback alone. On CPUs the workers are forked from one
process that has imported what they need (multiprocessing's fork server): torch and transformers take four seconds of a
core to import, which each worker of its own would pay.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing import forkserver
from types import TracebackType
from typing import Any

import dask
import torch
from distributed import Client, LocalCluster, Nanny, Scheduler, SpecCluster

from .cache.errors import RunFailed, UserError

LOOPBACK = "127.0.0.1"
# Of glibc's mallopt.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


class Workers:
    """`count` local processes of one thread each, or the workers of a running scheduler; they start when first needed.

    scheduler: its address, tcp://host:port. scheduler_file: the JSON file `dask scheduler --scheduler-file` writes.
    imports: modules that local workers on CPUs find imported when they start.
    `close`, or leaving a with block, stops the local cluster, or lets go of the scheduler.
    Raises UserError for a count below one, for both ways of naming a scheduler, and where none answers.
    """

    def __init__(
        self,
        count: int | None = None,
        scheduler: str | None = None,
        scheduler_file: str | None = None,
        imports: Sequence[str] = (),
    ) -> None:
        if count is not None and count < 1:
            raise UserError(f"--workers {count}: at least one worker is needed.")
        if scheduler and scheduler_file:
            raise UserError("--scheduler and --scheduler-file were both given: they name one scheduler; choose one.")
        self.count: int = default_workers() if count is None else count
        self.scheduler = scheduler
        self.scheduler_file = scheduler_file
        self.imports = imports
        self._client: Any = None
        self._cluster: Any = None
        self._stack = ExitStack()

    @property
    def client(self) -> Any:
        """A client of the running cluster, started now if it was not."""
        if self._client is None:
            if self.external:
                self._client = connect(self.scheduler, self.scheduler_file)
            else:
                gpus = visible_gpus()
                with deaf_children():
                    if not gpus:
                        self._stack.enter_context(forked(self.imports))
                    self._cluster = local_cluster(self.count, gpus)
                self._client = Client(self._cluster)
            # Last, as each of Dask's parts sets its own: what goes wrong is told once, by this package.
            for name in [name for name in logging.root.manager.loggerDict if name.startswith("distributed")]:
                logging.getLogger(name).setLevel(logging.CRITICAL)
        return self._client

    @property
    def external(self) -> bool:
        """Whether the workers are those of a running scheduler."""
        return bool(self.scheduler or self.scheduler_file)

    @property
    def dashboard(self) -> str | None:
        """The address of a local cluster's dashboard, where bokeh is installed to serve it."""
        local = self._cluster is not None and importlib.util.find_spec("bokeh") is not None
        return str(self._client.dashboard_link) if local else None

    def close(self) -> None:
        """Stop the local cluster, or let go of the scheduler."""
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._cluster is not None:
            self._cluster.close()
            self._cluster = None
        self._stack.close()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def keep_freed_memory() -> None:
    """Let this process's allocator keep what is freed, up to 256 MB, for the next tensors; called in a worker's tasks.

    Dask starts its workers with a trim threshold of 64 kB, so that every freed activation goes back to the system and
    comes again page by page: training small models took three times as long (107 against 327 samples/s). Where the C
    library is not glibc nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, size in ((M_TRIM_THRESHOLD, 256 << 20), (M_MMAP_THRESHOLD, 32 << 20)):
            mallopt(parameter, size)


@contextmanager
def forked(imports: Sequence[str]) -> Iterator[None]:
    """Dask's worker processes are forks of one that has imported these modules, also those started later here."""
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        # What Dask would set for a process of its own, and what is read by the libraries when they are imported.
        with environment(dask.config.get("distributed.nanny.pre-spawn-environ")):
            multiprocessing.get_context("forkserver").set_forkserver_preload(["distributed.nanny", *imports])
            forkserver.ensure_running()
        yield


@contextmanager
def environment(variables: Mapping[str, Any]) -> Iterator[None]:
    """Environment variables for what is started here."""
    before = dict(os.environ)
    os.environ.update({name: str(value) for name, value in variables.items()})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


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
            # Its own default for the dashboard is every interface.
            return cuda.LocalCUDACluster(
                gpus[:workers], threads_per_worker=1, host=LOOPBACK, dashboard_address=f"{LOOPBACK}:0", **quiet
            )
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
            f"Dask could not start {workers} worker processes: {error} A script of your own must start "
            "workers under `if __name__ == '__main__':`; --executor serial and --workers 1 need none."
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
