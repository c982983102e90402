"""What a running extraction says of itself. The pipeline emits these values; who listens decides how they look."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Planned:
    """A modality's plan is fixed: what is there already, and what will be encoded.

    samples: all of the modality. held: those that are there, failed ones among them. pending: those that are not;
    distinct: their sources, each of which is encoded once, however many samples have it. tokens, bytes: estimates for
    these from a few samples, before compression; segments: about how many they will be.
    """

    modality: str
    encoder: str
    random_weights: bool
    samples: int
    held: int
    pending: int
    distinct: int
    tokens: int
    dim: int
    bytes: int
    segments: int


@dataclass(frozen=True)
class SegmentWritten:
    """One segment is in the store, with the features of `samples`. there: an earlier run that died had written it."""

    modality: str
    segment: str
    samples: int
    tokens: int
    failures: int
    bytes: int
    seconds: float
    there: bool


@dataclass(frozen=True)
class WorkerReport:
    """Where a worker's time went, in seconds. encode: its device was at work. read, decode, write: its encoder waited
    for that. idle: it had no task."""

    worker: str
    segments: int
    samples: int
    encode: float
    read: float
    decode: float
    write: float
    idle: float


@dataclass(frozen=True)
class Finished:
    """A modality's version is committed, or was already.

    samples, tokens, failed, missing: of the whole version; the reasons of failed ones are in the store's segments.
    encoded: sources this run encoded. bytes: those it wrote. reused: there was nothing to do. workers: who encoded.
    """

    modality: str
    store: str
    version: int
    samples: int
    tokens: int
    failed: int
    missing: int
    encoded: int
    bytes: int
    seconds: float
    reused: bool
    workers: tuple[WorkerReport, ...] = ()


@dataclass(frozen=True)
class Note:
    """A line of text for people."""

    text: str


Event = Planned | SegmentWritten | Finished | Note
Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The listener that listens to nothing."""
