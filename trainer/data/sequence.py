"""`--sequence group`: a sample's tokens are the utterances of its group around it.

Frozen features of an utterance know nothing of the ones before and after it; reading its video or dialogue as a
sequence is how this field gives a model that context (bc-LSTM, Poria et al., ACL 2017). At most
`context` utterances to either side, each one vector, become tokens

    [the sample's own vector ; the utterance's vector ; how far it lies, in [-1, 1], own = 0]

so that any method, one that only averages its tokens included, still knows which utterance it is asked about. A
neighbour without the modality is not there; a sample without it has a zero own vector and its neighbours.

What a sample sees: features of its own group in its OWN SPLIT, never a label, and nothing of another group or split; a
group that straddles splits is cut at their border. Whether neighbours may be seen when a model is used is a matter of
the use (later utterances are seen too); numbers with and without them are not comparable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...cache.errors import UserError
from ...cache.nearest import did_you_mean
from ..batch import Inputs
from .groups import Groups
from .order import Rows
from .spans import Spans

SEQUENCES = ("sample", "group")
CONTEXT = 8


@dataclass(frozen=True)
class Context:
    """What a sample is shown of its group: so many utterances to either side."""

    utterances: int = CONTEXT

    def __post_init__(self) -> None:
        if self.utterances < 1:
            raise UserError(f"--context is 1 or more utterances to either side, not {self.utterances}.")


def context_of(sequence: str, utterances: int | None) -> Context | None:
    """--sequence and --context as one; None for samples by themselves. Raises UserError for what they do not take."""
    if sequence not in SEQUENCES:
        raise UserError(f"--sequence is sample or group, not {sequence!r}.{did_you_mean(sequence, list(SEQUENCES))}")
    if sequence == "sample":
        if utterances is not None:
            raise UserError("--context counts the neighbours of --sequence group; without it there are none.")
        return None
    return Context(CONTEXT if utterances is None else utterances)


def restored_context(config: Mapping[str, Any]) -> Context | None:
    """What a run's config.json says of it; None for samples by themselves."""
    known = config.get("sequence")
    return None if known is None else Context(known["context"])


def widths_shown(widths: Mapping[str, int], context: Context | None) -> dict[str, int]:
    """Token widths as a method sees them: own vector, utterance and distance."""
    return {m: 2 * width + 1 if context else width for m, width in widths.items()}


class Neighbours:
    """Of one modality and split: which samples stand around each, itself included, where they have the modality.

    `members` lists the samples that have it, group by group in order; sample i's tokens are members[starts[i]] and the
    lengths[i] - 1 after it.
    """

    def __init__(self, groups: Groups, present: NDArray[np.bool_], device: torch.device) -> None:
        codes, turns, context = groups.codes, groups.turns, groups.context
        wide = int(turns.max(initial=0)) + context + 1  # no turn and no window reaches into the next group's numbers
        keys = codes * (wide + context) + turns
        order = np.argsort(keys, kind="stable")
        members: Rows = order[present[order]]
        known = keys[members]
        first = codes * (wide + context)
        starts: Rows = np.searchsorted(known, np.maximum(keys - context, first)).astype(np.int64)
        self.lengths: Rows = np.searchsorted(known, keys + context, side="right") - starts
        self.context = context
        # Position 0 stands for whoever is asked about where there is nobody.
        members = members if len(members) else np.zeros(1, np.int64)
        self.members, self.turns = torch.from_numpy(members).to(device), torch.from_numpy(turns).to(device)
        self.spans = Spans(starts, self.lengths, device)

    def of(self, positions: Rows, where: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, S) positions of each sample's tokens, the mask, and the distances; S is at least 1, 0 where masked.

        positions: (B,) on the host; where: the same on the device.
        """
        index, mask = self.spans.padded(positions, where, padding=0)
        around = torch.where(mask, self.members[index], 0)
        apart = torch.where(mask, self.turns[around] - self.turns[where].unsqueeze(1), 0)
        return around, mask, apart / self.context


def check_vectors(modality: str, lengths: Rows) -> None:
    """Raise UserError for a modality whose utterances are more than one token."""
    longest = int(lengths.max(initial=0))
    if longest > 1:
        raise UserError(
            f"--sequence group makes an utterance one token, and {modality} has up to {longest:,} tokens a sample. "
            "Pool them with --tokens 1."
        )


def in_context(inputs: Inputs) -> Inputs:
    """Tokens (B, S, 2 D + 1): own vector, utterance, distance; zeros where masked."""
    assert inputs.distances is not None
    tokens = {}
    for name, x in inputs.tokens.items():
        mask, distance = inputs.masks[name].unsqueeze(2), inputs.distances[name].unsqueeze(2)
        own = (x * (mask & (distance == 0))).sum(dim=1, keepdim=True)
        tokens[name] = torch.cat([own.expand_as(x), x, distance.to(x.dtype)], dim=2) * mask
    return replace(inputs, tokens=tokens)
