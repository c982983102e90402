"""Samples as a batch, the `collate_fn` of a DataLoader over a FeatureDataset: padded with a mask, packed with offsets.

id      list of B strings
row     (B,) int64, the sample's place in the dataset's table of samples
label   (B,) int64 classes or float32 scores, where the dataset has labels
tokens  modality -> padded: (B, S, D), zeros after a sample's tokens; S is the batch's longest, and at least 1
                    packed: (sum S, D), the samples' one after another
mask    modality -> (B, S) bool, True where a token is real (padded)
offset  modality -> (B + 1,) int64: sample i has tokens offset[i] : offset[i + 1] (packed), as
                    torch.nested.nested_tensor_from_jagged takes them
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Sample = dict[str, Any]
Batch = dict[str, Any]


def collate_padded(samples: Sequence[Sample]) -> Batch:
    """A padded batch; a modality that a sample lacks is a row of the mask that is False throughout."""
    tokens, mask = {}, {}
    for name, pieces in tokens_of(samples).items():
        lengths = np.array([len(piece) for piece in pieces])
        real = np.arange(max(1, lengths.max())) < lengths[:, None]
        padded = np.zeros((*real.shape, pieces[0].shape[1]), pieces[0].dtype)
        for row, piece in zip(padded, pieces, strict=True):
            row[: len(piece)] = piece
        tokens[name], mask[name] = torch.from_numpy(padded), torch.from_numpy(real)
    return {**described(samples), "tokens": tokens, "mask": mask}


def collate_packed(samples: Sequence[Sample]) -> Batch:
    """A packed batch; a modality that a sample lacks has no tokens."""
    tokens, offset = {}, {}
    for name, pieces in tokens_of(samples).items():
        tokens[name] = torch.from_numpy(np.concatenate(pieces))
        offset[name] = torch.tensor([0, *(len(piece) for piece in pieces)]).cumsum(0)
    return {**described(samples), "tokens": tokens, "offset": offset}


def tokens_of(samples: Sequence[Sample]) -> dict[str, list[NDArray[Any]]]:
    """Modality -> the tokens (S, D) of each sample, as arrays: numpy's copies wake no threads for a batch."""
    return {name: [sample["tokens"][name].numpy() for sample in samples] for name in samples[0]["tokens"]}


def described(samples: Sequence[Sample]) -> Batch:
    """What a batch holds besides tokens."""
    batch: Batch = {"id": [sample["id"] for sample in samples], "row": torch.tensor([s["row"] for s in samples])}
    if "label" in samples[0]:
        batch["label"] = torch.tensor([sample["label"] for sample in samples])
    return batch
