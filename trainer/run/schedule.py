"""Learning-rate schedules as a function of how much of a stage is done, so that nothing of them has to be saved."""

from __future__ import annotations

import math

from ..protocol import Protocol


def rate_factor(protocol: Protocol, done: float) -> float:
    """What learning rates are multiplied by; `done` is the share of the stage's steps that lie behind, 0..1.

    A linear warm-up over the first `warmup`, then constant or half a cosine down to 0.
    """
    if done < protocol.warmup:
        return (done + 1e-3) / (protocol.warmup + 1e-3)
    if protocol.schedule == "constant":
        return 1.0
    return (1 + math.cos(math.pi * (done - protocol.warmup) / (1 - protocol.warmup))) / 2
