"""Modality dropout: in training every sample loses each of its modalities with some probability, but never all.

Source: ModDrop (Neverova et al., TPAMI 2016) and its many users; there is no one canonical form. For sample i and
modality m, kept_im ~ Bernoulli(1 - p); where nothing is left one of the sample's modalities, drawn uniformly, stays.
The network is the joint one (joint.py): what is dropped is skipped and the rest scaled by M over its number, exactly
as a modality that is missing in the data, so training and an incomplete test sample look alike to the classifier.

Frozen features. The learners see whole cached sequences or nothing; there is no dropping of parts of the raw input.
Dropping costs nothing on a CPU: a dropped modality's tokens are not packed, hence not computed. On a GPU, where
counting what is left would be a wait, they are computed with the padding, masked, and count as little.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ..batch import Inputs
from ..head.switches import Share
from .base import Method, MethodOutput, Shape
from .joint import Joint
from .trunk import TrunkConfig


@dataclass(frozen=True)
class ModalityDropoutConfig(TrunkConfig):
    """modality_rate: the probability p of losing a modality, in [0, 1)."""

    names: ClassVar[tuple[str, ...]] = ("modality_dropout",)
    several: ClassVar[bool] = True
    modality_rate: Share = 0.3

    def build(self, shape: Shape) -> Method:
        return ModalityDropout(self, shape)


class ModalityDropout(Joint):
    """The joint network, shown incomplete samples while it is trained."""

    def __init__(self, config: ModalityDropoutConfig, shape: Shape) -> None:
        super().__init__(config, shape)
        self.modality_rate = config.modality_rate

    def forward(self, inputs: Inputs) -> MethodOutput:
        return super().forward(incomplete(inputs, self.modality_rate) if self.training else inputs)


def incomplete(inputs: Inputs, rate: float) -> Inputs:
    """The same samples with modalities missing at random; a sample that has any keeps at least one."""
    present = torch.stack([inputs.present(m) for m in inputs.masks], dim=1)
    keep = kept(present, rate)
    masks = {m: mask & keep[:, i : i + 1] for i, (m, mask) in enumerate(inputs.masks.items())}
    return replace(inputs, masks=masks, lengths=None)


def kept(present: Tensor, rate: float) -> Tensor:
    """Which of the present modalities stay: (B, M) bool from (B, M) bool."""
    keep = (torch.rand(present.shape, device=present.device) >= rate) & present
    lottery = torch.rand(present.shape, device=present.device).masked_fill(~present, -1.0)
    last = torch.nn.functional.one_hot(lottery.argmax(dim=1), present.shape[1]).bool() & present
    return torch.where(keep.any(dim=1, keepdim=True), keep, last)
