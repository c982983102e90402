"""PgM for people who have arrays and no cache: scikit-learn's `fit`, `predict` and `score` on a dictionary of arrays.

    PgMClassifier(epochs=8).fit({"text": text, "vision": vision}, labels).score(held_out, held_out_labels)

A modality is (N, D), or (N, S, D) for S tokens a sample, or a list of (S_i, D). One array alone is one modality, so
that scikit-learn's tools (`cross_val_score`, a pipeline) take it too. What `fit` trains is what `pgm train` would from
a cache: the arrays are written to one in a temporary folder, a share of the training samples is kept apart to select
weights, and the folder is removed. The model stays in memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_is_fitted, check_random_state, column_or_1d

from ...cache import DatasetCard, Identity, ids_digest, publish, storage_at, write_features
from ..tasks import Task
from .evaluation import collect
from .inference import Loaded, load, task_of
from .training import train

Samples = Mapping[str, Any] | Any  # modality -> (N, D), (N, S, D) or a list of (S_i, D); or one of these
ALONE = "features"
BLOCK = 1024  # samples predicted at a time


class _Estimator(BaseEstimator):
    """What both share.

    method: any of `pgm train --method`. preset: small or paper. epochs, pretrain_epochs: None for the preset's.
    settings: further switches of the protocol and the method. val_fraction: of the training samples, to select weights
    on. device: auto, cpu or cuda. random_state: an int, a RandomState, or None for another run every time.
    """

    _task: str

    def __init__(
        self,
        method: str = "pgm",
        preset: str = "small",
        epochs: int | None = None,
        pretrain_epochs: int | None = None,
        settings: Mapping[str, Any] | None = None,
        val_fraction: float = 0.1,
        device: str = "auto",
        random_state: Any = None,
    ) -> None:
        self.method = method
        self.preset = preset
        self.epochs = epochs
        self.pretrain_epochs = pretrain_epochs
        self.settings = settings
        self.val_fraction = val_fraction
        self.device = device
        self.random_state = random_state

    def _fit(self, samples: Samples, labels: NDArray[Any], classes: tuple[str, ...]) -> None:
        tokens = self._modalities(samples, reset=True)
        count = len(labels)
        for name, of in tokens.items():
            if len(of) != count:
                raise ValueError(f"{name!r} has {len(of)} samples and there are {count} labels.")
        if count < 2:
            raise ValueError(f"n_samples={count}: one is trained on and another selects weights, so two are needed.")
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        settings = dict(self.settings or {})
        settings |= {k: v for k in ("epochs", "pretrain_epochs") if (v := getattr(self, k)) is not None}
        with tempfile.TemporaryDirectory(prefix="pgm-fit-") as folder:
            root = Path(folder)
            write(root / "arrays", self._task, classes, tokens, labels, kept_apart(labels, self.val_fraction, seed))
            run = train(
                str(root), "arrays", self.method, seed, self.preset, runs=root / "runs", settings=settings,
                device=self.device,
            )  # fmt: skip
            self.result_ = run.result
            self._loaded: Loaded = load(run, self.device, task_of(run))
            self._decides: Task = task_of(run)

    def _predictions(self, samples: Samples) -> Mapping[str, Any]:
        """The task's columns, a value a sample."""
        check_is_fitted(self, "result_")
        tokens = self._modalities(samples, reset=False)
        if (lacking := self.modalities_ - tokens.keys()) or tokens.keys() - self.modalities_:
            having = ", ".join(sorted(self.modalities_))
            raise ValueError(f"It was fitted on {having}; these samples have {', '.join(sorted(tokens))} ({lacking}).")
        count = len(next(iter(tokens.values())))
        with tempfile.TemporaryDirectory(prefix="pgm-predict-") as folder:
            features = {name: stored(Path(folder), name, of) for name, of in tokens.items()}
            feed = self._loaded.feed("mapped", features, np.arange(count), np.zeros(count, np.int64), pa.table({}))
            return self._decides.predictions(collect(self._loaded.model, self._decides, feed, self._loaded.machine))

    def _modalities(self, samples: Samples, reset: bool) -> dict[str, list[NDArray[np.float32]]]:
        """modality -> (S, D) of each sample, checked as scikit-learn does."""
        # A sparse matrix by keys is a dictionary too.
        if isinstance(samples, Mapping) and not hasattr(samples, "toarray"):
            if not samples:
                raise ValueError("There is no modality: give a dictionary of arrays, {'text': (N, D), ...}.")
            found = {str(name): tokens_of(str(name), of) for name, of in samples.items()}
            widths = {name: of[0].shape[1] if of else 0 for name, of in found.items()}
        else:
            array = check_array(samples, dtype=np.float32, estimator=self)
            if reset:
                self.n_features_in_ = array.shape[1]
            elif array.shape[1] != self.n_features_in_:
                raise ValueError(
                    f"X has {array.shape[1]} features, but {type(self).__name__} is expecting {self.n_features_in_} "
                    "features as input"
                )
            found, widths = {ALONE: list(array[:, None, :])}, {ALONE: array.shape[1]}
        if reset:
            self.modalities_, self.widths_ = set(found), widths
        elif {name: widths[name] for name in found if name in self.widths_} != {
            name: self.widths_[name] for name in found if name in self.widths_
        }:
            raise ValueError(f"It was fitted on widths {self.widths_}; these samples have {widths}.")
        return found


class PgMClassifier(ClassifierMixin, _Estimator):
    """Classes, with probabilities. classes_: the labels as they were given, in order."""

    _task = "classification"

    def fit(self, X: Samples, y: Any) -> PgMClassifier:
        """X: modality -> (N, D) or (N, S, D); y: (N,) labels of any kind. Raises ValueError for what cannot be."""
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None.")
        labels = column_or_1d(y, warn=True)
        check_classification_targets(labels)
        self.classes_, numbers = np.unique(labels, return_inverse=True)
        self._fit(X, numbers.astype(np.int32), tuple(map(str, range(len(self.classes_)))))
        return self

    def predict_proba(self, X: Samples) -> NDArray[np.float32]:
        """(N, classes), each row summing to 1."""
        return np.asarray(self._predictions(X)["probabilities"])

    def predict(self, X: Samples) -> NDArray[Any]:
        """(N,) labels."""
        found: NDArray[Any] = self._predictions(X)["prediction"]
        found = self.classes_[found]
        return found


class PgMRegressor(RegressorMixin, _Estimator):
    """Scores, by the L1 loss of the sentiment task; they are scaled to unit deviation for training."""

    _task = "sentiment"

    def fit(self, X: Samples, y: Any) -> PgMRegressor:
        """X: modality -> (N, D) or (N, S, D); y: (N,) numbers. Raises ValueError for what cannot be fitted."""
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None.")
        scores = check_array(column_or_1d(y, warn=True), ensure_2d=False, dtype=np.float64, input_name="y")
        self._centre, self._scale = float(np.mean(scores)), float(np.std(scores)) or 1.0
        self._fit(X, ((scores - self._centre) / self._scale).astype(np.float32), ())
        return self

    def predict(self, X: Samples) -> NDArray[np.float64]:
        """(N,) numbers."""
        found = np.asarray(self._predictions(X)["prediction"], np.float64)
        scaled: NDArray[np.float64] = found * self._scale + self._centre
        return scaled


def tokens_of(name: str, given: Any) -> list[NDArray[np.float32]]:
    """(S, D) of each sample. Raises ValueError for another shape, or values that are not finite."""
    if isinstance(given, Sequence) and not isinstance(given, str) and any(np.ndim(one) == 2 for one in given):
        found = [np.asarray(one, np.float32) for one in given]
    else:
        array = check_array(given, dtype=np.float32, allow_nd=True, input_name=name)
        if array.ndim > 3:
            raise ValueError(f"{name!r} has shape {array.shape}: an array is (N, D) or (N, S, D).")
        found = list(array[:, None, :] if array.ndim == 2 else array)
    if len({one.shape[1:] for one in found}) > 1:
        raise ValueError(f"{name!r} has samples of different widths: every (S, D) needs the same D.")
    if not all(np.isfinite(one).all() for one in found):
        raise ValueError(f"{name!r} contains NaN or infinity.")
    return found


def kept_apart(labels: NDArray[Any], share: float, seed: int) -> list[str]:
    """(N,) "train" or "val": a share of the samples for selection, of every class where there are classes."""
    if not 0 < share < 1:
        raise ValueError(f"val_fraction={share}: a share between 0 and 1.")
    order = np.random.default_rng(seed).permutation(len(labels))
    if labels.dtype.kind in "iu":
        order = order[np.argsort(labels[order], kind="stable")]
    count = max(1, round(share * len(labels)))
    chosen = set(order[np.linspace(0, len(order) - 1, count).astype(np.int64)].tolist())
    return ["val" if row in chosen else "train" for row in range(len(labels))]


def write(
    folder: Path,
    task: str,
    classes: tuple[str, ...],
    tokens: Mapping[str, list[NDArray[np.float32]]],
    labels: NDArray[Any],
    splits: list[str],
) -> None:
    """The arrays as a cached dataset."""
    stores = {}
    for name, of in tokens.items():
        stores[_identity(name).folder] = _written(folder, name, of)
    ids = [str(row) for row in range(len(labels))]
    card = DatasetCard("arrays", task, classes, ("accuracy",), splits={s: splits.count(s) for s in ("train", "val")})
    publish(storage_at(folder), card, pa.table({"id": ids, "split": splits, "label": labels}), stores)


def stored(folder: Path, name: str, tokens: list[NDArray[np.float32]]) -> Any:
    """The features of arrays, opened from a folder."""
    from ...cache import open_features

    _written(folder, name, tokens)
    return open_features(folder / _identity(name).folder)


def _identity(name: str) -> Identity:
    return Identity(name, "arrays", {"weights": "arrays"})


def _written(folder: Path, name: str, tokens: list[NDArray[np.float32]]) -> int:
    ids = [str(row) for row in range(len(tokens))]
    packed = np.concatenate(tokens)
    lengths = [len(one) for one in tokens]
    return write_features(
        storage_at(folder), _identity(name), ids, ids_digest(ids), lengths, packed, "float32", "hdf5"
    ).number
