"""The trainer: lightweight heads from cached features, under one honest protocol."""

from .protocol import Protocol
from .runs import Run, list_runs, open_run
from .train import train

__all__ = ["Protocol", "Run", "list_runs", "open_run", "train"]
