"""Progress is readable on a terminal and off it, and says what a reader of the numbers has to know."""

from __future__ import annotations

import io
import sys

import pytest
from pgm.cache.errors import UserError
from pgm.trainer.run.display import TrainingDisplay, cell, results_table
from pgm.trainer.run.events import BatchFinished, EpochFinished, Event, Note, RunFinished, RunStarted
from pgm.trainer.run.tensorboard import TensorBoard
from rich.console import Console

SPLITS = {"train": 900, "val": 50, "test": 50}
EVENTS: list[Event] = [
    Note("Random weights, not pretrained: the encoders of text."),
    RunStarted("abc123", "toy", "pgm", 0, 1234, SPLITS, "resident (1 MiB)", "cpu", "fp32", 2, 6),
    BatchFinished("task", 450, 900),
    EpochFinished("task", 3, 4, {"loss": 0.5, "ufc": 0.1}, {"accuracy": 0.75}, True, 1234.5, 0.004, 0.7, 12.0),
    Note("Random weights, not pretrained: the encoders of text."),
    EpochFinished("task", 4, 4, {"loss": 0.4, "ufc": 0.1}, {"accuracy": 0.74}, False, 1234.5, 0.004, 0.7, 0.0),
    RunFinished("abc123", "toy", "pgm", {"accuracy": 0.75}, {"accuracy": 0.7}, {}, 3.2, False),
]


@pytest.mark.parametrize("terminal", [True, False])
def test_every_epoch_shows_losses_validation_speed_waiting_and_time_left(terminal: bool) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=200, highlight=False, color_system=None)
    with TrainingDisplay(console) as display:
        for event in EVENTS:
            display(event)
    text = out.getvalue()
    expected = [
        "run abc123: 1,234 parameters",
        "continuing after epoch 2 of 6",
        "loss 0.400 ufc 0.100",
        "val accuracy 0.740",
        "1,234 samples/s, 0.4% waiting for data",
        "run abc123 done in 3.2 s; test: accuracy 0.700",
    ]
    if not terminal:  # a live line is redrawn ten times a second; plain lines stay
        expected += ["loss 0.500 ufc 0.100", "val accuracy 0.750 *", "12 s left"]
    for said in expected:
        assert said in text, said
    assert text.count("Random weights") == 1, "a note is said once"


def test_a_table_shows_deviations_and_leaves_absent_metrics_empty() -> None:
    out = io.StringIO()
    columns = {"pgm": {"accuracy": {"mean": 0.5, "std": 0.01, "values": [0.49, 0.51]}}, "floor": {"map": 0.25}}
    Console(file=out, width=100).print(results_table("toy", columns))
    assert "0.5000 ± 0.0100" in out.getvalue()
    assert "0.2500" in out.getvalue()
    assert cell(None) == ""


def test_tensorboard_is_optional_and_names_its_package(
    tmp_path: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match="pip install tensorboard"):
        TensorBoard(tmp_path)
