"""Segments on Dask workers: local processes, one a GPU where there are GPUs, or any running scheduler.

Each worker process has one pipeline, which a plugin holds and its first task starts. A task hands its items to the
pipeline, leaves its thread to the next one and waits: so that a worker has several segments under way however few
threads it runs. Every worker is kept at `TASKS_PER_WORKER` tasks as workers join and leave. Workers write their
segments themselves, and a lost one costs the segments it was making, which Dask gives to others.
"""

from __future__ import annotations

import itertools
import queue
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from typing import Any

from distributed import KilledWorker, WorkerPlugin, get_worker, secede
from distributed.client import FutureCancelledError
from distributed.comm import CommClosedError

from ...cache.errors import PgMError, RunFailed, UserError
from ...workers import Workers, keep_freed_memory
from ..encoders import EncoderSpec, FrozenEncoder, build_encoder
from ..encoders.base import resolve_device
from ..encoders.spec import Device
from .events import Listener, Note
from .job import Job, Made, Task
from .worker import OPEN_SEGMENTS, Pipeline

TASKS_PER_WORKER = OPEN_SEGMENTS
# Of a task that raised what is no error of ours: a file system that was away, a bug of a library.
RETRIES = 2
LOOK_EVERY_SECONDS = 1.0
# Forked workers have these already: most encoders are transformers' models.
IMPORTED = (__name__, "transformers.modeling_utils")


class DaskExecutor:
    """Segments on `workers` local processes, or on those of a running scheduler.

    See `Workers`; the cluster starts with the first job that has work to do.
    """

    def __init__(
        self, workers: int | None = None, scheduler: str | None = None, scheduler_file: str | None = None
    ) -> None:
        self.workers = Workers(workers, scheduler, scheduler_file, IMPORTED)
        self._announced = False

    def encoder(self, spec: EncoderSpec) -> FrozenEncoder:
        """Built on this process's CPU, whatever the workers have: the caller lets it go when the plan is made."""
        built = build_encoder(replace(spec, device="cpu"))
        # What workers are told is what was asked for.
        built.spec = replace(built.spec, device=spec.device)
        return built

    def run(self, job: Job, tasks: Iterator[Task], listen: Listener) -> Iterator[Made]:
        """Make the segments; each worker builds its own encoder."""
        client = self._start(listen)
        plugin = _PipelinePlugin(job)
        client.register_plugin(plugin)
        window = _Window(client, plugin.name)
        if not window.look():
            listen(Note(f"the scheduler has no worker yet; {job.identity.modality} begins when one joins"))
        try:
            yield from window.run(tasks)
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
            window.clear()
            # After Ctrl-C the workers, which had it too, may be gone before this is said to them.
            with suppress(CommClosedError, OSError, RuntimeError):
                if client.status == "running":
                    client.unregister_worker_plugin(plugin.name)

    def device_kind(self, device: Device) -> str:
        """What the workers of a running scheduler would use; local ones, and those still to join, what this process
        would."""
        if not self.workers.external:
            return resolve_device(device).type
        if device != "auto":
            return device
        kinds = set(self.workers.client.run(_device_kind, device).values())
        if len(kinds) > 1:
            raise UserError(
                "Some of the scheduler's workers have a GPU and some have none, so that --dtype auto would not mean "
                "one thing. Say which numbers you want: --dtype float32, or --dtype bfloat16."
            )
        return str(kinds.pop()) if kinds else resolve_device(device).type

    def _start(self, listen: Listener) -> Any:
        client = self.workers.client
        if not self._announced and self.workers.dashboard:
            listen(Note(f"Dask dashboard: {self.workers.dashboard} (this machine only)"))
        self._announced = True
        return client

    def close(self) -> None:
        """Stop the local cluster, or let go of the scheduler."""
        self.workers.close()


class _Window:
    """Tasks at the workers: `TASKS_PER_WORKER` each of those there are now, given out in turns."""

    def __init__(self, client: Any, plugin: str) -> None:
        self.client, self.plugin = client, plugin
        self.there: list[str] = []
        self.looked = 0.0
        self.given: dict[Any, str] = {}  # future -> the worker it was given to
        self.done: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def look(self) -> list[str]:
        """The addresses of the workers there are."""
        self.looked = time.monotonic()
        self.there = list(self.client.scheduler_info(n_workers=-1)["workers"])
        return self.there

    def run(self, tasks: Iterator[Task]) -> Iterator[Made]:
        """Each task's result as it comes. Raises what a task raised, and what Dask raises where it lost them."""
        task = next(tasks, None)
        while task is not None or self.given:
            while task is not None and (worker := self.free()) is not None:
                self.give(task, worker)
                task = next(tasks, None)
            with suppress(queue.Empty):
                future = self.done.get(timeout=LOOK_EVERY_SECONDS)
                del self.given[future]
                yield result_of(future)
            if time.monotonic() - self.looked > LOOK_EVERY_SECONDS and self.client.status == "running":
                self.look()

    def free(self) -> str | None:
        """The worker with the fewest tasks, where that is not enough. Those of one that left are with others now."""
        load = Counter(self.given.values())
        fewest = min(self.there, key=lambda worker: load[worker], default=None)
        return fewest if fewest is not None and load[fewest] < TASKS_PER_WORKER else None

    def give(self, task: Task, worker: str) -> None:
        """Submit a task to a worker, or to whoever is there when it is not."""
        # Not pure: a rerun must not be answered from a result some earlier client left on the scheduler.
        future = self.client.submit(
            _make_on_worker, self.plugin, task, pure=False, workers=[worker], allow_other_workers=True, retries=RETRIES
        )
        self.given[future] = worker
        future.add_done_callback(self.done.put)

    def clear(self) -> None:
        """Let go of what is still at the workers."""
        for future in self.given:
            future.release()
        self.given.clear()


def result_of(future: Any) -> Made:
    """A finished task's result. Raises its error."""
    made: Made | PgMError = future.result()
    if isinstance(made, PgMError):
        raise made
    return made


class _PipelinePlugin(WorkerPlugin):
    """Holds a job and its pipeline in a worker process. Setup stays light: the encoder is built by the first task."""

    def __init__(self, job: Job) -> None:
        self.job = job
        # Of this run alone: another client of the scheduler may be making the same store.
        self.name = f"pgm-{job.identity.digest}-{secrets.token_hex(4)}"

    def setup(self, worker: Any) -> None:
        self.lock = threading.Lock()
        self.tickets = itertools.count()
        self.tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self.results: dict[int, Future[Made]] = {}
        self.thread: threading.Thread | None = None

    def make(self, task: Task) -> Future[Made]:
        """Hand a task to the pipeline; one that fell over is set up again."""
        result: Future[Made] = Future()
        with self.lock:
            # A number of its own here: a task may come again while it is still being made.
            ticket = next(self.tickets)
            self.results[ticket] = result
            self.tasks.put(replace(task, number=ticket))
            if self.thread is None:
                self.thread = threading.Thread(target=self._run, name="pipeline", daemon=True)
                self.thread.start()
        return result

    def _run(self) -> None:
        try:
            keep_freed_memory()
            for made in Pipeline(self.job, self.job.build(), self._take).run():
                self.results.pop(made.number).set_result(made)
        except BaseException as error:
            with self.lock:
                self.thread, self.tasks = None, queue.SimpleQueue()
                failed, self.results = self.results, {}
            for result in failed.values():
                result.set_exception(error)

    def _take(self, wait: bool) -> Task | None:
        try:
            return self.tasks.get(block=wait)
        except queue.Empty:
            return None

    def teardown(self, worker: Any) -> None:
        self.tasks.put(None)


def _device_kind(device: Device) -> str:
    return resolve_device(device).type


def _make_on_worker(plugin: str, task: Task) -> Made | PgMError:
    """A task's result; an error of ours is an answer too, which trying again would not change."""
    held: _PipelinePlugin = get_worker().plugins[plugin]
    result = held.make(task)
    secede()
    try:
        return replace(result.result(), number=task.number)
    except PgMError as error:
        return error
