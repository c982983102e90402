"""Train the cells of a table that have no run: one after another here, or one a task on Dask workers.

Runs that share a first stage form a chain: the first trains it, and the others start when it is done, so that it is
trained once. A run that fails marks its cell and the rest goes on; a lost worker's run is given to another, which
continues from its checkpoint where it has the same disk. A worker of a scheduler that does not see this machine's runs
folder trains in a folder of its own and returns the finished run's files. Whatever is interrupted, the same command
continues.
"""

from __future__ import annotations

import math
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from ....cache import absolute_url
from ....cache.errors import PgMError
from ...run.events import Listener, silent
from ...run.files import write_atomically
from ...run.home import RESULT, Root, folder_of, kept_files
from ...run.request import Request, resolve
from ...run.training import Execution, carry_out
from .plan import Cell, Measurement


@dataclass(frozen=True)
class Outcome:
    """What became of one cell."""

    cell: Cell
    seconds: float
    error: str | None = None


@dataclass(frozen=True)
class Failure:
    """A cell without a run, and why."""

    label: str
    seed: int
    reason: str


@dataclass(frozen=True)
class WorkerPool:
    """Who trains. workers None: one a GPU, else one a core; 1 without a scheduler: this process."""

    workers: int | None = None
    scheduler: str | None = None
    scheduler_file: str | None = None


Progress = Callable[[Outcome, int, int], None]


def run_cells(
    cells: Sequence[Cell], pool: WorkerPool, progress: Progress, listener: Listener = silent
) -> list[Failure]:
    """Train `cells`; `progress(outcome, done, total)` after each. Returns what failed.

    `listener` hears the training itself where it happens in this process.
    """
    if not cells:
        return []
    done = 0
    failures: list[Failure] = []

    def tell(outcome: Outcome) -> None:
        nonlocal done
        done += 1
        if outcome.error is not None:
            failures.append(Failure(outcome.cell.row.label, outcome.cell.seed, outcome.error))
        progress(outcome, done, len(cells))

    workers = pool.workers or (torch.cuda.device_count() or len(os.sched_getaffinity(0)))
    if not pool.scheduler and not pool.scheduler_file and min(workers, len(cells)) == 1:
        for cell in cells:
            tell(Outcome(cell, *train_cell(cell.request, cell.measurement, listener=listener)))
    else:
        on_workers(cells, pool, min(workers, len(cells)), tell)
    return failures


def train_cell(
    request: Request,
    measurement: Measurement | None = None,
    threads: int | None = None,
    listener: Listener = silent,
    sharing: int = 1,
) -> tuple[float, str | None]:
    """Train one cell in this process and make its measurement; seconds, and why it failed, if it did.

    sharing: cells that train at once on its device.
    """
    begun = time.perf_counter()
    if threads is not None:
        # In a worker process.
        from ....workers import keep_freed_memory

        torch.set_num_threads(threads)
        keep_freed_memory()
    try:
        resolved = resolve(request)
        run = carry_out(resolved, Execution(listener=listener, sharing=sharing))
        if measurement is not None and not measurement.there(run):
            measurement.make(resolved)
            if run.home is not None:
                run.home.put(run.path, {})
    except PgMError as error:
        return time.perf_counter() - begun, str(error)
    except Exception as error:
        # One broken configuration must not cost a night's other runs; the cell says what it was.
        return time.perf_counter() - begun, f"{type(error).__name__}: {error}"
    return time.perf_counter() - begun, None


@dataclass(frozen=True)
class Delivery:
    """What a worker returns of a cell. files: those of the run, where the worker has another disk than the client."""

    seconds: float
    error: str | None
    files: Mapping[str, bytes] = field(default_factory=dict)


def train_away(
    request: Request, measurement: Measurement | None, threads: int, sign: str | None, sharing: int
) -> Delivery:
    """Train one cell in a worker. sign: a file of the client's runs folder; a worker that does not see it has another
    disk."""
    elsewhere = sign is not None and not Path(sign).exists()
    if elsewhere:
        request = replace(request, runs=folder_of(f"of-a-client/{sign}"))
    seconds, error = train_cell(request, measurement, threads, sharing=sharing)
    if error is not None or not elsewhere:
        return Delivery(seconds, error)
    files = {path.name: path.read_bytes() for path in kept_files(resolve(request).run.path)}
    return Delivery(seconds, error, files)


def receive(cell: Cell, delivery: Delivery) -> None:
    """Have what a worker made on this machine; the result is written last."""
    folder = cell.run.path
    for name, content in sorted(delivery.files.items(), key=lambda item: item[0] == RESULT):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / name, content, sync=name == RESULT)
    if cell.run.home is not None:
        cell.run.home.fetch(folder)


@contextmanager
def signed(runs: Root) -> Iterator[str | None]:
    """A file in the runs folder by which workers tell whether they see it; None where runs lie in no folder."""
    if isinstance(runs, str):
        yield None
        return
    runs.mkdir(parents=True, exist_ok=True)
    sign = runs.absolute() / f".client-{secrets.token_hex(8)}"
    sign.touch()
    try:
        yield str(sign)
    finally:
        sign.unlink(missing_ok=True)


def on_workers(cells: Sequence[Cell], pool: WorkerPool, count: int, tell: Callable[[Outcome], None]) -> None:
    """Every chain's first cell at once, its others as soon as that is done."""
    # distributed takes half a second to import, which a finished table need not pay.
    from distributed import KilledWorker, as_completed

    from ....workers import Workers

    threads = max(1, len(os.sched_getaffinity(0)) // count)
    # Of a running scheduler nobody knows here which workers share a machine.
    known = not pool.scheduler and not pool.scheduler_file
    sharing = math.ceil(count / max(1, torch.cuda.device_count())) if known else 1
    leaders, followers = chains(cells)
    with (
        Workers(count, pool.scheduler, pool.scheduler_file, [__name__]) as workers,
        signed(cells[0].request.runs) as sign,
    ):
        client = workers.client
        cell_of = {}

        def submit(cell: Cell) -> object:
            request = settled(cell)
            # Not pure: a failed run asked for again must be tried again. Cells with a shared first stage go before what
            # was submitted earlier: they are the long ones, and left for the end they keep one worker busy alone.
            first = cell.shared is not None
            future = client.submit(
                train_away, request, cell.measurement, threads, sign, sharing, pure=False, priority=int(first)
            )
            cell_of[future.key] = cell
            return future

        running = as_completed([submit(cell) for cell in leaders])
        for future in running:
            cell = cell_of[future.key]
            try:
                delivery = future.result()
                receive(cell, delivery)
            except KilledWorker:
                delivery = Delivery(0.0, "its worker process died again and again; memory may have run out")
            tell(Outcome(cell, delivery.seconds, delivery.error))
            for follower in followers.pop(id(cell), ()):
                running.add(submit(follower))


def chains(cells: Sequence[Cell]) -> tuple[list[Cell], dict[int, list[Cell]]]:
    """Cells to start with, and id(cell) -> the cells that wait for it because they share its first stage."""
    leaders: list[Cell] = []
    first: dict[str, Cell] = {}
    followers: dict[int, list[Cell]] = {}
    for cell in cells:
        key = cell.shared
        if key is None or key not in first:
            leaders.append(cell)
            if key is not None:
                first[key] = cell
        else:
            followers.setdefault(id(first[key]), []).append(cell)
    # Long runs first, so that no worker starts one when the others are done: PgM's stages take the longest.
    leaders.sort(key=lambda cell: cell.shared is None)
    return leaders, followers


def settled(cell: Cell) -> Request:
    """The cell's request with nothing left to a worker, who has another directory and may have another device."""
    request, resolved = cell.request, cell.resolved
    return replace(
        request,
        features=absolute_url(request.features),
        runs=request.runs if isinstance(request.runs, str) else request.runs.absolute(),
        device=str(resolved.device),
        settings={**request.settings, "precision": resolved.protocol.precision},
    )
