"""Segments on Dask workers: local processes, one a GPU where there are GPUs, or any running scheduler.

The encoder is built once per worker by a plugin; a task carries its own items; a bounded window of futures keeps the
scheduler small. Workers write their segments themselves, and a lost one costs the segment it was making, which Dask
gives to another.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from distributed import KilledWorker, WorkerPlugin, as_completed, get_worker
from distributed.client import FutureCancelledError
from distributed.comm import CommClosedError

from ...cache.errors import RunFailed, UserError
from ...workers import Workers, keep_freed_memory
from ..encoders import FrozenEncoder
from ..encoders.base import resolve_device
from ..encoders.spec import Device
from .events import Listener, Note
from .worker import Job, Made, Task, make_segment

TASKS_PER_WORKER = 2


class DaskExecutor:
    """Segments on `workers` local processes, or on those of a running scheduler.

    See `Workers`; the cluster starts with the first job that has work to do.
    """

    def __init__(
        self, workers: int | None = None, scheduler: str | None = None, scheduler_file: str | None = None
    ) -> None:
        self.workers = Workers(workers, scheduler, scheduler_file)
        self._announced = False

    def run(self, job: Job, tasks: Iterable[Task], encoder: FrozenEncoder, listen: Listener) -> Iterator[Made]:
        """Make the segments; `encoder` stays with the caller, as each worker builds its own."""
        client = self._start(listen)
        plugin = _EncoderPlugin(job)
        client.register_plugin(plugin)
        waiting = iter(tasks)
        found = len(client.scheduler_info(n_workers=-1)["workers"])
        if not found:
            listen(Note(f"the scheduler has no worker yet; {job.identity.modality} begins when one joins"))
        running = as_completed()
        for _, task in zip(range(TASKS_PER_WORKER * max(1, found)), waiting, strict=False):
            running.add(self._submit(plugin.name, task))
        try:
            for future in running:
                yield future.result()
                if (following := next(waiting, None)) is not None:
                    running.add(self._submit(plugin.name, following))
        except KilledWorker as error:
            raise RunFailed(
                f"Workers died again and again on one segment of {job.identity.modality} ({error.args[0]}). Finished "
                "segments are kept; if memory ran out, try fewer --workers or a smaller --batch-size, then the same "
                "command."
            ) from error
        except (FutureCancelledError, CommClosedError) as error:
            raise RunFailed(
                f"The Dask scheduler at {client.scheduler.address} was lost. Finished segments are kept: the same "
                "command continues with another scheduler, or without one."
            ) from error
        finally:
            running.clear()
            # After Ctrl-C the workers, which had it too, may be gone before this is said to them.
            with suppress(CommClosedError, OSError, RuntimeError):
                if client.status == "running":
                    client.unregister_worker_plugin(plugin.name)

    def device_kind(self, device: Device) -> str:
        """What the workers of a running scheduler would use; local ones, and those still to join, what this process
        would."""
        if not self.workers.external or device != "auto":
            return resolve_device(device).type
        kinds = set(self.workers.client.run(_device_kind, device).values())
        if len(kinds) > 1:
            raise UserError(
                "Some of the scheduler's workers have a GPU and some have none, so that --dtype auto would not mean "
                "one thing. Say which numbers you want: --dtype float32, or --dtype bfloat16."
            )
        return str(kinds.pop()) if kinds else resolve_device(device).type

    def _submit(self, plugin: str, task: Task) -> Any:
        # Not pure: a rerun must not be answered from a result some earlier client left on the scheduler.
        return self.workers.client.submit(_make_on_worker, plugin, task, pure=False)

    def _start(self, listen: Listener) -> Any:
        client = self.workers.client
        if not self._announced and self.workers.dashboard:
            listen(Note(f"Dask dashboard: {self.workers.dashboard} (this machine only)"))
        self._announced = True
        return client

    def close(self) -> None:
        """Stop the local cluster, or let go of the scheduler."""
        self.workers.close()


class _EncoderPlugin(WorkerPlugin):
    """Holds a job and its encoder in a worker process. Setup stays light: the encoder is built by the first task."""

    def __init__(self, job: Job) -> None:
        self.job = job
        # Of this run alone: another client of the scheduler may be making the same store.
        self.name = f"pgm-{job.identity.digest}-{secrets.token_hex(4)}"
        self.encoder: FrozenEncoder | None = None

    def setup(self, worker: Any) -> None:
        # A scheduler's workers may run several threads; one encoder works for one segment at a time.
        self.lock = threading.Lock()

    def make(self, task: Task) -> Made:
        with self.lock:
            if self.encoder is None:
                keep_freed_memory()
                self.encoder = self.job.build()
            return make_segment(self.job, self.encoder, task)

    def teardown(self, worker: Any) -> None:
        self.encoder = None


def _device_kind(device: Device) -> str:
    return resolve_device(device).type


def _make_on_worker(plugin: str, task: Task) -> Made:
    held: _EncoderPlugin = get_worker().plugins[plugin]
    return held.make(task)
