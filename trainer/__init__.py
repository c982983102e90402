"""The trainer: lightweight heads from cached features, under one honest protocol.

Names are looked up on first use, because importing torch takes seconds and `pgm --help` needs none of it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .data.missing import Missing
    from .data.synthetic import SyntheticConfig, SyntheticData, SyntheticTask, bayes_accuracy
    from .protocol import Protocol
    from .run.runs import Run, list_runs, open_run
    from .run.training import train

HOMES = {
    "Missing": "data.missing",
    "Protocol": "protocol",
    "Run": "run.runs",
    "SyntheticConfig": "data.synthetic",
    "SyntheticData": "data.synthetic",
    "SyntheticTask": "data.synthetic",
    "bayes_accuracy": "data.synthetic",
    "list_runs": "run.runs",
    "open_run": "run.runs",
    "train": "run.training",
}
__all__ = [
    "Missing",
    "Protocol",
    "Run",
    "SyntheticConfig",
    "SyntheticData",
    "SyntheticTask",
    "bayes_accuracy",
    "list_runs",
    "open_run",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{HOMES[name]}", __name__), name)
