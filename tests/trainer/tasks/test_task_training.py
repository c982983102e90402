"""Every task trains end to end and beats its floor; precision and pooling switches reach the numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pgm.trainer import Run
from pgm.trainer.run.events import EpochFinished

LONG_ENOUGH = {"epochs": 12, "lr": 5e-3}


@pytest.mark.parametrize(
    ("task", "settings", "metric", "monitor"),
    [
        ("classification", {}, "accuracy", "accuracy"),
        ("emotion", {}, "weighted_f1", "weighted_f1"),
        ("sentiment", {}, "acc2_has0", "mae"),
        ("sentiment", {"sentiment": "classes"}, "acc2_has0", "acc3"),
    ],
)
def test_a_task_is_learned_and_predictions_carry_ids(
    tmp_path: Path,
    task: str,
    settings: dict[str, str],
    metric: str,
    monitor: str,
    make_toy: Callable[..., Path],
    quick: Callable[..., Run],
) -> None:
    root = make_toy(tmp_path / "features", task=task)
    run = quick(root, tmp_path / "runs", settings={**LONG_ENOUGH, **settings})
    floor = run.result["floors"]["majority"][metric]
    assert run.test[metric] > floor + 0.1
    assert monitor in run.metrics[-1]["val"]
    assert run.result["floors"]["linear_probe"][metric] > floor
    table = pq.read_table(run.predictions_path("test"))
    assert table["id"].to_pylist() == [f"toy/{row}" for row in range(128, 160)]
    assert {"target", "prediction"} <= set(table.column_names)


def test_pgm_reports_its_three_losses_and_they_fall(toy: Path, tmp_path: Path, quick: Callable[..., Run]) -> None:
    run = quick(toy, tmp_path, "pgm", settings={"pretrain_epochs": 6})
    first, last = run.metrics[0], [e for e in run.metrics if e["stage"] == "pretrain"][-1]
    for name in ("ufc", "pfc", "upr"):
        assert last["losses"][name] < first["losses"][name]
    assert "val" not in first, "stage 1 uses no labels"
    task = run.metrics[-1]
    assert {"loss", "task", "ufc", "pfc", "upr"} == set(task["losses"])
    parts = task["losses"]
    assert parts["loss"] == pytest.approx(parts["task"] + 0.5 * (parts["ufc"] + parts["pfc"] + parts["upr"]), rel=1e-4)


def test_precision_and_tokens_are_part_of_a_run(toy: Path, tmp_path: Path, quick: Callable[..., Run]) -> None:
    plain = quick(toy, tmp_path)
    seen: list[EpochFinished] = []
    rough = quick(toy, tmp_path, settings={"precision": "bf16"})
    pooled = quick(
        toy,
        tmp_path,
        settings={"tokens": 1},
        listener=lambda e: seen.append(e) if isinstance(e, EpochFinished) else None,
    )
    assert len({plain.id, rough.id, pooled.id}) == 3
    assert plain.config["protocol"]["precision"] == "fp32"
    assert rough.weights.read_bytes() != plain.weights.read_bytes() != pooled.weights.read_bytes()
    assert all(0 <= event.waiting < 1 and event.samples_per_second > 0 for event in seen)
