"""AdamW over the part of a model that a stage trains, and its learning rates: each group's own, times the schedule's
factor, a function of how much of the stage is done, so that nothing of it has to be saved.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from ..methods import Stage
from ..protocol import Protocol
from .model import Model


def build_optimiser(model: Model, stage: Stage, protocol: Protocol, device: torch.device) -> torch.optim.Optimizer:
    """AdamW over the stage's part of the model, each parameter at the rate its method gives it."""
    part = f"method.{stage.part}." if stage.part else ""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if name.startswith(part):
            groups.setdefault(model.method.rate(name.removeprefix("method."), protocol), []).append(parameter)
    listed = [{"params": parameters, "lr": rate, "base": rate} for rate, parameters in groups.items()]
    return torch.optim.AdamW(listed, weight_decay=protocol.weight_decay, fused=device.type in ("cpu", "cuda"))


def set_rates(optimiser: torch.optim.Optimizer, protocol: Protocol, done: float) -> None:
    """`done`: the share of the stage's steps that lie behind, 0..1."""
    for group in optimiser.param_groups:
        group["lr"] = group["base"] * rate_factor(protocol, done)


def rate_factor(protocol: Protocol, done: float) -> float:
    """What learning rates are multiplied by: a linear warm-up over the first `warmup`, then constant or half a cosine
    down to 0."""
    if done < protocol.warmup:
        return (done + 1e-3) / (protocol.warmup + 1e-3)
    if protocol.schedule == "constant":
        return 1.0
    return (1 + math.cos(math.pi * (done - protocol.warmup) / (1 - protocol.warmup))) / 2
