"""kill -9 at random moments, of real processes: what a rerun finishes has the bytes of an undisturbed run.

PGM_KILL_RUNS sets how often each kind of death is tried; continuous integration tries each once. What is extracted are
numeric series: a dozen processes need not import what models need.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from pgm.cache.storage.local import TEMPORARY
from pgm.cli import app
from typer.testing import CliRunner

from ..conftest import dask_workers

RUNS = int(os.environ.get("PGM_KILL_RUNS", "1"))
# Sixteen segments of about a tenth of a second's work each.
SAMPLES, LENGTH, CHANNELS = 320, 4096, 16
BIN = Path(sys.executable).parent
DEADLINE = 120.0


def digests(folder: Path) -> dict[str, str]:
    """Every file below a folder, by content, but for the JSON of versions, which says when they were committed, and
    what a killed writer left under a temporary name, which `pgm cache gc` sweeps."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not (path.parent.name == "versions" and path.suffix == ".json")
        and not any(part.startswith(TEMPORARY) for part in path.parts)
    }


@pytest.fixture(scope="module")
def rides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of recordings, a file each."""
    folder = tmp_path_factory.mktemp("rides of a user")
    rng = np.random.default_rng(0)
    rows = ["id,imu_file,terrain"]
    for row in range(SAMPLES):
        np.save(folder / f"{row}.npy", rng.normal(size=(LENGTH, CHANNELS)).astype(np.float32))
        rows.append(f"ride {row},{row}.npy,{'ice' if row % 2 else 'sand'}")
    (folder / "rides.csv").write_text("\n".join(rows))
    return folder / "rides.csv"


@pytest.fixture(scope="module")
def undisturbed(rides: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return finish(rides, tmp_path_factory.mktemp("undisturbed"))


@contextmanager
def process(*command: str, cwd: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own; whatever is left of it is killed at the end."""
    with open(cwd / f"{Path(command[0]).name}-{time.monotonic_ns()}.log", "wb") as log:
        child = subprocess.Popen(command, cwd=cwd, stdout=log, stderr=log, start_new_session=True)
        try:
            yield child
        finally:
            kill_family(child)


def kill_family(child: subprocess.Popen[bytes]) -> None:
    """SIGKILL to a process and all its descendants, at once and without asking."""
    if child.poll() is None:
        parent = psutil.Process(child.pid)
        for member in [parent, *parent.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                member.kill()
    child.wait(30)


def extraction(rides: Path, features: Path, *options: str) -> tuple[str, ...]:
    columns = ("--id-column", "id", "--series-column", "imu=imu_file", "--label-column", "terrain")
    return (str(BIN / "pgm"), "extract", str(rides), *columns, "--features", str(features), *options)


def written(features: Path) -> int:
    """Segments that are there."""
    return len(list(features.glob("rides/*/segments/[!.]*")))


def wait_until(condition: object, child: subprocess.Popen[bytes], what: str) -> None:
    assert callable(condition)
    until = time.monotonic() + DEADLINE
    while not condition():
        assert child.poll() is None, f"the run ended before {what}"
        assert time.monotonic() < until, f"{what} did not happen"
        time.sleep(0.005)


def wait_for_a_random_moment(features: Path, child: subprocess.Popen[bytes], rng: random.Random) -> None:
    some = rng.randint(1, 3)
    wait_until(lambda: written(features) >= some, child, f"{some} segments")
    time.sleep(rng.random() * 0.1)


def finish(rides: Path, features: Path) -> dict[str, str]:
    """The same command in this process, undisturbed."""
    _, *words = extraction(rides, features, "--executor", "serial")
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return digests(features)


@pytest.mark.parametrize("attempt", range(RUNS))
@pytest.mark.parametrize("executor", ["serial", "dask"])
def test_killing_the_whole_run(
    rides: Path, undisturbed: dict[str, str], tmp_path: Path, executor: str, attempt: int
) -> None:
    features = tmp_path / "features"
    command = extraction(rides, features, "--executor", executor, "--workers", "2")
    with process(*command, cwd=tmp_path) as child:
        wait_for_a_random_moment(features, child, random.Random(f"{executor}{attempt}"))
    assert not list(features.glob("rides/versions/*"))
    assert finish(rides, features) == undisturbed


@pytest.mark.parametrize("attempt", range(RUNS))
def test_killing_a_worker_costs_its_segment_only(
    rides: Path, undisturbed: dict[str, str], tmp_path: Path, attempt: int
) -> None:
    features = tmp_path / "features"
    command = extraction(rides, features, "--executor", "dask", "--workers", "2")
    rng = random.Random(attempt)
    with process(*command, cwd=tmp_path) as child:
        wait_for_a_random_moment(features, child, rng)
        workers = dask_workers(child.pid)
        rng.choice(workers).kill()
        assert child.wait(DEADLINE) == 0
    assert digests(features) == undisturbed


@contextmanager
def separate_cluster(folder: Path) -> Iterator[tuple[Path, subprocess.Popen[bytes], list[subprocess.Popen[bytes]]]]:
    """A `dask scheduler` and two `dask worker` processes; the scheduler's file, and the processes."""
    file = folder / "scheduler.json"
    dask = str(BIN / "dask")
    here = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard")
    with ExitStack() as stack:
        start = lambda *command: stack.enter_context(process(dask, *command, cwd=folder))  # noqa: E731
        scheduler = start("scheduler", *here, "--scheduler-file", str(file))
        wait_until(file.exists, scheduler, "the scheduler's file")
        options = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--scheduler-file", str(file))
        yield file, scheduler, [start("worker", *options) for _ in range(2)]


def test_a_separate_cluster_survives_the_loss_of_a_worker(
    rides: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    features = tmp_path / "features"
    with separate_cluster(tmp_path) as (file, _, workers):
        command = extraction(rides, features, "--scheduler-file", str(file))
        with process(*command, cwd=tmp_path) as child:
            wait_for_a_random_moment(features, child, random.Random(0))
            os.kill(workers[0].pid, signal.SIGKILL)
            assert child.wait(DEADLINE) == 0
    assert digests(features) == undisturbed


@pytest.mark.parametrize("attempt", range(RUNS))
def test_killing_the_scheduler_stops_the_run_and_loses_nothing(
    rides: Path, undisturbed: dict[str, str], tmp_path: Path, attempt: int
) -> None:
    features = tmp_path / "features"
    with separate_cluster(tmp_path) as (file, scheduler, _):
        command = extraction(rides, features, "--scheduler-file", str(file))
        with process(*command, cwd=tmp_path) as child:
            wait_for_a_random_moment(features, child, random.Random(attempt))
            os.kill(scheduler.pid, signal.SIGKILL)
            assert child.wait(DEADLINE) == 1
            done = written(features)
            said = next(tmp_path.glob("pgm-*.log")).read_text()
    assert "Traceback" not in said
    assert "scheduler" in said
    assert done >= 1
    assert finish(rides, features) == undisturbed


@pytest.mark.parametrize("executor", ["serial", "dask"])
def test_ctrl_c_stops_with_one_sentence(rides: Path, tmp_path: Path, executor: str) -> None:
    """SIGINT to the whole process group, as a terminal sends it."""
    features = tmp_path / "features"
    command = extraction(rides, features, "--executor", executor, "--workers", "2")
    with process(*command, cwd=tmp_path) as child:
        wait_for_a_random_moment(features, child, random.Random(executor))
        os.killpg(child.pid, signal.SIGINT)
        assert child.wait(DEADLINE) == 130
        said = next(tmp_path.glob("pgm-*.log")).read_text()
    assert "the same command continues" in said
    assert "Traceback" not in said
