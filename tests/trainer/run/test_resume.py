"""A run that is killed, stopped or raced continues exactly: the same final weights, bit for bit."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pgm.cache.errors import RunFailed, RunLocked
from pgm.trainer import Run
from pgm.trainer.run.events import BatchFinished, Event, RunStarted
from pgm.trainer.run.lock import RunLock
from pgm.trainer.run.request import Request, resolve
from pgm.trainer.run.training import Execution, carry_out
from safetensors.torch import load_file

SETTINGS = {"dim": 8, "heads": 2, "feedforward": 16, "pretrain_epochs": 2, "epochs": 3, "batch": 16}

# Trains with a checkpoint every epoch and kills its own process, without any warning, in the middle of an epoch.
KILLED = """
import os, signal, sys
from pathlib import Path
from pgm.trainer.run.events import BatchFinished, EpochFinished
from pgm.trainer.run.request import Request, resolve
from pgm.trainer.run.training import Execution, carry_out

features, runs, method, epochs, settings = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), eval(sys.argv[5])
seen = 0

def kill(event):
    global seen
    seen += isinstance(event, EpochFinished)
    if isinstance(event, BatchFinished) and seen == epochs and event.done > event.total // 2:
        os.kill(os.getpid(), signal.SIGKILL)

request = Request(Path(features), Path(runs), method=method, settings=settings)
carry_out(resolve(request), Execution(listener=kill, checkpoint_seconds=0))
"""


def train_now(features: Path, runs: Path, method: str, listener: Callable[[Event], None] = lambda event: None) -> Run:
    request = Request(features, runs, method=method, settings=SETTINGS)
    return carry_out(resolve(request), Execution(listener=listener, checkpoint_seconds=0))


def numbers_of(run: Run) -> list[dict[str, Any]]:
    """The journal without times."""
    return [{k: v for k, v in entry.items() if k not in ("seconds", "waiting")} for entry in run.metrics]


def assert_same(one: Run, other: Run) -> None:
    assert one.weights.read_bytes() == other.weights.read_bytes()
    assert numbers_of(one) == numbers_of(other)
    assert one.test == other.test
    assert one.predictions_path("test").read_bytes() == other.predictions_path("test").read_bytes()


def kill(features: Path, runs: Path, method: str, epochs: int) -> None:
    """Train in a process of its own that is killed -9 after so many epochs."""
    arguments = [str(features), str(runs), method, str(epochs), repr(SETTINGS)]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]


def unfinished(run: Path) -> Path:
    """The folder of a run that has begun and has no result."""
    assert (run / "checkpoint.pt").exists()
    assert not (run / "result.json").exists()
    return run


def test_killed_twice_without_warning_it_ends_with_the_same_bits(toy: Path, tmp_path: Path) -> None:
    whole = train_now(toy, tmp_path / "whole", "pgm")
    # First in stage 1 with one epoch done, then in stage 2 with two more done.
    for epochs in (1, 2):
        kill(toy, tmp_path / "cut", "pgm", epochs)
    cut = unfinished(tmp_path / "cut" / whole.id)
    continued: list[RunStarted] = []
    run = train_now(toy, tmp_path / "cut", "pgm", lambda e: continued.append(e) if isinstance(e, RunStarted) else None)
    assert continued[0].finished_epochs == 3
    assert_same(run, whole)
    assert not (cut / "checkpoint.pt").exists()


# What besides weights and moments must come back: MLA's projector and turns; the generator of OGM-GE's noise.
@pytest.mark.parametrize(("method", "buffer"), [("mla", "head.projector.matrix"), ("ogm_ge", None)])
def test_killed_without_warning_a_method_with_an_update_of_its_own_ends_with_the_same_bits(
    toy: Path, tmp_path: Path, method: str, buffer: str | None
) -> None:
    whole = train_now(toy, tmp_path / "whole", method)
    kill(toy, tmp_path / "cut", method, 2)
    unfinished(tmp_path / "cut" / whole.id)
    continued: list[RunStarted] = []
    run = train_now(toy, tmp_path / "cut", method, lambda e: continued.append(e) if isinstance(e, RunStarted) else None)
    assert continued[0].finished_epochs == 2
    assert_same(run, whole)
    if buffer is not None:
        matrix = load_file(run.weights)[f"method.{buffer}"]
        assert not torch.equal(matrix, torch.eye(len(matrix))), "it was in use"


@pytest.mark.parametrize("method", ["concat", "ensemble"])
@pytest.mark.parametrize("at", [1, 20])
def test_stopped_by_ctrl_c_it_ends_with_the_same_bits(toy: Path, tmp_path: Path, method: str, at: int) -> None:
    whole = train_now(toy, tmp_path / "whole", method)
    steps = 0

    def stop(event: Event) -> None:
        nonlocal steps
        steps += isinstance(event, BatchFinished)
        if steps == at:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train_now(toy, tmp_path / "cut", method, stop)
    assert_same(train_now(toy, tmp_path / "cut", method), whole)


def test_a_damaged_checkpoint_says_so_and_force_recovers(toy: Path, tmp_path: Path, quick: Callable[..., Run]) -> None:
    run = quick(toy, tmp_path)
    (run.path / "result.json").unlink()
    (run.path / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(RunFailed, match=r"is damaged. Train anew with --force"):
        quick(toy, tmp_path)
    assert quick(toy, tmp_path, force=True).finished


def test_a_run_in_progress_elsewhere_is_left_alone(toy: Path, tmp_path: Path, quick: Callable[..., Run]) -> None:
    run = quick(toy, tmp_path)
    (run.path / "result.json").unlink()
    lock = RunLock(run.path)
    lock.acquire()
    with pytest.raises(RunLocked, match="is being written by process"):
        quick(toy, tmp_path)
    lock.release()
    assert quick(toy, tmp_path).finished


def test_the_callers_random_numbers_are_untouched(toy: Path, tmp_path: Path, quick: Callable[..., Run]) -> None:
    import torch

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    quick(toy, tmp_path)
    assert torch.equal(torch.rand(3), expected)
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


def test_runs_that_differ_after_stage_one_share_it_and_lose_nothing(
    toy: Path, tmp_path: Path, quick: Callable[..., Run]
) -> None:
    first = quick(toy, tmp_path / "shared", "pgm")
    stages = list((tmp_path / "shared" / "stages").iterdir())
    assert len(stages) == 1
    trained: list[str] = []
    second = quick(
        toy,
        tmp_path / "shared",
        "pgm",
        settings={"fusion": "add"},
        listener=lambda e: trained.append(e.stage) if isinstance(e, BatchFinished) else None,
    )
    assert set(trained) == {"task"}
    alone = quick(toy, tmp_path / "alone", "pgm", settings={"fusion": "add"})
    assert second.id == alone.id != first.id
    assert second.weights.read_bytes() == alone.weights.read_bytes()
    assert [e["losses"] for e in second.metrics] == [e["losses"] for e in alone.metrics]
    quick(toy, tmp_path / "shared", "pgm", settings={"iterations": 1})
    assert len(list((tmp_path / "shared" / "stages").iterdir())) == 2
    assert json.loads((stages[0] / "stage.json").read_text())["stage"] == "pretrain"
