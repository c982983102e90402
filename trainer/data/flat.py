"""A sample's tokens as one vector a modality, for linear models: laid end to end, so that where a token stands counts.

A modality gets as many tokens as 1,024 features hold, at most those of its longest sample: a raw series stays as it is,
a wide encoder's tokens become their mean. A sample of another length is resampled to that many, each the mean of the
run of tokens it stands for (pooling.py), or a token again where there are too few. Features are standardised by the
training samples that have the modality and clipped at 10 deviations; a missing modality is the mean, and an indicator
says so where training lacks it too.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ...cache import Features
from .feed import present_lengths
from .order import Rows

WIDTH = 1024  # features of a modality
CLIP = 10.0  # deviations
BLOCK = 2048  # samples read at a time
Floats = NDArray[np.float32]
Vectors = Mapping[str, Mapping[str, Floats]]  # split -> modality -> (N, features)


def flat_tokens(store: Features) -> int:
    """How many tokens of a store's samples are laid end to end."""
    longest = int(present_lengths(store).max(initial=1))
    return max(1, min(longest, WIDTH // store.dim))


def flat_vectors(features: Mapping[str, Features], splits: Mapping[str, Rows]) -> Vectors:
    """Each split's vectors, standardised by those of "train"."""
    found: dict[str, dict[str, Floats]] = {split: {} for split in splits}
    for modality, store in features.items():
        there = {split: present_lengths(store)[rows] > 0 for split, rows in splits.items()}
        plain = {split: flattened(store, rows) for split, rows in splits.items()}
        known = plain["train"][there["train"]]
        mean, deviation = (known.mean(axis=0), known.std(axis=0)) if len(known) else (0.0, 0.0)
        deviation = np.where(deviation > 1e-6 * (np.abs(mean) + 1e-6), deviation, np.inf)
        lacking = not there["train"].all()
        for split, values in plain.items():
            scaled = ((values - mean) / deviation).clip(-CLIP, CLIP) * there[split][:, None]
            columns = [scaled, ~there[split][:, None]] if lacking else [scaled]
            found[split][modality] = np.concatenate(columns, axis=1, dtype=np.float32)
    return found


def flattened(store: Features, rows: Rows) -> Floats:
    """(N, tokens x D): each sample's tokens end to end; zeros where the modality is missing."""
    tokens, lengths = flat_tokens(store), present_lengths(store)[rows]
    found = np.zeros((len(rows), tokens * store.dim), np.float32)
    for start in range(0, len(rows), BLOCK):
        block = slice(start, start + BLOCK)
        packed, _ = store.gather(rows[block], unavailable="empty")
        there = lengths[block] > 0
        if there.any():
            found[block][there] = resampled(packed, lengths[block][there], tokens).reshape(int(there.sum()), -1)
    return found


def resampled(packed: NDArray[np.floating], lengths: Rows, tokens: int) -> Floats:
    """(N, tokens, D) of packed tokens (T, D); token k is the mean of those from k S / tokens to (k + 1) S / tokens."""
    starts = np.cumsum(lengths) - lengths
    edges = np.arange(tokens + 1) * lengths[:, None] // tokens
    begin, end = edges[:, :-1], np.maximum(edges[:, 1:], edges[:, :-1] + 1)
    # A row behind the last, so that every end is a place in the array.
    padded = np.concatenate([packed, packed[-1:]]).astype(np.float32, copy=False)
    places = np.stack([starts[:, None] + begin, starts[:, None] + end], axis=2).reshape(-1)
    sums = np.add.reduceat(padded, places, axis=0)[::2].reshape(len(lengths), tokens, -1)
    means: Floats = sums / (end - begin)[:, :, None].astype(np.float32)
    return means
