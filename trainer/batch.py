"""What a method sees: padded tokens with their masks, for any token count and any missing modality.

Padding is to the longest sample of the batch only, and the feed makes batches of samples of like length. A modality
that a sample lacks is a mask row that is False throughout.

Shapes: B samples in the batch, S_m tokens of modality m (padded), D_m its width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Inputs:
    """tokens[m]: (B, S_m, D_m) in the stored precision; masks[m]: (B, S_m) bool, True where a token is real.

    distances[m]: (B, S_m) in [-1, 1], where tokens are utterances of the sample's group (sequence.py): how far each is
    from the sample's own, which is at 0; None where tokens are the sample's own. dialogues, turns: (B,) the sample's
    group and its place there; None where the dataset has no groups.
    """

    tokens: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]
    distances: Mapping[str, Tensor] | None = None
    dialogues: Tensor | None = None
    turns: Tensor | None = None

    def present(self, modality: str) -> Tensor:
        """(B,) bool: which samples have this modality."""
        return self.masks[modality].any(dim=1)

    def only(self, *modalities: str) -> Inputs:
        """The same samples with every other modality missing."""
        masks = {name: mask if name in modalities else torch.zeros_like(mask) for name, mask in self.masks.items()}
        return replace(self, masks=masks)

    def restricted(self, modality: str) -> Inputs:
        """The same samples without the other modalities' tensors, for a part that never reads them."""
        return replace(self, tokens={modality: self.tokens[modality]}, masks={modality: self.masks[modality]})

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Inputs:
        """The same with every tensor changed."""
        return Inputs(
            {name: change(value) for name, value in self.tokens.items()},
            {name: change(value) for name, value in self.masks.items()},
            None if self.distances is None else {name: change(value) for name, value in self.distances.items()},
            None if self.dialogues is None else change(self.dialogues),
            None if self.turns is None else change(self.turns),
        )

    def to(self, device: torch.device) -> Inputs:
        """A copy on `device`; asynchronous from pinned memory."""
        return self.mapped(lambda tensor: tensor.to(device, non_blocking=True))


@dataclass(frozen=True)
class Batch:
    """rows: (B,) int64, positions in the table of samples; targets: (B,) int64 class index or float32 score."""

    rows: Tensor
    inputs: Inputs
    targets: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def to(self, device: torch.device) -> Batch:
        """A copy on `device` (rows stay); the batch itself where it is there already."""
        return Batch(self.rows, self.inputs.to(device), self.targets.to(device, non_blocking=True))
