"""What is asked of the trainer, resolved into what decides the numbers, and their hash."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from numpy.typing import NDArray

from ...cache import Features, Place, open_dataset
from ...cache.errors import UserError
from ...cache.nearest import did_you_mean
from ...plugins import versions
from ..data.dataset import TrainingData, encoder_of, grouping, load_data, modalities_in, only_dataset
from ..data.folds import CrossValidation
from ..data.groups import Groups
from ..data.missing import TRAINED, Missing, described, mask_of, without
from ..data.sequence import Context, widths_shown
from ..head.switches import changed, checked, switches_of
from ..methods import Asked, MethodConfig, Shape, choose, modalities_of
from ..protocol import Position, Protocol
from .callbacks import Asked as AskedCallback
from .callbacks import Callback, chosen
from .floors import VERSION as FLOORS
from .home import Root, runs_place
from .machine import device_for, precision_for
from .position import widths_with
from .runs import RECIPE, Run, content_hash, run_at

DEFAULT_METHOD = "pgm"
MISSING_NOTE = "Trained with "  # how the note on a run with missing modalities begins


@dataclass(frozen=True)
class Request:
    """One run: where the features and runs are, and every switch. `settings` go to the protocol and to the method.

    split: a named split of the dataset (`pgm cache split`), None for its own. missing: modalities to take away from
    training and validation samples, None for none. version: of the dataset, by number or name, None for the latest.
    compile: torch.compile the model. deterministic: the same bits again on a GPU. context: what samples are shown of
    their groups, None for nothing. callbacks: what may stop the run or add metrics (callbacks.py). folds: what stands
    for as many runs (data/folds.py), None for one.
    """

    features: Place
    runs: Root
    dataset: str | None = None
    method: Asked = DEFAULT_METHOD
    preset: str = "small"
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    modalities: Sequence[str] | None = None
    stores: Mapping[str, str] = field(default_factory=dict)
    device: str = "auto"
    split: str | None = None
    missing: Missing | None = None
    version: int | str | None = None
    compile: bool = False
    deterministic: bool = False
    context: Context | None = None
    callbacks: Sequence[AskedCallback] = ()
    folds: CrossValidation | None = None

    @property
    def each_fold(self) -> list[Request]:
        """A request a fold; itself where none are asked for. Raises UserError for folds that are not there."""
        if self.folds is None:
            return [self]
        if self.split is not None:
            raise UserError(f"--folds says which samples test, and so does --split {self.split}; give one of them.")
        dataset = open_dataset(self.features, self.dataset or only_dataset(self.features), self.version)
        folds = self.folds.folds(dataset.samples, dataset.card)
        return [dataclasses.replace(self, split=fold.name, folds=None) for fold in folds]


@dataclass(frozen=True)
class Resolved:
    """A request with nothing left open."""

    request: Request
    folder: str  # the dataset's, under the features root
    data: TrainingData
    method: MethodConfig
    protocol: Protocol
    device: torch.device
    callbacks: tuple[Callback, ...] = ()

    @property
    def shape(self) -> Shape:
        return shape_of(self.data, self.request.context, self.protocol.position)

    @property
    def data_identity(self) -> dict[str, Any]:
        """What of the data decides the numbers; the last three only where they say something."""
        context, further = self.request.context, {name: digest_of(x) for name, x in self.further.items()}
        return {
            "dataset": self.data.card.name,
            "digest": self.data.digest,
            "stores": self.data.stores,
            **({} if self.taken is None else {"missing": self.taken}),
            **({} if context is None else {"sequence": {"by": "group", "context": context.utterances}}),
            **({"further": further} if further else {}),
        }

    @cached_property
    def further(self) -> dict[str, NDArray[Any]]:
        """The labels that the method trains on besides the task's, where the dataset has them: (N,) each."""
        return self.data.labels(self.method.further_labels)

    def groups(self, split: str) -> Groups | None:
        """The groups of a split's samples, where the method or the sequences ask for them."""
        return grouping(self.data.samples, self.data.splits[split], self.method.whole_groups, self.request.context)

    @property
    def machine(self) -> dict[str, Any]:
        """What of the machine decides numbers beyond rounding: dropout draws by device, and anew when compiled."""
        # On a CPU every sum has one order, asked for or not.
        ordered = self.request.deterministic and self.device.type != "cpu"
        known = {"deterministic": True} if ordered else {}
        return {"device": self.device.type, "compile": self.request.compile, **known}

    @cached_property
    def taken(self) -> dict[str, Any] | None:
        """What is taken away from training and validation samples, None for nothing."""
        missing = self.request.missing
        if missing is None or not missing.rate:
            return None
        return described(mask_of(self.data, missing), missing, *TRAINED)

    @property
    def features(self) -> Mapping[str, Features]:
        """The stores as training and validation see them; the test split is whole."""
        missing = self.request.missing
        if missing is None or self.taken is None:
            return self.data.features
        return without(self.data.features, mask_of(self.data, missing).of(*TRAINED), missing.fill)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the numbers must know."""
        missing = self.request.missing
        if missing is None or self.taken is None:
            return self.data.notes
        mask = mask_of(self.data, missing)
        return (missing_note(mask.achieved["train"], missing), *filter(None, [mask.note]), *self.data.notes)

    @property
    def config(self) -> dict[str, Any]:
        """config.json: all that decides the numbers, and nothing else; `split` only where a named one was asked for."""
        own_metric = self.data.task.own_metric
        return {
            "recipe": {"training": RECIPE, "task": self.data.task.code},
            "floors": FLOORS,
            **self.data_identity,
            **({} if self.request.split is None else {"split": self.request.split}),
            "task": self.data.card.task,
            "classes": list(self.data.task.classes),
            "widths": self.data.widths,
            "encoders": {name: encoder_of(store) for name, store in self.data.features.items()},
            "method": self.method.describe(),
            "protocol": self.protocol.describe(),
            **({"callbacks": [one.describe() for one in self.callbacks]} if self.callbacks else {}),
            **({} if own_metric is None else {"metric": versions(type(own_metric))}),
            "machine": self.machine,
            "seed": self.request.seed,
        }

    @property
    def run(self) -> Run:
        return run_at(self.request.runs, content_hash(self.config))


def shape_of(data: TrainingData, context: Context | None, position: Position) -> Shape:
    """What a method must fit. Raises UserError for tokens that are told their place twice."""
    if context is not None and position != "none":
        raise UserError(f"position={position}: tokens of --sequence group are told how far they lie already.")
    widths = widths_with(position, widths_shown(data.widths, context))
    return Shape(widths, data.task.outputs, data.task.classes)


def digest_of(labels: NDArray[Any]) -> str:
    """32 hex digits of a label column."""
    return hashlib.blake2b(repr(labels.tolist()).encode(), digest_size=16).hexdigest()


def missing_note(share: float, missing: Missing) -> str:
    """The note on a run that was trained on samples with missing modalities."""
    how = "skipped" if missing.fill == "skip" else "as zeros"
    return f"{MISSING_NOTE}{share:.1%} of the (sample, modality) pairs missing, {how} (mask seed {missing.seed})."


def resolve(request: Request) -> Resolved:
    """Open the data and fix every switch. Raises UserError or NotFound for what cannot be met."""
    request = dataclasses.replace(request, seed=checked("seed", request.seed, int))
    folder = request.dataset or only_dataset(request.features)
    dataset = open_dataset(request.features, folder, request.version)
    device = device_for(request.device)
    protocol, rest = changed(Protocol.preset(request.preset), request.settings)
    protocol = dataclasses.replace(protocol, precision=precision_for(protocol.precision, device))
    names = modalities_of(request.method, modalities_in(dataset, request.modalities))
    data = load_data(dataset, names, request.stores, protocol, request.split)
    method, unknown = choose(request.method, request.preset, shape_of(data, request.context, protocol.position), rest)
    if data.task.cross_modal and request.context is not None:
        raise UserError(f"{data.card.name!r} is a retrieval dataset: an item is looked up without its neighbours.")
    if data.task.cross_modal and not method.retrieves:
        raise UserError(
            f"Method {method.name!r} learns class probabilities and no vector to compare, so it cannot do "
            f"{data.card.name!r}, a retrieval dataset. Choose a fusion method such as pgm or concat."
        )
    if unknown:
        refuse(unknown, protocol, method)
    # By the name that does not depend on how the metric was asked for; the task's own is no other than none.
    on = data.task.monitor if data.task.monitor != type(data.task).monitor else ""
    protocol = dataclasses.replace(protocol, select_on=on)
    return Resolved(request, folder, data, method, protocol, device, chosen(request.callbacks))


def refuse(unknown: Mapping[str, Any], protocol: Protocol, method: MethodConfig) -> None:
    """Raise UserError for settings that neither the protocol nor the method has."""
    name = next(iter(unknown))
    switches = sorted({*switches_of(protocol), *switches_of(method)})
    raise UserError(
        f"No switch {name!r} in the protocol or in method {method.name!r}. There are: {', '.join(switches)}."
        f"{did_you_mean(name, switches)}"
    )


def features_root(given: Place | None) -> Place:
    """--features, PGM_FEATURES or features/."""
    return given or os.environ.get("PGM_FEATURES") or "features"


def runs_root(given: Root | None) -> Root:
    """--runs, PGM_RUNS or runs/."""
    return runs_place(given or os.environ.get("PGM_RUNS") or "runs")
