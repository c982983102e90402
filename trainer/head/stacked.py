"""Modules of one form run side by side: their parameters stacked, so that each product is one batched product.

Decided: the modules stay as they are (names, weights, initial values); only a call stacks them. What takes part is
built of this file's Linear and LayerNorm, which also take parameters with a leading axis G for inputs with that axis.
Cost: a copy of the parameters a call, against half the launches where G is 2.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call


class Linear(nn.Linear):
    """torch's, and G of them at once: weight (G, out, in), bias (G, out)."""

    def forward(self, x: Float[Tensor, "*rows K"]) -> Float[Tensor, "*rows N"]:
        """(..., in) -> (..., out); stacked: (G, T, in) -> (G, T, out)."""
        if self.weight.dim() == 2:
            return F.linear(x, self.weight, self.bias)
        return torch.baddbmm(self.bias.unsqueeze(1), x, self.weight.transpose(1, 2))


class LayerNorm(nn.LayerNorm):
    """torch's, and G of them at once: weight and bias (G, D)."""

    def forward(self, x: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
        """(..., D) -> (..., D); stacked: (G, T, D) -> (G, T, D)."""
        if self.weight.dim() == 1:
            return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        normed = F.layer_norm(x, self.normalized_shape, eps=self.eps)
        return torch.addcmul(self.bias.unsqueeze(1), normed, self.weight.unsqueeze(1))


def side_by_side(modules: Sequence[nn.Module]) -> Callable[..., Any]:
    """The modules as one call, whose tensors have one module's values a place of their first axis."""
    if len(modules) == 1:
        return modules[0]
    each = [dict(module.named_parameters()) for module in modules]
    stacked = {name: torch.stack([parameters[name] for parameters in each]) for name in each[0]}
    return partial(_called, modules[0], stacked)


def _called(module: nn.Module, parameters: dict[str, Tensor], *args: Any) -> Any:
    return functional_call(module, parameters, args)
