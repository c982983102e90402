"""Pooling at load: `--tokens K` trains on at most K tokens a sample without a new extraction.

A sample of S > K tokens is cut into K runs of consecutive tokens, run k from floor(k S / K) to floor((k + 1) S / K),
and each run becomes its mean (in float32). Shorter samples stay as they are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Lengths = NDArray[np.int64]


def pooled_lengths(lengths: Lengths, limit: int) -> Lengths:
    """Tokens a sample after pooling to at most `limit`; 0 means no limit."""
    return np.minimum(lengths, limit) if limit else lengths


def pooled(tokens: NDArray[np.floating], lengths: Lengths, limit: int) -> NDArray[np.float32]:
    """Packed tokens (sum of lengths, D) to packed pooled tokens (sum of pooled_lengths, D) float32."""
    short = pooled_lengths(lengths, limit)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
    sample = np.repeat(np.arange(len(lengths)), short)
    within = np.arange(len(sample)) - np.repeat(np.cumsum(short) - short, short)
    begin = starts[sample] + within * lengths[sample] // short[sample]
    if not len(begin):
        return np.zeros((0, tokens.shape[1]), np.float32)
    sums = np.add.reduceat(tokens.astype(np.float32, copy=False), begin, axis=0)
    counts = np.diff(np.append(begin, lengths.sum()))
    means: NDArray[np.float32] = np.divide(sums, counts[:, None], dtype=np.float32)
    return means
