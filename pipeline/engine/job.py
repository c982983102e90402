"""What a worker is told and what it answers: a job once a modality, a task and its result once a segment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

from ...cache.segment import Segment
from ...cache.storage import Storage
from ...cache.store import Identity
from ..encoders import EncoderSpec, FrozenEncoder, build_encoder, check_same_identity
from ..media import Media
from .events import WorkerReport
from .options import StoreOptions

STORED = "stored_dtype"


@dataclass(frozen=True)
class Job:
    """Everything a worker needs for one modality, sent to it once; tasks then carry their own items only.

    decoders: processes that decode beside each worker; None for as many as make sense there.
    """

    store: Storage
    identity: Identity
    spec: EncoderSpec
    options: StoreOptions
    decoders: int | None = None

    def build(self) -> FrozenEncoder:
        """This process's encoder. Raises RunFailed where it is not the one the plan was made with."""
        encoder = build_encoder(self.spec)
        check_same_identity(encoder, encoder_fields(self.identity))
        return encoder


@dataclass(frozen=True, eq=False)
class Task:
    """The samples of one segment: their ids and sources."""

    number: int
    ids: Sequence[str]
    media: Sequence[Media]
    attempt: int = 0

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Spent:
    """Seconds of a worker's encoding thread. encode: the device was at work. read, decode, write: it waited for that
    stage. idle: there was no task."""

    encode: float = 0.0
    read: float = 0.0
    decode: float = 0.0
    write: float = 0.0
    idle: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(*(getattr(self, item.name) + getattr(other, item.name) for item in fields(Spent)))

    def __sub__(self, other: Spent) -> Spent:
        return Spent(*(getattr(self, item.name) - getattr(other, item.name) for item in fields(Spent)))


@dataclass(frozen=True, eq=False)
class Made:
    """A finished task: small, as it travels through the scheduler. keys: 16 bytes an item, what the journal knows its
    source by. worker: who made it. spent: since its last one."""

    number: int
    segment: Segment
    keys: bytes
    seconds: float
    worker: str
    spent: Spent


def encoder_identity(encoder: FrozenEncoder, options: StoreOptions) -> Identity:
    """What a store of this encoder's features is named by."""
    fields_ = {**encoder.identity_fields(), STORED: options.stored}
    return Identity(encoder.spec.modality, encoder.name, fields_)


def encoder_fields(identity: Identity) -> dict[str, object]:
    """What of a store's identity is its encoder's."""
    return {name: value for name, value in identity.fields.items() if name != STORED}


class Reports:
    """What each worker has made, and where its time went."""

    def __init__(self) -> None:
        self._of: dict[str, tuple[int, int, Spent]] = {}

    def add(self, made: Made) -> None:
        """Count a finished task."""
        segments, samples, spent = self._of.get(made.worker, (0, 0, Spent()))
        self._of[made.worker] = segments + 1, samples + len(made.segment.items), spent + made.spent

    def all(self) -> tuple[WorkerReport, ...]:
        """One a worker, by name."""
        return tuple(
            WorkerReport(worker, segments, samples, **{name: round(s, 3) for name, s in asdict(spent).items()})
            for worker, (segments, samples, spent) in sorted(self._of.items())
        )
