"""The trainer: lightweight heads from cached features, under one honest protocol.

Names are looked up on first use, because importing torch takes seconds and `pgm --help` needs none of it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .protocol import Protocol
    from .runs import Run, list_runs, open_run
    from .training import train

__all__ = ["Protocol", "Run", "list_runs", "open_run", "train"]

HOMES = {"Protocol": "protocol", "Run": "runs", "list_runs": "runs", "open_run": "runs", "train": "training"}


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{HOMES[name]}", __name__), name)
