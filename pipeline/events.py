"""What a running extraction says of itself. The pipeline emits these values; who listens decides how they look."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Planned:
    """A modality's plan is fixed: what will be encoded, and how many of its shards are already there."""

    modality: str
    encoder: str
    random_weights: bool
    samples: int
    tokens: int
    dim: int
    bytes: int
    shards: int
    shards_done: int
    reused: int  # samples whose tokens come from another store


@dataclass(frozen=True)
class ShardWritten:
    """One shard is on disk. `samples` counts those whose last token it holds, so that their sum is the modality's."""

    modality: str
    shard: int
    samples: int
    failures: int
    seconds: float


@dataclass(frozen=True)
class Finished:
    """A modality's store is complete."""

    modality: str
    store: str
    samples: int
    tokens: int
    bytes: int
    failed: int  # could not be encoded; the reasons are in items.parquet
    missing: int  # the dataset has no such medium for the sample
    seconds: float
    reused: bool


@dataclass(frozen=True)
class Note:
    """A line of text for people."""

    text: str


Event = Planned | ShardWritten | Finished | Note
Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The listener that listens to nothing."""
