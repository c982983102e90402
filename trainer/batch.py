"""What a method sees: padded tokens with their masks, for any token count and any missing modality.

Padding is to the longest sample of the batch only, and the feed makes batches of samples of like length. A modality
that a sample lacks is a mask row that is False throughout. The host knows how many tokens each sample has, so that
nobody has to read it from a mask that lies on a GPU: such a read waits for all that is queued there.

Shapes: B samples in the batch, S_m tokens of modality m (padded), D_m its width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Having:
    """The samples of a batch that have what was asked for: mask (B,) bool, and their number where the host knows it."""

    mask: Tensor
    number: int | None = None

    @cached_property
    def count(self) -> int:
        """Their number, read from the mask where nobody knows it."""
        return int(self.mask.sum()) if self.number is None else self.number

    @cached_property
    def index(self) -> Tensor:
        """(count,) int64, their positions in the batch, ascending."""
        return torch.nonzero_static(self.mask, size=self.count).squeeze(1)

    def of(self, values: Tensor) -> Tensor:
        """The rows (count, ...) of these samples, of (B, ...)."""
        return values if self.count == len(self.mask) else values.index_select(0, self.index)


@dataclass(frozen=True)
class Inputs:
    """tokens[m]: (B, S_m, D_m) in the stored precision; masks[m]: (B, S_m) bool, True where a token is real.

    distances[m]: (B, S_m) in [-1, 1], where tokens are utterances of the sample's group (sequence.py): how far each is
    from the sample's own, which is at 0; None where tokens are the sample's own. dialogues, turns: (B,) the sample's
    group and its place there; None where the dataset has no groups. lengths[m]: (B,) on the host, the tokens of each
    sample; None where only the masks know.
    """

    tokens: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]
    distances: Mapping[str, Tensor] | None = None
    dialogues: Tensor | None = None
    turns: Tensor | None = None
    lengths: Mapping[str, NDArray[np.int64]] | None = None

    def present(self, modality: str) -> Tensor:
        """(B,) bool: which samples have this modality."""
        return self.masks[modality].any(dim=1)

    def having(self, *modalities: str) -> Having:
        """The samples that have all of these modalities."""
        mask = torch.stack([self.present(m) for m in modalities]).all(dim=0)
        if self.lengths is None:
            return Having(mask)
        present = [self.lengths[m] > 0 for m in modalities]
        return Having(mask, int(np.logical_and.reduce(present).sum()))

    @property
    def totals(self) -> dict[str, int]:
        """Modality -> number of its real tokens in the batch; empty where the host does not know it."""
        return {} if self.lengths is None else {m: int(lengths.sum()) for m, lengths in self.lengths.items()}

    def only(self, *modalities: str) -> Inputs:
        """The same samples with every other modality missing."""
        masks = {name: mask if name in modalities else torch.zeros_like(mask) for name, mask in self.masks.items()}
        lengths = self.lengths
        if lengths is not None:
            lengths = {m: n if m in modalities else np.zeros_like(n) for m, n in lengths.items()}
        return replace(self, masks=masks, lengths=lengths)

    def restricted(self, modality: str | None) -> Inputs:
        """The same samples without the other modalities' tensors, for a part that never reads them; all for None."""
        if modality is None:
            return self
        lengths = None if self.lengths is None else {modality: self.lengths[modality]}
        tokens, masks = {modality: self.tokens[modality]}, {modality: self.masks[modality]}
        return replace(self, tokens=tokens, masks=masks, lengths=lengths)

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Inputs:
        """The same with every tensor changed."""
        return Inputs(
            {name: change(value) for name, value in self.tokens.items()},
            {name: change(value) for name, value in self.masks.items()},
            None if self.distances is None else {name: change(value) for name, value in self.distances.items()},
            None if self.dialogues is None else change(self.dialogues),
            None if self.turns is None else change(self.turns),
            self.lengths,
        )

    def to(self, device: torch.device) -> Inputs:
        """A copy on `device`; asynchronous from pinned memory."""
        return self.mapped(lambda tensor: tensor.to(device, non_blocking=True))


@dataclass(frozen=True)
class Batch:
    """samples: (B,) int64, positions in the split; targets: (B,) int64 class index or float32 score."""

    samples: Tensor
    inputs: Inputs
    targets: Tensor

    def __len__(self) -> int:
        return len(self.samples)

    def to(self, device: torch.device) -> Batch:
        """A copy on `device`; the batch itself where it is there already."""
        samples, targets = (x.to(device, non_blocking=True) for x in (self.samples, self.targets))
        return Batch(samples, self.inputs.to(device), targets)
