"""`pgm train --cached` as a function: one request to one finished run.

A run that is there already answers at once; an interrupted one continues exactly; the test split is opened after the
last weight has been selected, evaluated once, and never again.
"""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...cache import Place
from ...cache.storage.sealed_json import spelled
from ..data.feed import Feed, open_feed
from ..data.missing import Missing
from ..data.sequence import Context
from ..methods import Asked, Method
from ..protocol import Position, Protocol
from ..randomness import derived, own_randomness
from .callbacks import Asked as AskedCallback
from .callbacks import notes_of, outcome
from .checkpoint import Checkpoints
from .evaluation import Evaluated, evaluate
from .events import Listener, Note, RunFinished, RunStarted, silent
from .files import read_json, write_json
from .gradients import GradientNorms
from .home import CONFIG, RESULT, WEIGHTS, Root, folder_of
from .lock import RunLock
from .loop import Training
from .machine import Machine, reproducible
from .model import Model, NullTokens, Standardize, measured_statistics
from .position import Positions
from .predictions import predictions_table, write_predictions
from .record import Journal, environment, floors_of, save_weights, selected_epochs
from .request import Request, Resolved, features_root, resolve, runs_root
from .runs import ENVIRONMENT, METRICS, Run, content_hash
from .stages import SharedStages
from .step import Trainer
from .threads import fitting_threads
from .tuning import Tuned, tuned

CHECKPOINT_SECONDS = 5.0
TRIAL = "trial.json"


@dataclass(frozen=True)
class Execution:
    """How a run is carried out; nothing here changes its numbers. sharing: runs that train at once on its device."""

    feed: str = "auto"
    force: bool = False
    listener: Listener = silent
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    watch_gradients: bool = True
    sharing: int = 1


def train(
    features: Place | None = None,
    dataset: str | None = None,
    method: Asked = "pgm",
    seed: int = 0,
    preset: str = "small",
    *,
    runs: Root | None = None,
    settings: Mapping[str, Any] | None = None,
    modalities: Sequence[str] | None = None,
    stores: Mapping[str, str] | None = None,
    split: str | None = None,
    missing: Missing | None = None,
    context: Context | None = None,
    version: int | str | None = None,
    device: str = "auto",
    feed: str = "auto",
    compile: bool = False,
    deterministic: bool = False,
    force: bool = False,
    callbacks: Sequence[AskedCallback] = (),
    listener: Listener = silent,
) -> Run:
    """Train a method on a cached dataset and return the run; at once if the same has been trained before.

    features, runs (each a folder or s3://...): the roots (default PGM_FEATURES or features/, PGM_RUNS or runs/).
    dataset: needed when several are cached. method: a name (pgm, concat, mla, ..., single:NAME or a modality's name),
    one of your own as package.module:Class or by its installed name, or a configuration as it is. preset: small or
    paper. settings: switches of the protocol and of the method by name, {"epochs": 20, "iterations": 2}. stores:
    modality -> digest, where several stores are cached. split: a named split (`pgm cache split`), by default the
    dataset's own. version: of the dataset, by number or name (`pgm cache log`), by default the latest. missing:
    modalities to take away from training and validation samples (missing.py). context: the utterances around a sample's
    own that become its tokens (sequence.py). deterministic: the same bits again on a GPU, slower. force: train anew.
    callbacks: what may stop the run or add metrics, each as it is, its class, its installed name or
    package.module:Class (callbacks.py). listener: what hears of it. Raises UserError (and its kinds) for requests that
    cannot be met, RunFailed when training breaks down.
    """
    request = Request(
        features=features_root(features),
        runs=runs_root(runs),
        dataset=dataset,
        method=method,
        preset=preset,
        seed=seed,
        settings=settings or {},
        modalities=modalities,
        stores=stores or {},
        device=device,
        split=split,
        missing=missing,
        context=context,
        version=version,
        compile=compile,
        deterministic=deterministic,
        callbacks=callbacks,
    )
    return carry_out(resolve(request), Execution(feed=feed, force=force, listener=listener))


def carry_out(resolved: Resolved, how: Execution) -> Run:
    """Answer from the finished run, continue the interrupted one, or train."""
    run = resolved.run
    if run.finished and not how.force:
        announce(run, how.listener, reused=True)
        return run
    run.path.mkdir(parents=True, exist_ok=True)
    lock = RunLock(run.path)
    lock.acquire()
    try:
        if how.force:
            empty(run)
        with own_randomness(resolved.device), reproducible(resolved.request.deterministic):
            fill(run, resolved, how)
    finally:
        lock.release()
    announce(run, how.listener, reused=False)
    return run


def empty(run: Run) -> None:
    """Remove what an earlier training left; result.json first: what is half removed is not finished."""
    (run.path / RESULT).unlink(missing_ok=True)
    for path in run.path.iterdir():
        if path.name != ".lock":
            path.unlink()


def fill(run: Run, asked: Resolved, how: Execution) -> None:
    """Train, evaluate, and write everything a finished run holds."""
    started = time.perf_counter()
    if not asked.request.compile:
        # The first optimiser imports torch._dynamo, which takes a second or two; meanwhile the features are read.
        # Not where torch.compile imports it too: two threads at once leave it half imported.
        threading.Thread(target=importlib.import_module, args=("torch._dynamo",), daemon=True).start()
    listener, chosen = how.listener, tuning_of(asked, how)
    resolved = asked if chosen is None else replace(asked, protocol=chosen.protocol)
    training = prepared(run.path, resolved, how)
    write_json(run.path / CONFIG, asked.config)
    write_json(run.path / ENVIRONMENT, environment(resolved, training.feeds))
    training.resume()
    earlier = sum(entry["seconds"] for entry in training.progress.history)
    for note in resolved.notes:
        listener(Note(note))
    listener(started_event(run, resolved, training, training.feeds))
    with fitting_threads(training.model, resolved.device):
        training.run()
        told = {} if chosen is None else {"tuned": chosen.as_dict(resolved.data.task.monitor)}
        finish(run, resolved, how, training, earlier + time.perf_counter() - started, told)


def tuning_of(asked: Resolved, how: Execution) -> Tuned | None:
    """The rates and epochs that validation chooses; None where none are to be tried."""
    if not asked.protocol.tune:
        return None
    folder = folder_of(asked.request.runs) / "trials"

    def score(protocol: Protocol) -> dict[str, float]:
        trial = replace(asked, protocol=protocol)
        path = folder / content_hash(trial.config)
        if how.force or not (path / TRIAL).exists():
            path.mkdir(parents=True, exist_ok=True)
            training = prepared(path, trial, replace(how, listener=silent))
            training.resume()
            with fitting_threads(training.model, trial.device):
                training.run()
                found = evaluate(training.model, trial.data.task, training.feeds["val"], training.trainer.machine)
            write_json(path / TRIAL, {"val": found.metrics, "config": trial.config}, sync=True)
            training.checkpoints.remove()
        metrics: dict[str, float] = read_json(path / TRIAL)["val"]
        monitor = asked.data.task.monitor
        how.listener(Note(f"trial lr {protocol.lr:g}, {protocol.epochs} epochs: val {monitor} {metrics[monitor]:.4f}"))
        return metrics

    return tuned(asked.protocol, asked.data.task, score)


def prepared(folder: Path, resolved: Resolved, how: Execution) -> Training:
    """A run's training, with its data read and its model built, and nothing trained; its files go to the folder."""
    listener = how.listener
    machine = Machine(resolved.device, resolved.protocol.precision, resolved.request.compile)
    # A large split takes seconds to copy; the input statistics take one more, and can have it meanwhile.
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(
            lambda: {split: feed_of(resolved, split, how.feed, how.sharing) for split in ("train", "val")}
        )
        model = build_model(resolved).to(resolved.device)
        feeds = reading.result()
    shared = None if how.force or resolved.callbacks else SharedStages(resolved)
    norms = GradientNorms(model.method.modality_parameters()) if how.watch_gradients else None
    trainer = trainer_of(resolved, model, feeds["train"], machine, listener, norms)
    checkpoints, journal = Checkpoints(folder, how.checkpoint_seconds), Journal(folder / METRICS)
    return Training(trainer, feeds["val"], checkpoints, journal, shared, resolved.callbacks)


def finish(
    run: Run, resolved: Resolved, how: Execution, training: Training, seconds: float, told: Mapping[str, Any]
) -> None:
    """Write the selected weights, the predictions, and the result; the test split is opened here."""
    data, model, progress = resolved.data, training.model, training.progress
    save_weights(run.path / WEIGHTS, model)
    test = feed_of(resolved, "test", how.feed, how.sharing)
    scores: dict[str, Evaluated] = {}
    for split, feed in (("val", training.feeds["val"]), ("test", test)):
        if len(feed):
            scores[split] = evaluate(model, data.task, feed, training.trainer.machine)
            ids = [data.ids[row] for row in feed.rows]
            table = predictions_table(data.task, ids, scores[split].views, scores[split].targets)
            write_predictions(run.predictions_path(split), table)
    result = {
        "run": run.id,
        "dataset": data.card.name,
        "method": resolved.method.name,
        "seed": resolved.request.seed,
        "parameters": model.trainable,
        "val": scores["val"].metrics,
        "test": scores["test"].metrics if "test" in scores else {},
        "floors": floors_of(resolved),
        "samples": {split: len(rows) for split, rows in data.splits.items()},
        "epochs": selected_epochs(progress.history, data.task),
        "seconds": round(seconds, 3),
        "samples_per_second": round(progress.samples / max(progress.seconds, 1e-9), 1),
        "waiting": round(progress.waited / max(progress.seconds, 1e-9), 5),
        "notes": [*resolved.notes, *notes_of(resolved.callbacks, progress.history)],
        **told,
        **({"callbacks": outcome(resolved.callbacks, progress.history)} if resolved.callbacks else {}),
    }
    if run.home is not None:
        # First there: a result here then says that the run is where others look for it.
        run.home.put(run.path, {RESULT: spelled(result)}, anew=how.force)
    if not (run.path / RESULT).exists():
        write_json(run.path / RESULT, result, sync=True)
    training.checkpoints.remove()


def feed_of(resolved: Resolved, split: str, kind: str, sharing: int = 1) -> Feed:
    """The feed of one split."""
    data = resolved.data
    rows = data.splits[split]
    tokens, groups = resolved.protocol.tokens, resolved.groups(split)
    return open_feed(kind, resolved.features, rows, data.targets[rows], tokens, resolved.device, groups, sharing)


def trainer_of(
    resolved: Resolved,
    model: Model,
    train: Feed,
    machine: Machine,
    listener: Listener = silent,
    norms: GradientNorms | None = None,
) -> Trainer:
    """What trains a model on the training split, with the label columns besides the task's that its method reads."""
    rows, device = resolved.data.splits["train"], resolved.device
    labels = {name: torch.from_numpy(column[rows]).to(device) for name, column in resolved.further.items()}
    task, protocol, seed = resolved.data.task, resolved.protocol, resolved.request.seed
    return Trainer(model, task, protocol, seed, train, machine, listener, norms, labels)


def build_model(resolved: Resolved) -> Model:
    """The untrained model, on the CPU; its weights follow from the seed and the method's configuration."""
    data, protocol = resolved.data, resolved.protocol
    statistics = measured_statistics(resolved.features, data.splits["train"]) if protocol.standardize else None
    torch.manual_seed(derived(resolved.request.seed, "initial weights"))
    method = resolved.method.build(resolved.shape)
    return assembled(method, data.task.cross_modal, data.widths, statistics, protocol.position)


def assembled(
    method: Method,
    retrieval: bool,
    widths: Mapping[str, int],
    statistics: Mapping[str, tuple[Tensor, Tensor]] | None,
    position: Position,
) -> Model:
    """A method with its input statistics and positions, null tokens where retrieval shows one modality at a time."""
    null = NullTokens(widths) if retrieval and not method.skips_missing else None
    positions = None if position == "none" else Positions(position, tuple(widths))
    return Model(method, None if statistics is None else Standardize(statistics), null, positions)


def started_event(run: Run, resolved: Resolved, training: Training, feeds: Mapping[str, Feed]) -> RunStarted:
    return RunStarted(
        run=run.id,
        dataset=resolved.data.card.name,
        method=resolved.method.name,
        seed=resolved.request.seed,
        parameters=training.model.trainable,
        samples={split: len(rows) for split, rows in resolved.data.splits.items()},
        feed=f"{feeds['train'].kind} ({feeds['train'].reason})",
        device=str(resolved.device),
        precision=resolved.protocol.precision,
        finished_epochs=len(training.progress.history),
        epochs=training.total_epochs,
    )


def announce(run: Run, listener: Listener, reused: bool) -> None:
    """Tell the listener what came out."""
    result = run.result
    fields = {name: result[name] for name in ("run", "dataset", "method", "val", "test", "floors", "seconds")}
    listener(RunFinished(**fields, reused=reused))
