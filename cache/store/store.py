"""One store: a modality encoded one way. `store.json` names the computation, `segments/` hold it, `versions/` list it.

Writing is `create`, then segments from any process (`segment.write_segment`), then one `commit`. Nothing that is there
is touched, so there is nothing to lock and nothing to recover: whatever died, the segments it finished are there under
the names their inputs give them, and the next writer goes on from those.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..errors import CorruptStore, IdentityMismatch, NotFound, RunFailed
from ..segment import MARKER, SEGMENTS, STATUSES, SegmentName, Stored
from ..storage import Storage, storage_at
from ..storage.base import Parts, digest_of, put_named
from ..storage.mapping import map_file
from ..storage.sealed_json import put_sealed, read_sealed
from .identity import Identity
from .index import Index, IndexBuilder
from .version import Log, Version, index_key, version_from

STORE = "store.json"
FORMAT = 2
# Indices up to this size are checked when they are opened (it takes milliseconds); larger ones by `verify` alone.
CHECKED = 256 << 20


@dataclass(frozen=True)
class Draft:
    """A version about to be committed: where every sample lies, in the order of the list whose digest `sample_ids` is.

    new: segments written for it, and their bytes.
    """

    rows: IndexBuilder
    sample_ids: str
    name: str = ""
    new: int = 0
    bytes: int = 0


@dataclass(frozen=True, eq=False)
class Store:
    """A store of a dataset. dim: D. stored: how tokens are kept on disk."""

    storage: Storage
    identity: Identity
    dim: int
    stored: Stored

    @staticmethod
    def create(dataset: Storage, identity: Identity, dim: int, stored: Stored) -> "Store":
        """The store of this identity in a dataset, made where it is not there yet.

        Raises IdentityMismatch where a store of the same name holds something else.
        """
        storage = dataset.under(identity.folder)
        value = {"pgm_store": FORMAT, "identity": identity.as_dict(), "dim": dim, "stored": stored}
        put_sealed(storage, STORE, value)
        store = Store.open(storage)
        if store.identity.whole_digest != identity.whole_digest or (store.dim, store.stored) != (dim, stored):
            raise IdentityMismatch(
                f"{storage.url} holds something else than was asked for:\n  "
                + store.identity.difference(identity).replace("\n", "\n  ")
            )
        return store

    @staticmethod
    def open(place: Storage | str) -> "Store":
        """The store at a place. Raises NotFound, CorruptStore, and NotFound for the format of earlier releases."""
        storage = storage_at(place)
        try:
            value = read_sealed(storage, STORE)
        except FileNotFoundError as error:
            raise NotFound(
                f"{storage.url} is not a feature store (it has no {STORE}); `pgm cache ls` lists the stores there are"
            ) from error
        if value.get("pgm_store") != FORMAT:
            raise NotFound(
                f"{storage.url} has the store format {value.get('pgm_store')} of an earlier PgM, which this one does "
                f"not read: remove the folder and extract again."
            )
        try:
            return Store(storage, Identity.from_dict(value["identity"]), value["dim"], value["stored"])
        except (KeyError, TypeError) as error:
            raise CorruptStore(f"{storage.url}/{STORE} lacks or garbles {error}; run `pgm cache verify`") from error

    @cached_property
    def log(self) -> Log:
        """The store's versions."""
        return Log(self.storage)

    def segments(self) -> dict[str, str]:
        """Digest of inputs -> name, of every segment that is there, listed by a version or not."""
        parsed = ((name, SegmentName.parse(name)) for name in self.storage.groups(SEGMENTS, MARKER))
        # Of two that were made of the same inputs on machines that round differently, always the same one is used.
        return {found.inputs: name for name, found in reversed(list(parsed)) if found is not None}

    def version(self, version: int | str | None = None) -> Version:
        """A version by number or name; None: the one a reader gets unasked. Raises NotFound."""
        return version_from(self.log.find(version), self.storage.url)

    def latest(self, name: str = "") -> Version | None:
        """The latest version of a name, None where there is none."""
        value = self.log.latest(name)
        return None if value is None else version_from(value, self.storage.url)

    def index(self, version: Version, largest: float = CHECKED) -> Index:
        """Where the samples of a version lie, mapped; checked up to `largest` bytes. Raises CorruptStore."""
        key = index_key(version.index)
        try:
            content = map_file(self.storage.local(key, version.index_digest))
            if len(content) <= largest and digest_of({"": [content.data]}) != version.index_digest:
                raise ValueError("its checksum fails")
            return Index.from_bytes(content, version.samples)
        except (FileNotFoundError, ValueError) as error:
            raise CorruptStore(
                f"{self.storage.url}/{key} is not as it was written ({error}); run `pgm cache verify`"
            ) from error

    def commit(self, draft: Callable[[], Draft | None]) -> Version | None:
        """Publish a version; `draft` is asked again where another writer was first.

        Returns the version, the latest one of its name where that says the same, or None where the draft was None.
        Raises RunFailed where a segment that was there is gone.
        """
        same: Version | None = None

        def value(latest: int) -> dict[str, Any] | None:
            nonlocal same
            drafted = draft()
            if drafted is None:
                return None
            index, segments = drafted.rows.build()
            parts: Parts = index.to_parts()
            digest, before = digest_of({"": parts}), self.latest(drafted.name)
            told = (drafted.sample_ids, segments, digest)
            if before is not None and (before.sample_ids, before.segments, before.index_digest) == told:
                same = before
                return None
            self._check_there(segments)
            file = f"{latest + 1:06d}-{digest}.index"
            put_named(self.storage, index_key(file), parts, digest)
            return version_value(drafted, index, segments, index.content_digest(self.dim, self.stored), file, digest)

        number = self.log.commit(value)
        return same if number is None else version_from(self.log.read(number), self.storage.url)

    def _check_there(self, segments: Sequence[str]) -> None:
        """Raises RunFailed where a segment that is about to be listed is not there; those that are become durable."""
        if gone := set(segments).difference(self.storage.groups(SEGMENTS, MARKER)):
            raise RunFailed(
                f"{len(gone)} segments of {self.storage.url} went while they were counted on (`pgm cache gc`, or by "
                f"hand), {min(gone)} among them. Nothing was published: run the same command again"
            )
        # Whoever wrote one that was there may have died before its name was on the disk.
        self.storage.flush(SEGMENTS)


def counts(index: Index) -> dict[str, int]:
    """Samples by status."""
    return {name: int((index.status == code).sum()) for code, name in enumerate(STATUSES)}


def version_value(
    draft: Draft, index: Index, segments: Sequence[str], content: str, file: str, digest: str
) -> dict[str, Any]:
    """A new version as JSON; number, parent and time are the log's to give."""
    return {
        "name": draft.name,
        "samples": len(index),
        "tokens": int(index.length.sum(dtype="int64")),
        "counts": counts(index),
        "sample_ids": draft.sample_ids,
        "content": content,
        "segments": list(segments),
        "index": file,
        "index_digest": digest,
        "written": {"segments": draft.new, "reused": len(segments) - draft.new, "bytes": draft.bytes},
    }
