"""Every method's and task's numbers on fixed data, kept with the versions they were made under (golden_losses.json).

Where numbers move, the version of what moved them is raised (`version` of the method's configuration or of the task,
RECIPE in runs.py for what all share), and the file is written anew:

    PGM_GOLDEN=write python -m pytest -q tests/trainer/methods/test_golden_losses.py

which keeps every entry whose versions are unchanged: numbers cannot be waved through.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pgm.plugins import is_ours
from pgm.trainer import Run, train
from pgm.trainer.methods import known_methods
from pgm.trainer.tasks import Task

GOLDEN = Path(__file__).with_name("golden_losses.json")
# Rounding differs between CPUs and grows over the steps; these runs differ by 1e-6 with other vector instructions.
TOLERANCE = 1e-4
SETTINGS = {"pretrain_epochs": 2, "epochs": 4, "split_seed": 0}
# These have sizes of their own, which the small sizes of the others are not among.
SIZES: dict[str, dict[str, Any]] = {
    "self_mm": {"hidden": 4, "out": 4, "fused": 8, "post": 4},
    "mmim": {"hidden": 4, "out": 4, "fused": 8},
    "unimse": {"hidden": 4, "out": 4, "bottleneck": 4, "projected": 4},
    "unimeec": {"dim": 8, "attention": 2, "graph": 8},
}
PLACED = {"dim": 8, "heads": 2, "feedforward": 16}
CASES: dict[str, dict[str, Any]] = {
    **{method: {"method": method} for method in known_methods(("text",)) if method.removesuffix("+pgm") not in SIZES},
    "mla as released": {"method": "mla", "settings": {"mla_preset": "as_released"}},
    "pgm, emotion": {"method": "pgm", "task": "emotion"},
    "pgm, retrieval": {"method": "pgm", "task": "retrieval"},
    "pgm, sentiment regression": {"method": "pgm", "task": "sentiment"},
    **{
        name + suffix: {
            "method": name + suffix,
            "task": "emotion" if name == "unimeec" else "sentiment",
            "groups": 8 if name == "unimeec" else 0,
            "sizes": {"batch": 16, **sizes, **placed},
        }
        for name, sizes in SIZES.items()
        for suffix, placed in {"": {}, "+pgm": PLACED}.items()
    },
    "unimse, emotion": {"method": "unimse", "task": "emotion", "sizes": {"batch": 16, **SIZES["unimse"]}},
    "pgm, sentiment classes": {"method": "pgm", "task": "sentiment", "settings": {"sentiment": "classes"}},
}


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory, make_toy: Callable[..., Path]) -> Callable[[str, int], Path]:
    """Task and number of dialogues -> a features root with the fixed data."""
    made: dict[tuple[str, int], Path] = {}

    def root(task: str, groups: int) -> Path:
        if (task, groups) not in made:
            counts = {"train": 48, "val": 16, "test": 16}
            made[task, groups] = make_toy(
                tmp_path_factory.mktemp(task), task=task, counts=counts, missing=0.1, groups=groups
            )
        return made[task, groups]

    return root


@pytest.fixture
def trained(
    features: Callable[[str, int], Path], quick: Callable[..., Run], tmp_path: Path
) -> Callable[[Mapping[str, Any]], Run]:
    """A case -> its run, on the CPU whatever the machine has."""

    def run(case: Mapping[str, Any]) -> Run:
        settings = {**SETTINGS, **case.get("settings", {})}
        root = features(case.get("task", "classification"), case.get("groups", 0))
        if "sizes" in case:
            settings |= case["sizes"]
            return train(root, None, case["method"], runs=tmp_path / "runs", device="cpu", settings=settings)
        return quick(root, tmp_path / "runs", case["method"], device="cpu", settings=settings)

    return run


def measured(run: Run) -> dict[str, Any]:
    """What a golden entry holds: versions, the loss of every epoch, and the deviation of the test answers."""
    method = run.config["method"]
    placed = {"pgm": method["pgm_version"]} if method.get("pgm_version") else {}
    versions = {**run.config["recipe"], "method": method["version"], **placed}
    losses = [entry["losses"]["loss"] for entry in run.metrics]
    table = pq.read_table(run.predictions_path("test"))
    answers = [name for name in ("probabilities", "prediction", "embedding_text") if name in table.column_names][:1]
    values = np.array(table.column(answers[0]).to_pylist(), float)
    return {"versions": versions, "losses": losses, "answers": float(np.nanstd(values))}


def verdict(found: Mapping[str, Any], kept: Mapping[str, Any] | None) -> str | None:
    """What is wrong with a golden entry; None where it stands."""
    if kept is None:
        return "it has no golden entry: write one"
    if kept["versions"] != found["versions"]:
        return f"versions {kept['versions']} became {found['versions']}: write the entry anew"
    if not same([*found["losses"], found["answers"]], [*kept["losses"], kept["answers"]]):
        return (
            f"its numbers moved under unchanged versions {found['versions']}: raise the version of what moved them "
            f"(kept {kept['losses']}, answers {kept['answers']}; found {found['losses']}, answers {found['answers']})"
        )
    return None


def same(found: list[float], kept: list[float]) -> bool:
    return len(found) == len(kept) and all(
        math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=1e-6) for a, b in zip(found, kept, strict=True)
    )


def read() -> dict[str, Any]:
    return json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}


@pytest.mark.parametrize("name", CASES)
def test_numbers_move_only_with_a_version(name: str, trained: Callable[[Mapping[str, Any]], Run]) -> None:
    found, known = measured(trained(CASES[name])), read()
    wrong = verdict(found, known.get(name))
    if wrong is not None and wrong.endswith(("write one", "anew")) and os.environ.get("PGM_GOLDEN") == "write":
        known[name] = found
        GOLDEN.write_text(json.dumps({case: known[case] for case in CASES if case in known}, indent=1) + "\n")
    elif wrong is not None:
        pytest.fail(f"{name}: {wrong}. See the head of {Path(__file__).name}.")


def test_every_method_and_task_has_an_entry_and_no_other_is_kept() -> None:
    assert set(read()) == set(CASES)
    tasks = {case.get("task", "classification") for case in CASES.values()}
    assert len(tasks) + 1 == len({kind.__name__ for kind in kinds(Task)}), "sentiment is two"


def kinds(task: type[Task]) -> set[type[Task]]:
    """Those of PgM's own; other tests, in this process, have theirs."""
    found = {one for child in task.__subclasses__() for one in ({child} | kinds(child))}
    return {one for one in found if is_ours(one)}


def test_a_loss_that_moves_fails_and_a_raised_version_asks_for_a_new_entry(
    trained: Callable[[Mapping[str, Any]], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pgm.trainer.methods import qmf

    kept = read()["qmf"]
    monkeypatch.setattr(qmf, "TEMPERATURE", 9.0)
    moved = measured(trained(CASES["qmf"]))
    assert "raise the version" in str(verdict(moved, kept))
    monkeypatch.setattr(qmf.QMFConfig, "version", qmf.QMFConfig.version + 1)
    raised = {**moved, "versions": {**moved["versions"], "method": qmf.QMFConfig.version}}
    assert str(verdict(raised, kept)).endswith("anew")
    assert "no golden entry" in str(verdict(moved, None))
