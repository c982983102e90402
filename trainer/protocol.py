"""The protocol: everything about training that is not the data and not the method. Every method gets the same one.

From the paper (sections 3.4 and 4.2): 20 epochs of L^P, then 50 of alpha L^P + beta L^T with alpha .5 and beta 1, and
the learning rates 3e-4, learners 1e-4, decoder 1e-3. What the paper leaves open (spec A17): AdamW, weight decay 1e-4,
batch 32, clip 1, selection on the validation metric. The `small` preset keeps all of it except the epochs (4 + 12)
and the learning rates (three times as high), so that a comparison takes a minute on two cores.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from ..cache.errors import UserError

Schedule = Literal["constant", "cosine"]
Sentiment = Literal["regression", "classes"]
Precision = Literal["auto", "fp32", "bf16"]
Config = TypeVar("Config")


@dataclass(frozen=True)
class Protocol:
    """Training, selection and data switches; part of a run's identity.

    Equal budgets: whatever its stages are, every network of every row is trained for `budget` epochs over the same
    training samples. A method, or an ablation of one, without a first stage trains all of them on the task; a network
    trained on one modality alone (a member of the ensemble, a teacher of UMT) has as many as a joint one.
    """

    pretrain_epochs: int = 20  # stage 1 on L^P (eq. 11); needs no labels
    epochs: int = 50  # stage 2 on alpha L^P + beta L^T (eq. 12)
    batch: int = 32
    lr: float = 3e-4
    lr_learners: float = 1e-4
    lr_decoder: float = 1e-3
    alpha: float = 0.5
    beta: float = 1.0
    weight_decay: float = 1e-4
    clip: float = 1.0  # gradient norm; 0 switches it off
    schedule: Schedule = "constant"
    warmup: float = 0.0  # share of a stage's steps
    patience: int = 0  # epochs without a better validation score before a stage stops; 0 never stops early
    tokens: int = 0  # pool every sample to at most this many tokens at load; 0 keeps them all
    standardize: bool = True  # features to zero mean and unit variance, statistics from the training split
    precision: Precision = "auto"
    sentiment: Sentiment = "regression"
    val_fraction: float = 0.1  # carved from train where the dataset has no validation split
    split_seed: int = 0  # of that carving: not the training seed, so that all seeds select on the same samples

    def __post_init__(self) -> None:
        positive = {"batch": self.batch, "epochs": self.epochs, "lr": self.lr}
        for name, value in positive.items():
            if value <= 0:
                raise UserError(f"{name} must be positive, not {value}.")
        negative = [
            n for n in ("pretrain_epochs", "patience", "tokens", "clip", "weight_decay") if getattr(self, n) < 0
        ]
        if negative:
            raise UserError(f"{negative[0]} must not be negative, and is {getattr(self, negative[0])}.")
        if not 0 < self.val_fraction < 1:
            raise UserError(f"val_fraction must lie between 0 and 1, not {self.val_fraction}.")

    @property
    def budget(self) -> int:
        """Epochs of training a network has in all."""
        return self.pretrain_epochs + self.epochs

    @classmethod
    def preset(cls, name: str) -> Protocol:
        """`paper` (20 + 50 epochs, the paper's learning rates) or `small` (4 + 12 epochs, three times the rates)."""
        if name == "paper":
            return cls()
        if name == "small":
            return cls(pretrain_epochs=4, epochs=12, lr=9e-4, lr_learners=3e-4, lr_decoder=3e-3)
        raise UserError(f"No preset {name!r}. There are: small, paper.")


def changed(config: Config, settings: Mapping[str, Any]) -> tuple[Config, dict[str, Any]]:
    """`config` with those settings that are fields of it, and the settings that are not.

    Values may be text, as they come from `--set name=value`; they are read by the field's type.
    """
    assert dataclasses.is_dataclass(config)
    assert not isinstance(config, type)
    hints = get_type_hints(type(config))
    own = {field.name for field in dataclasses.fields(config)} & set(settings)
    values = {name: parsed(name, settings[name], hints[name]) for name in sorted(own)}
    rest = {name: value for name, value in settings.items() if name not in own}
    return dataclasses.replace(config, **values), rest


def parsed(name: str, value: Any, hint: Any) -> Any:
    """One setting, read as the type its field has. Raises UserError naming what would be accepted."""
    choices = [c for c in get_args(hint) if isinstance(c, str)]
    if choices:
        if value in choices:
            return value
        raise UserError(f"{name} is one of {', '.join(choices)}, not {value!r}.{nearest(str(value), choices)}")
    if not isinstance(value, str):
        return float(value) if hint is float and isinstance(value, int) and not isinstance(value, bool) else value
    if hint is bool:
        if value.lower() in ("true", "yes", "on", "1"):
            return True
        if value.lower() in ("false", "no", "off", "0"):
            return False
        raise UserError(f"{name} is true or false, not {value!r}.")
    if hint in (int, float):
        try:
            return hint(value)
        except ValueError:
            raise UserError(f"{name} is {'a whole number' if hint is int else 'a number'}, not {value!r}.") from None
    if hint is str:
        return value
    raise UserError(f"{name} cannot be set from the command line; build its configuration in Python.")


def nearest(word: str, words: list[str]) -> str:
    """' Did you mean x?' or nothing."""
    close = difflib.get_close_matches(word, words, n=1)
    return f" Did you mean {close[0]}?" if close else ""
