"""The protocol: everything about training that is not the data and not the method. Every method gets the same one.

From the paper (sections 3.4 and 4.2): 20 epochs of L^P, then 50 of alpha L^P + beta L^T with alpha .5 and beta 1, and
the learning rates 3e-4, learners 1e-4, decoder 1e-3. What the paper leaves open (spec A17): AdamW, weight decay 1e-4,
batch 32, clip 1, selection on the validation metric. The `small` preset keeps all of it except the epochs (4 + 12)
and the learning rates (three times as high), so that a comparison takes a minute on two cores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from .head.switches import AboveZero, Count, Positive, Range, Share, Switches, Weight, choice

Schedule = Literal["constant", "cosine"]
Sentiment = Literal["regression", "classes"]
Position = Literal["none", "sinusoidal", "learned"]
ClassWeights = Literal["none", "balanced"]
PRESETS = ("small", "paper")
Precision = Literal["auto", "fp32", "bf16"]
QUIET: Mapping[str, Any] = {
    "select_on": "",
    "class_weights": "none",
    "tune": 0,
    "position": "none",
}  # not in a run's name where they say nothing


@dataclass(frozen=True)
class Protocol(Switches):
    """Training, selection and data switches; part of a run's identity.

    Equal budgets: whatever its stages are, every network of every row is trained for `budget` epochs over the same
    training samples. A method, or an ablation of one, without a first stage trains all of them on the task; a network
    trained on one modality alone (a member of the ensemble, a teacher of UMT) has as many as a joint one.
    """

    pretrain_epochs: Count = 20  # stage 1 on L^P (eq. 11); needs no labels
    epochs: Positive = 50  # stage 2 on alpha L^P + beta L^T (eq. 12)
    batch: Positive = 32
    lr: AboveZero = 3e-4
    lr_learners: Weight = 1e-4
    lr_decoder: Weight = 1e-3
    alpha: Weight = 0.5
    beta: AboveZero = 1.0
    weight_decay: Weight = 1e-4
    clip: Weight = 1.0  # gradient norm; 0 switches it off
    schedule: Schedule = "constant"
    warmup: Share = 0.0  # of a stage's steps
    patience: Count = 0  # epochs without a better validation score before a stage stops; 0 never stops early
    tokens: Count = 0  # pool every sample to at most this many tokens at load; 0 keeps them all
    standardize: bool = True  # features to zero mean and unit variance, statistics from the training split
    position: Position = "none"  # what tokens are told of their place (run/position.py)
    precision: Precision = "auto"
    sentiment: Sentiment = "regression"
    tune: Annotated[int, Range(least=0, most=10)] = 0  # so many rates and epochs are tried first (run/tuning.py)
    class_weights: ClassWeights = "none"  # balanced: a class counts by the inverse of its share of training samples
    metric: str = ""  # what rows are compared on; by default the card's first, else the task's own
    select_on: str = ""  # the validation metric whose best epoch is kept; by default the task's own
    # Carved from train where the dataset has no validation split.
    val_fraction: Annotated[float, Range(above=0, below=1)] = 0.1
    split_seed: Count = 0  # not the training seed, so that all seeds select on the same samples

    @property
    def budget(self) -> int:
        """Epochs of training a network has in all."""
        return self.pretrain_epochs + self.epochs

    def describe(self) -> dict[str, Any]:
        """JSON-able: what a run's name says of it; of `metric` nothing, as `select_on` says which epoch it selects."""
        return {name: value for name, value in asdict(self).items() if name != "metric" and value != QUIET.get(name)}

    @classmethod
    def preset(cls, name: str) -> Protocol:
        """`paper` (20 + 50 epochs, the paper's learning rates) or `small` (4 + 12 epochs, three times the rates)."""
        if choice("preset", name, PRESETS) == "paper":
            return cls()
        return cls(pretrain_epochs=4, epochs=12, lr=9e-4, lr_learners=3e-4, lr_decoder=3e-3)
