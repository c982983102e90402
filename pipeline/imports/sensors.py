"""Sets of several real sensors, each one .npz as it is passed around: their labels, splits or folds, and metric.

    physionet2012   8,000 stays in intensive care: vitals, labs, support (48 hours), static; death; AUROC; set a / set b
    borealtc        windows of 2 s of a robot on five terrains: imu, wheel; folds by recording; balanced accuracy
    hydraulic       cycles of 60 s of a hydraulic rig: five groups of sensors; the accumulator's state, or --labels KEY
    extrasensory    a minute of 37 people's phones and watches: five groups of features; posture; the official folds

Where a value was not measured it becomes the training samples' median and a further feature says so (features that are
always missing together share one); values beyond the training samples' 0.5 and 99.5 per cent are set to these, because
clinical records hold a pH of 735. A sample of which nothing was measured lacks the modality. Folds: fold 0 is the test
split, fold 1 validates; the column `fold` has all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...cache.errors import NotFound, UserError
from ...cache.nearest import did_you_mean
from .arrays import text_of
from .containers import Opened, array_of
from .files import value_of
from .imported import Imported, Options, PackedTokens
from .padding import frames_of, pack

Array = NDArray[Any]
TAILS = (0.005, 0.995)
FILLED = "median and indicators, clipped at .005 and .995"
CLIPPED = "values beyond the training samples' 0.5 and 99.5 per cent are set to these"
BY_FOLD = "No official split: fold 0 is the test split, fold 1 validates, the others train; --folds own takes them all."
COMPLETE = "1,239 of 3,534 windows lack the IMU, and that tells the class (FLOORING or ICE): they are left out."
HYDRAULIC = ("pressure", "power", "flow", "temperature", "vibration")
STATES = ("accumulator", "cooler", "valve", "pump", "stable")
CLINICAL = ("vitals", "labs", "support", "static")
POSTURES = ("LYING_DOWN", "SITTING", "OR_standing", "FIX_walking", "FIX_running", "BICYCLING")
SENSORS: Mapping[str, tuple[str, ...]] = {
    "phone": ("raw_acc", "proc_gyro", "raw_magnet"),
    "watch": ("watch_acceleration", "watch_heading"),
    "location": ("location", "location_quick_features"),
    "audio": ("audio_naive", "audio_properties"),
    "state": ("discrete", "lf_measurements"),
}


def holds(*keys: str) -> Any:
    """Whether the one file is an .npz with these arrays, as a function of the files."""
    return lambda files: len(files) == 1 and files[0].kind == "npz" and {*keys} <= {*files[0].names}


recognises_physionet = holds(*CLINICAL, "y", "split")
recognises_borealtc = holds("imu", "wheel", "has_imu", "fold")
recognises_hydraulic = holds(*HYDRAULIC, "accumulator", "fold")
recognises_extrasensory = holds("features", "feature_names", "labels", "label_names", "user", "uuids")


def read_physionet(files: Sequence[Opened], options: Options) -> Imported:
    """Death in hospital, set a against set b."""
    file = files[0]
    splits = texts(file, "split")
    rows = np.array(splits) == "train"
    raw = {name: frames_of(key(file, name)) for name in chosen(file, CLINICAL, options)}
    modalities = {name: packed(file, name, values, rows) for name, values in raw.items()}
    return Imported(
        modalities, key(file, "y"), texts(file, "ids"), splits, task=options.task or "classification",
        classes=("survived", "died"), notes=(f"Not measured: median and an indicator; {CLIPPED}.",), metric="auroc",
    )  # fmt: skip


def read_borealtc(files: Sequence[Opened], options: Options) -> Imported:
    """Terrain, of the windows with both sensors."""
    file = files[0]
    kept = key(file, "has_imu")
    folds, names = key(file, "fold")[kept], texts(file, "class_names")
    raw = {name: frames_of(key(file, name))[kept] for name in chosen(file, ("imu", "wheel"), options)}
    recordings = texts(file, "recording_names")
    return by_fold(
        folds,
        modalities={name: packed(file, name, values, folds > 1) for name, values in raw.items()},
        labels=key(file, "label")[kept],
        ids=np.array(texts(file, "ids"))[kept].tolist(),
        groups=[recordings[one] for one in key(file, "group")[kept]],
        classes=names,
        notes=(COMPLETE,),
        metric="balanced_accuracy",
    )


def read_hydraulic(files: Sequence[Opened], options: Options) -> Imported:
    """One of the rig's states, by runs of cycles."""
    file, state = files[0], str(options.labels or STATES[0])
    if state not in STATES:
        raise NotFound(
            f"--labels of hydraulic is one of {', '.join(STATES)}, not {state}.{did_you_mean(state, STATES)}"
        )
    folds, labels = key(file, "fold"), key(file, state)
    raw = {name: frames_of(key(file, name)) for name in chosen(file, HYDRAULIC, options)}
    values, numbers = np.unique(labels, return_inverse=True)
    return by_fold(
        folds,
        modalities={name: packed(file, name, array, folds > 1) for name, array in raw.items()},
        labels=numbers,
        ids=texts(file, "ids"),
        groups=[str(group) for group in key(file, "group")],
        classes=tuple(map(str, values)),
        notes=(f"The label is the state of the {state}.",),
    )


def read_extrasensory(files: Sequence[Opened], options: Options) -> Imported:
    """Posture, of the minutes in which exactly one of six is reported; the official folds of users."""
    file = files[0]
    names, features = np.array(texts(file, "feature_names")), key(file, "features")
    reported = key(file, "labels")[:, [label_place(file, posture) for posture in POSTURES]] == 1
    kept = reported.sum(axis=1) == 1
    users = [texts(file, "uuids")[user] for user in key(file, "user")[kept]]
    official = official_folds(file.path.parent / "cv_5_folds")
    folds = np.array([official[user] for user in users])
    sensor = np.array([name.split(":")[0] for name in names])
    raw = {
        name: frames_of(features[kept][:, np.isin(sensor, SENSORS[name])])
        for name in chosen(file, tuple(SENSORS), options, among=tuple(SENSORS))
    }
    return by_fold(
        folds,
        modalities={name: packed(file, "features", array, folds > 1, name) for name, array in raw.items()},
        labels=reported[kept].argmax(axis=1),
        ids=[f"{row:05d}" for row in np.flatnonzero(kept)],
        groups=users,
        classes=tuple(name.split("_")[-1].lower() for name in POSTURES),
        notes=(f"Not measured: median and an indicator, of fold 0's training users; {CLIPPED}.",),
        metric="balanced_accuracy",
    )


def by_fold(folds: Array, **fields: Any) -> Imported:
    """Fold 0 tests, fold 1 validates."""
    splits = np.where(folds == 0, "test", np.where(folds == 1, "val", "train")).tolist()
    made = Imported(splits=splits, task="classification", folds=folds.tolist(), **fields)
    return replace(made, notes=(*made.notes, BY_FOLD))


def official_folds(folder: Path) -> dict[str, int]:
    """User -> the fold that tests it. Raises NotFound where the lists are not beside the file."""
    if not folder.is_dir():
        raise NotFound(f"The official folds of extrasensory are lists of users in {folder}, which is not there.")
    lists = sorted(folder.glob("fold_*_test_*_uuids.txt"))
    return {user: int(path.name.split("_")[1]) for path in lists for user in path.read_text().split()}


def label_place(file: Opened, posture: str) -> int:
    """The column of a label. Raises UserError where the file has it not."""
    names = texts(file, "label_names")
    if (name := f"label:{posture}") not in names:
        raise UserError(f"{file.path.name} has no label {name!r}, of which posture is made.")
    return names.index(name)


def key(file: Opened, name: str) -> Array:
    """An array of the file."""
    return array_of(value_of(file.names, name, file.path), name, file.path)


def texts(file: Opened, name: str) -> list[str]:
    """An array of text."""
    return [text_of(one) for one in key(file, name).tolist()]


def chosen(file: Opened, every: Sequence[str], options: Options, among: Sequence[str] = ()) -> Sequence[str]:
    """The modalities asked for. Raises NotFound for one that the set has not."""
    for name in options.modalities:
        if name not in (among or every):
            near = did_you_mean(name, every)
            raise NotFound(f"{file.path.name} has no modality {name!r}; it has {', '.join(every)}.{near}")
    return options.modalities or every


def packed(file: Opened, array: str, values: Array, train: Array, part: str | None = None) -> PackedTokens:
    """Tokens (N, S, D) of which some were not measured; none where nothing was. train: (N,) whose statistics fill."""
    measured = np.isfinite(values)
    lengths = np.where(measured.any(axis=(1, 2)), values.shape[1], 0).astype(np.int64)
    tokens = values if measured.all() else completed(values, measured, train)
    more = {} if part is None else {"part": part}
    return PackedTokens(pack([tokens], [lengths]), lengths, file.source(array, filled=FILLED, **more))


def completed(values: Array, measured: Array, train: Array) -> Array:
    """(N, S, D + K): gaps filled, tails clipped, and K indicators of what was measured."""
    known = np.where(measured, values, np.nan)[train].reshape(-1, values.shape[2]).astype(np.float64)
    never = ~np.isfinite(known).any(axis=0)
    known[:, never] = 0.0
    low, middle, high = np.nanquantile(known, (TAILS[0], 0.5, TAILS[1]), axis=0)
    whole = np.where(measured, np.clip(np.where(measured, values, 0.0), low, high), middle)
    gaps = np.unique(measured.reshape(-1, values.shape[2]), axis=1).reshape(*values.shape[:2], -1)
    told = gaps[:, :, ~gaps.all(axis=(0, 1))]
    return np.concatenate([whole, told], axis=2, dtype=np.float32)
