"""A run's name covers what decides its numbers, and what is read back of a run is what it stored, to the bit."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from pgm.cache import open_dataset, publish, storage_at
from pgm.cache.errors import IdentityMismatch, RunFailed
from pgm.trainer import Missing, Run
from pgm.trainer.methods.pgm import PgMMethodConfig
from pgm.trainer.methods.qmf import QMFConfig
from pgm.trainer.run.events import EpochFinished
from pgm.trainer.run.inference import evaluate_run, evaluated_together, load, predict
from pgm.trainer.run.laziness import measure
from pgm.trainer.run.machine import CUBLAS, reproducible
from pgm.trainer.run.masked_test import MaskedTests, evaluate_under, split_mask
from pgm.trainer.run.request import Request, Resolved, resolve
from pgm.trainer.run.stages import SharedStages
from pgm.trainer.studies.engine.options import StudyOptions
from pgm.trainer.studies.engine.plan import plan_table
from pgm.trainer.studies.engine.runner import settled
from pgm.trainer.studies.modules import STUDY as MODULES
from pgm.trainer.tasks import Classification

SETTINGS = {"dim": 8, "heads": 2, "feedforward": 16, "pretrain_epochs": 2, "epochs": 2, "batch": 16}


def resolved_for(features: Path, **changes: Any) -> Resolved:
    return resolve(Request(features, Path("unused"), **{"settings": SETTINGS, **changes}))


@pytest.fixture(scope="module")
def carved(tmp_path_factory: pytest.TempPathFactory, make_toy: Callable[..., Path]) -> Path:
    """A dataset without a validation split."""
    return make_toy(tmp_path_factory.mktemp("carved"), counts={"train": 96, "test": 32}, missing=0.1)


@pytest.mark.parametrize("changes", [{"val_fraction": 0.4}, {"val_fraction": 0.1, "split_seed": 1}])
def test_a_first_stage_that_saw_other_samples_is_not_taken_over(
    carved: Path, tmp_path: Path, quick: Callable[..., Run], changes: dict[str, Any]
) -> None:
    quick(carved, tmp_path / "both", "pgm", settings={"val_fraction": 0.1})
    second = quick(carved, tmp_path / "both", "pgm", settings=changes)
    alone = quick(carved, tmp_path / "alone", "pgm", settings=changes)
    assert second.id == alone.id
    assert second.weights.read_bytes() == alone.weights.read_bytes()
    assert second.predictions_path("test").read_bytes() == alone.predictions_path("test").read_bytes()
    assert second.test == alone.test


def test_a_first_stage_is_named_by_its_rows_and_not_by_the_switches_that_chose_them(carved: Path, toy: Path) -> None:
    def folder(features: Path, **settings: Any) -> Path:
        resolved = resolved_for(features, settings={**SETTINGS, **settings})
        stage = resolved.method.build(resolved.shape).stages(resolved.protocol)[0]
        return SharedStages(resolved).folder(stage)

    # The toy dataset has a validation split of its own, so that nothing is carved.
    assert folder(toy) == folder(toy, val_fraction=0.4) == folder(toy, split_seed=1) == folder(toy, alpha=0.1)
    # 0.1 and 0.101 of 96 samples are the same ten.
    assert folder(carved) == folder(carved, val_fraction=0.101) != folder(carved, val_fraction=0.4)
    assert folder(carved, lr=0.1) != folder(carved) != folder(carved, iterations=1)


def test_compiling_and_the_kind_of_device_are_in_the_name(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = resolved_for(toy)
    compiled = resolved_for(toy, compile=True)
    assert compiled.run.id != plain.run.id
    assert resolved_for(toy, device="cpu").run.id == resolved_for(toy, device="cpu").run.id
    # What a machine with a GPU resolves; no kernel runs.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    settings = {**SETTINGS, "precision": "fp32"}
    named = {device: resolved_for(toy, device=device, settings=settings).run.id for device in ("cpu", "cuda", "cuda:1")}
    assert named["cpu"] != named["cuda"] == named["cuda:1"]
    stages = {
        (device, compile): SharedStages(resolved_for(toy, device=device, compile=compile, settings=settings)).common
        for device in ("cpu", "cuda")
        for compile in (False, True)
    }
    assert len({str(common) for common in stages.values()}) == 4


def test_deterministic_is_in_the_name_where_it_moves_numbers(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolved_for(toy, deterministic=True).run.id == resolved_for(toy).run.id, "a CPU's sums have one order"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    settings = {**SETTINGS, "precision": "fp32"}
    asked = [resolved_for(toy, device="cuda", deterministic=x, settings=settings) for x in (False, True)]
    assert asked[0].run.id != asked[1].run.id
    assert SharedStages(asked[0]).common != SharedStages(asked[1]).common


def test_a_deterministic_run_trains_under_deterministic_algorithms_and_leaves_them_as_they_were(
    toy: Path, tmp_path: Path, quick: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def look(event: object) -> None:
        if isinstance(event, EpochFinished):
            seen.append((torch.are_deterministic_algorithms_enabled(), os.environ.get(CUBLAS)))

    monkeypatch.delenv(CUBLAS, raising=False)
    quick(toy, tmp_path, "single:text", deterministic=True, listener=look)
    assert set(seen) == {(True, ":4096:8")}
    assert (torch.are_deterministic_algorithms_enabled(), os.environ.get(CUBLAS)) == (False, None)


def test_an_operation_without_a_deterministic_form_is_named() -> None:
    with pytest.raises(RunFailed, match=r"--deterministic: put_.*without it, or on --device cpu"), reproducible(True):
        raise RuntimeError("put_ does not have a deterministic implementation, but you set it.\nMore.")
    with pytest.raises(RuntimeError, match="out of memory"), reproducible(True):
        raise RuntimeError("out of memory")
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_worker_gets_the_device_and_precision_that_are_in_the_name(toy: Path) -> None:
    request = Request(toy, Path("unused"))
    planned = plan_table(MODULES.spec(request, StudyOptions()), request, 1)
    request = settled(planned.cells[0])
    assert (request.device, request.settings["precision"]) == (str(planned.cells[0].resolved.device), "fp32")
    assert resolve(request).run.id == planned.cells[0].run.id


@pytest.mark.parametrize(
    ("owner", "method"),
    [(QMFConfig, "qmf"), (PgMMethodConfig, "pgm"), (Classification, "pgm")],
)
def test_a_raised_version_is_another_run(
    toy: Path, monkeypatch: pytest.MonkeyPatch, owner: type[Any], method: str
) -> None:
    before = resolved_for(toy, method=method).run.id
    shared = str(SharedStages(resolved_for(toy)).folder(first_stage(toy)))
    monkeypatch.setattr(owner, "version", owner.version + 1)
    assert resolved_for(toy, method=method).run.id != before
    # The first stage of PgM follows from PgM's code; no task has a part in it.
    moved = str(SharedStages(resolved_for(toy)).folder(first_stage(toy))) != shared
    assert moved == (owner is PgMMethodConfig)


@pytest.mark.parametrize("owner", [PgMMethodConfig, Classification])
def test_a_run_of_other_code_keeps_its_result_and_is_not_run_again(
    toy: Path, tmp_path: Path, quick: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, owner: type[Any]
) -> None:
    run = quick(toy, tmp_path, "pgm")
    before = evaluate_run(run, "test", None, "mapped", "auto")
    monkeypatch.setattr(owner, "version", owner.version + 1)
    with pytest.raises(IdentityMismatch, match="another version of the code of pgm"):
        evaluate_run(run, "test", None, "mapped", "auto")
    with pytest.raises(IdentityMismatch, match="Train it again"):
        predict(run, toy, None, tmp_path / "all.parquet", {}, "auto", "auto")
    assert Run(run.path).test == before["metrics"]


def first_stage(features: Path) -> Any:
    resolved = resolved_for(features)
    return resolved.method.build(resolved.shape).stages(resolved.protocol)[0]


def stored(run: Run, split: str) -> dict[str, Any]:
    """id -> what was stored of the sample, without its target."""
    return {row["id"]: {**row, "target": None} for row in pq.read_table(run.predictions_path(split)).to_pylist()}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", ["pgm", "concat"])
def test_what_is_read_back_is_what_was_stored(
    carved: Path, tmp_path: Path, quick: Callable[..., Run], method: str, precision: str
) -> None:
    asked = {"precision": precision, "val_fraction": 0.3}
    run = quick(carved, tmp_path, method, settings=asked)
    resolved = resolve(Request(carved, tmp_path, method=method, settings={**SETTINGS, **asked}))
    assert resolved.run.id == run.id
    assert load(run, "auto", resolved.data.task).machine.precision == precision
    for split in ("val", "test"):
        assert evaluate_run(run, split, None, "mapped", "auto")["metrics"] == run.result[split]
    predict(run, carved, None, tmp_path / "all.parquet", {}, "auto", "auto")
    everything = {row["id"]: {**row, "target": None} for row in pq.read_table(tmp_path / "all.parquet").to_pylist()}
    assert len(everything) == 128
    for split in ("val", "test"):
        for name, row in stored(run, split).items():
            assert everything[name] == row
    whole = measure(resolved).scores[frozenset({"text", "vision"})]
    assert whole == run.test
    # A mask that hides a few cells: the samples it leaves whole get other neighbours' padding, never other arithmetic.
    mask = split_mask(resolved.data, Missing(0.2))
    evaluate_under(resolved, mask)
    assert MaskedTests((mask,)).there(run)
    kept = pq.read_table(mask.predictions_path(run)).column("probabilities").to_pylist()
    same = pq.read_table(run.predictions_path("test")).column("probabilities").to_pylist()
    hidden = [any(row) for row in zip(*hidden_cells(resolved), strict=True)]
    untouched = [np.abs(np.subtract(a, b)).max() for a, b, h in zip(kept, same, hidden, strict=True) if not h]
    assert 5 < len(untouched) < 32
    assert max(untouched) < (1e-5 if precision == "fp32" else 0.02)


def hidden_cells(resolved: Resolved) -> list[list[bool]]:
    """Which test samples lose each modality under the mask of the test above."""
    from pgm.trainer.data.missing import mask_of

    rows = resolved.data.splits["test"]
    return [cells[rows].tolist() for cells in mask_of(resolved.data, Missing(0.2)).of("test").values()]


def test_predict_batches_the_runs_own_data_as_the_run_did_and_other_data_together(
    carved: Path, toy: Path, tmp_path: Path, quick: Callable[..., Run]
) -> None:
    """On a GPU a sample's last bits follow from the size of its batch, hence from who else is evaluated with it."""

    def groups(run: Run, features: Path) -> list[list[int]]:
        cached = open_dataset(features, "toy")
        opened = {m: cached.features(m) for m in ("text", "vision")}
        return [rows.tolist() for rows in evaluated_together(run, cached, opened)]

    run = quick(carved, tmp_path, "concat", settings={"val_fraction": 0.3})
    splits = resolved_for(carved, method="concat", settings={**SETTINGS, "val_fraction": 0.3}).data.splits
    assert groups(run, carved)[:3] == [splits[name].tolist() for name in ("train", "val", "test")]
    assert sorted(row for rows in groups(run, carved) for row in rows) == list(range(128))
    assert groups(run, toy) == [list(range(160))]


def test_predictions_need_no_labels_of_the_samples(
    toy: Path, tmp_path: Path, quick: Callable[..., Run], finished: Run
) -> None:
    features = tmp_path / "features"
    shutil.copytree(toy, features)
    dataset = open_dataset(features, "toy")
    publish(storage_at(features / "toy"), dataset.card, dataset.samples.drop_columns(["label"]), {})
    assert predict(finished, features, None, tmp_path / "all.parquet", {}, "auto", "auto") == 160


@pytest.mark.slow
# Both of torch's own compiler.
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_a_compiled_training_ends_in_a_run_that_loads(
    tmp_path: Path, make_toy: Callable[..., Path], quick: Callable[..., Run]
) -> None:
    # Batches of one shape, so that there is one graph to compile.
    features = make_toy(tmp_path / "features", counts={"train": 32, "val": 16, "test": 16}, longest=1)
    run = quick(features, tmp_path, "single:text", compile=True, settings={"epochs": 8, "lr": 1e-2})
    assert run.config["machine"]["compile"] is True
    losses = [entry["losses"]["loss"] for entry in run.metrics]
    assert losses[-1] < losses[0]
    assert evaluate_run(run, "test", None, "auto", "auto")["metrics"] == run.test
    assert run.val in [entry["val"] for entry in run.metrics], "what was selected on is what is stored"
