"""A version: a commit of a store, put if absent under the next number. It lists segments and where each sample lies.

`versions/000003.json` says all but the rows, sealed; its index (`versions/000003-<digest>.index`) is named by its
bytes, so that two writers who race for a number never write one file: the JSON alone decides who was first. The loser
looks at what the winner committed and tries the next number. No lock is needed, and none is taken.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any

from ..errors import CorruptStore, NotFound
from ..nearest import did_you_mean
from ..storage import Storage
from ..storage.sealed_json import put_sealed, read_sealed, spelled

VERSIONS = "versions"


@dataclass(frozen=True)
class Version:
    """One commit of a store.

    name: "" for the versions a reader gets unasked, otherwise what `--version NAME` asks for (as `limit-50`).
    sample_ids: digest of the list of samples, in whose order the rows stand. content: digest of all features, the same
    whichever way they came together. segments: names, in the order the index numbers them. index: its file, bytes and
    digest. written: what this commit cost: segments new and reused, bytes.
    """

    number: int
    name: str
    parent: int
    created: str
    samples: int
    tokens: int
    counts: Mapping[str, int]
    sample_ids: str
    content: str
    segments: tuple[str, ...]
    index: str
    index_digest: str
    written: Mapping[str, int]


@dataclass(frozen=True)
class Log:
    """The numbered, put-if-absent JSON files below `versions/` of a store or a dataset."""

    storage: Storage

    def numbers(self) -> list[int]:
        """The numbers that are taken, ascending."""
        stems = (name.removesuffix(".json") for name in self.storage.names(VERSIONS) if name.endswith(".json"))
        return sorted(int(stem) for stem in stems if stem.isdecimal())

    def read(self, number: int) -> dict[str, Any]:
        """What the version of this number says. Raises NotFound, CorruptStore."""
        try:
            return read_sealed(self.storage, version_key(number))
        except FileNotFoundError as error:
            there = ", ".join(map(str, self.numbers())) or "none"
            raise NotFound(f"{self.storage.url} has no version {number}; it has {there}") from error

    def latest(self, name: str = "") -> dict[str, Any] | None:
        """The latest version of a name, None where there is none; numbers have gaps where versions were removed."""
        return next((value for value in map(self.read, reversed(self.numbers())) if value["name"] == name), None)

    def find(self, version: int | str | None = None) -> dict[str, Any]:
        """The version of a number, the latest of a name, or (None) the latest unnamed one.

        Where every version has a name and it is the same, that is the one a reader gets unasked. Raises NotFound with
        the names there are.
        """
        if isinstance(version, int) or (version or "").isdecimal():
            return self.read(int(version or 0))
        names: list[str] = []
        for number in reversed(self.numbers()):
            value = self.read(number)
            if value["name"] == (version or ""):
                return value
            names.append(value["name"])
        known = sorted(set(names))
        if version is None and len(known) == 1:
            return self.find(known[0])
        if not known:
            raise NotFound(f"{self.storage.url} has no version yet; run the `pgm extract` that began it again")
        asked = "no full version, and several limited ones" if version is None else f"no version {version!r}"
        there = ", ".join(name or "an unnamed one" for name in known)
        raise NotFound(
            f"{self.storage.url} has {asked}; it has {there}.{did_you_mean(version or '', known)} "
            f"Choose one with --version, for example --version {known[-1] or self.numbers()[-1]}"
        )

    def commit(self, draft: Callable[[int], dict[str, Any] | None]) -> int | None:
        """Put what `draft(latest number)` says under the next number; it is asked again whenever another was first.

        None where the draft is: then there is nothing to commit. A put whose answer was lost counts as ours when the
        very bytes are there.
        """
        while True:
            latest = max(self.numbers(), default=0)
            value = draft(latest)
            if value is None:
                return None
            number = latest + 1
            value = {**value, "number": number, "parent": latest, "created": now()}
            if put_sealed(self.storage, version_key(number), value) or spelled(self.read(number)) == spelled(value):
                return number


def version_key(number: int) -> str:
    """Where the JSON of a version lies."""
    return f"{VERSIONS}/{number:06d}.json"


def index_key(index: str) -> str:
    """Where the index of a version lies."""
    return f"{VERSIONS}/{index}"


def now() -> str:
    """The time in UTC, to the microsecond, for people: nothing is decided by it."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def version_from(value: Mapping[str, Any], where: str) -> Version:
    """A store's version from its JSON. Raises CorruptStore."""
    try:
        found = {item.name: value[item.name] for item in fields(Version)}
    except KeyError as error:
        raise CorruptStore(f"a version of {where} lacks {error}; run `pgm cache verify`") from error
    return Version(**{**found, "segments": tuple(found["segments"])})


def draft_of(version: Version) -> dict[str, Any]:
    """A version as JSON, before it has a number."""
    return asdict(version)
