"""`--layer` without the layers above it: the forward pass ends where the asked hidden state enters the next block.

Which module that is follows from no name: it is the block of a list as long as the model is deep whose input was seen,
on the first batch, to be the hidden state the model itself reports, to the bit. Where there is none, all of it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class _Reached(Exception):
    """Ends a forward pass; it carries what would have entered the block."""

    def __init__(self, hidden: Any) -> None:
        self.hidden = hidden


def input_of(block: nn.Module, forward: Callable[..., Any], batch: Mapping[str, Tensor]) -> Tensor | None:
    """What enters a block first in a forward pass, which ends there; None where it is never entered."""

    def stop(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        raise _Reached(args[0] if args else kwargs.get("hidden_states"))

    handle = block.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        forward(**batch)
    except _Reached as reached:
        return reached.hidden if isinstance(reached.hidden, Tensor) else None
    finally:
        handle.remove()
    return None


def block_above(
    model: nn.Module, batch: Mapping[str, Tensor], states: tuple[Tensor, ...], layer: int
) -> nn.Module | None:
    """The block that takes hidden state `layer` of `states`, all those of a batch; None where it cannot be told."""
    depth = len(states) - 1
    above = layer % len(states)
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == depth]
    for blocks in lists if above < depth else ():
        entered = input_of(blocks[above], model, batch)
        if entered is not None and torch.equal(entered, states[layer]):
            return blocks[above]
    return None
