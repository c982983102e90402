"""The interface every method meets, and the part most of them share.

A method is a module that takes masked tokens of any number of modalities and returns task outputs with the fused vector
behind them. It says in which stages it wants to be trained; the loop does the rest (run/step.py). A method that needs
another update than "the task's loss, one step" (alternating modalities, modulated gradients) overrides `update`.

What decides a method's numbers is its configuration, a frozen dataclass that can `build` it and says what it is called;
registry.py finds it by that name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from ...plugins import described, import_path, is_ours
from ..batch import Inputs
from ..head.switches import Switches, changed
from ..protocol import Protocol as TrainingProtocol


@dataclass(frozen=True)
class Shape:
    """What a method must fit: the width of each modality's tokens and the number of task outputs.

    classes: their names where they are known; no weight's size may depend on them, since a saved run has none.
    """

    widths: Mapping[str, int]
    outputs: int
    classes: Sequence[str] = ()

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.widths)


@dataclass(frozen=True)
class MethodOutput:
    """logits: (B, outputs); fused: (B, d), what retrieval compares; losses: scalars to report."""

    logits: Tensor
    fused: Tensor
    losses: Mapping[str, Tensor] = field(default_factory=dict)
    pretraining: Tensor | None = None  # L^P of eq. 11, weighted by alpha in eq. 12


@dataclass(frozen=True)
class Stage:
    """A part of training with its own optimiser.

    `labels`: whether it uses them; a stage that does is also selected: its best weights on validation are what it
    leaves. `modality`: the only one shown in this stage. `part`: the submodule it trains, None for the whole.
    `shares`: what besides data, protocol and seed decides this stage's outcome, when other methods may take it over.
    `passes`: how often an epoch goes over the training split, each time in another order.
    """

    name: str
    epochs: int
    labels: bool = True
    modality: str | None = None
    part: str | None = None
    shares: Mapping[str, Any] | None = None
    passes: int = 1


Norms = Callable[[Sequence[nn.Parameter], Tensor], None]  # P parameters, the norms (P,) of their unclipped gradients
Criterion = Callable[[Tensor, Tensor], Tensor]  # logits (N, outputs), targets (N,) -> beta L^T, the mean over N >= 1
Losses = Mapping[str, Tensor]  # name -> ()


@dataclass(frozen=True)
class Step:
    """What a method's own update is given: a batch, the task's loss of any logits, and the optimiser.

    inputs: the batch as the method's forward sees it. output: the whole model's answer to it, compiled where the run
    is. samples: (B,) which training samples these are, from 0. labels: those of the configuration's `further_labels`
    that the dataset has, (B,) each. parameters: those the optimiser moves. norms: is told the gradients' norms; it
    changes nothing. epoch, passed, done: of the stage, the epochs before; of the epoch, the passes before; of the pass,
    the share of batches before.
    """

    inputs: Callable[[], Inputs]
    output: Callable[[], MethodOutput]
    targets: Tensor
    samples: Tensor
    criterion: Criterion
    protocol: TrainingProtocol
    optimiser: torch.optim.Optimizer
    parameters: Sequence[nn.Parameter]
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    labels: Losses = field(default_factory=dict)
    norms: Norms | None = None
    epoch: int = 0
    passed: int = 0
    done: float = 0.0

    def losses(self, output: MethodOutput, own: Tensor | None = None, **parts: Tensor) -> Losses:
        """beta (L^T + own) + alpha L^P of an output as "loss", and what to report of it."""
        task = loss = self.criterion(output.logits, self.targets)
        if own is not None:
            loss = loss + self.protocol.beta * own
        if output.pretraining is not None:
            loss = loss + self.protocol.alpha * output.pretraining
        return {"loss": loss, "task": task, **parts, **output.losses}

    def descend(self, loss: Tensor, only: Sequence[nn.Parameter] | None = None) -> None:
        """Gradients of `loss`, clipped, and one step; parameters the loss does not reach do not move at all.

        only: the parameters this step may move, None for all.
        """
        self.gradients(loss, only)
        self.optimiser.step()

    def gradients(self, loss: Tensor, only: Sequence[nn.Parameter] | None = None) -> None:
        """Clipped gradients of `loss`; None where it does not reach, and outside `only`."""
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward(inputs=only)  # type: ignore[no-untyped-call]
        clip_gradients(self.parameters, self.protocol.clip, self.norms)


def clip_gradients(parameters: Sequence[nn.Parameter], clip: float, norms: Norms | None) -> None:
    """Scale the gradients that are there to a common norm of at most `clip`, as clip_grad_norm_ does, to the bit.

    In two halves, because the norms in between, one a parameter, are what `norms` wants. clip: 0 for none.
    """
    moving = [p for p in parameters if p.grad is not None]
    if not moving or not (clip or norms):
        return
    found = torch.stack(torch._foreach_norm([p.grad for p in moving if p.grad is not None]))
    if norms is not None:
        norms(moving, found)
    if clip:
        nn.utils.clip_grads_with_norm_(moving, clip, torch.linalg.vector_norm(found))


@dataclass(frozen=True)
class Look:
    """What a method may look at between two epochs: the training and the validation split, never the test split.

    batches: "train" or "val" -> the split's inputs as forward sees them, with their targets; read only if iterated.
    """

    epoch: int
    batches: Callable[[str], Iterator[tuple[Inputs, Tensor]]]
    criterion: Criterion


class Method(nn.Module, ABC):
    """A fusion method over masked tokens.

    skips_missing: retrieval leaves the absent modality out instead of showing a null token. training_only: submodules
    that serve training alone: checkpoints hold them, finished weights do not.
    """

    skips_missing: ClassVar[bool] = False
    training_only: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def forward(self, inputs: Inputs) -> MethodOutput:
        """Task outputs of a batch; finite for every sample that has at least one modality."""

    def answer(self, inputs: Inputs) -> MethodOutput:
        """`forward` without losses of the method's own, for a further pass over a batch in training."""
        return cast(MethodOutput, self(inputs))

    def pretrain(self, inputs: Inputs) -> tuple[Tensor, Losses]:
        """The loss of a stage without labels, and its parts."""
        raise NotImplementedError(f"{type(self).__name__} has no stage without labels")

    def start(self, targets: Tensor) -> None:
        """Before training, and before a checkpoint is taken up: the training samples' targets (N,), in order.

        Here a method lays out what it keeps for each training sample, in buffers, so that an interrupted run finds it.
        """

    def stages(self, protocol: TrainingProtocol) -> tuple[Stage, ...]:
        """One stage on the task, as long as both stages of a method that pretrains."""
        return (Stage("task", protocol.budget),)

    def rate(self, name: str, protocol: TrainingProtocol) -> float:
        """The learning rate of the parameter called `name`."""
        return protocol.lr

    def update(self, stage: Stage, step: Step) -> Losses | None:
        """A batch of a stage with labels, where that is not one step on the task's loss (run/step.py): the method's own
        steps, and the losses to report; an empty mapping where the batch teaches nothing. None: as every other method.
        """
        return None

    def encoders(self) -> Mapping[str, nn.Module]:
        """Modality -> the module that is its own, (B, S, D) tokens and mask to (B, d); empty where there is none."""
        trunks = getattr(self, "trunks", None)
        return dict(trunks.items()) if isinstance(trunks, nn.ModuleDict) else {}

    def modality_parameters(self) -> Mapping[str, Sequence[nn.Parameter]]:
        """Modality -> the parameters that are its own: those whose gradients say how strongly it is trained."""
        return {modality: list(module.parameters()) for modality, module in self.encoders().items()}

    def modality_vectors(self, inputs: Inputs) -> Mapping[str, Tensor]:
        """Modality -> (B, d), what the method makes of it alone; empty where these are not to be compared."""
        return {m: module(inputs.tokens[m], inputs.masks[m]) for m, module in self.encoders().items()}

    def between_epochs(self, stage: Stage, look: Look) -> None:
        """After an epoch's last step and before it is validated, in eval mode and without gradients.

        What it leaves must lie in buffers: they are saved, restored and selected with the weights.
        """


Settings = Mapping[str, Any]
RESERVED = ("name", "version", "extends")  # what `describe` says beside the fields


@dataclass(frozen=True)
class MethodConfig(Switches, ABC):
    """What decides a method's numbers together with the shape, the protocol and the seed: a method is a subclass.

    It is a frozen dataclass; its fields have defaults, and values that JSON can hold. A number that is to be set by
    `--set` says its range: `width: Positive = 64` (head/switches.py).

    version: of the method's code, raised when the same configuration comes to other numbers. names: of PgM's own
    methods; another's is called by its import path. presets: what "small" and "paper" set. several: whether it is about
    several modalities and refuses one. retrieves: whether the fused vector can be compared. whole_groups: whether a
    batch must hold whole groups (dialogues, videos). further_labels: columns of the samples that training uses
    besides the label, where the dataset has them.
    """

    version: ClassVar[int]
    names: ClassVar[tuple[str, ...]] = ()
    presets: ClassVar[Mapping[str, Settings]] = {}
    several: ClassVar[bool] = False
    retrieves: ClassVar[bool] = True
    whole_groups: ClassVar[bool] = False
    further_labels: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def build(self, shape: Shape) -> Method:
        """The untrained method; its weights are drawn from torch's generator."""

    def check(self, shape: Shape) -> None:
        """Raise UserError for data the method is not made for."""

    @classmethod
    def offered(cls, modalities: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
        """Its names on a dataset of these modalities, each with those it then reads."""
        return dict.fromkeys(cls.names, tuple(modalities))

    @classmethod
    def made(cls, name: str, preset: str, shape: Shape, settings: Settings) -> tuple[MethodConfig, dict[str, Any]]:
        """The configuration that `name` stands for, and the settings that are none of its fields."""
        return changed(cls(**cls.presets.get(preset, {})), settings)

    @property
    def own_name(self) -> str:
        """Which of `names` this configuration has."""
        return self.names[0]

    @property
    def name(self) -> str:
        """What it is called in the names of runs: one of ours by its name, another's by its import path."""
        return self.own_name if is_ours(type(self)) else import_path(type(self))

    def describe(self) -> dict[str, Any]:
        """JSON-able: what decides the method's numbers, the version of its code included."""
        return described(self, self.name)
