"""A prefix of an object store: S3, Google Cloud Storage or Azure by obstore, with the environment's usual variables.

"Put if absent" is the store's own conditional put. Objects beyond MULTIPART go up in parts, which no store makes
conditional: the cache names such objects by their bytes, so that two writers of one write the same. obstore repeats
what a server refuses with a 5xx; what it must not repeat by itself (a put whose answer was lost) is repeated here.
"""

import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import from_url

from ..errors import UserError
from .base import Entry, Parts, Storage, Stream, joined
from .mirror import Mirror
from .remote_errors import explained, is_fleeting

SCHEMES = ("s3", "gs", "az")
SETTINGS = ("AWS_", "AZURE_", "GOOGLE_")
MULTIPART = 64 << 20  # bytes: smaller objects are put conditionally, in one request
PIECE = 8 << 20  # bytes of a request, up or down
AT_ONCE = 12  # requests
ATTEMPTS = 4  # of a request that obstore gave up
STALLED = timedelta(seconds=20)  # without a byte

T = TypeVar("T")


class RemoteStorage(Storage):
    """Objects below s3://bucket/prefix, gs://bucket/prefix or az://container/prefix; reading mirrors them."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        scheme, _, rest = self._url.partition("://")
        self._bucket, _, self._prefix = rest.partition("/")
        if scheme not in SCHEMES or not self._bucket or {"", ".", ".."} & set(self._prefix.split("/")[:-1]):
            known = ", ".join(f"{name}://BUCKET/PREFIX" for name in SCHEMES)
            also = "; hf:// is for `pgm cache push` and `pgm cache pull`" if scheme == "hf" else ""
            raise UserError(f"{url} is no place for features: give a folder, or {known}{also}")
        self._root = f"{scheme}://{self._bucket}"

    @property
    def url(self) -> str:
        return self._url

    def under(self, key: str) -> "RemoteStorage":
        return RemoteStorage(joined(self._url, key)) if key else self

    def read(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        if not start and stop is None:
            return bytes(self._ask(lambda store: obstore.get(store, self._at(key)).bytes()))
        size = self.size(key)
        if size is None:
            raise FileNotFoundError(f"{self._url}/{key}")
        stop = size if stop is None else min(stop, size)
        return bytes(self._piece(key, start, stop)) if start < stop else b""

    def local(self, key: str, digest: str) -> Path:
        return Mirror.here().path(self, key, digest)

    def fetch(self, key: str) -> dict[str, Stream]:
        sizes = self.sizes(key)
        pieces = [
            (joined(key, name), start, min(start + PIECE, size))
            for name, size in sizes.items()
            for start in range(0, size, PIECE)
        ]
        # All that fetch at a time share the requests, so that who came first can go on with what it has.
        found = requests().map(lambda piece: self._piece(*piece), pieces)
        return {name: Stream(size, itertools.islice(found, -(-size // PIECE))) for name, size in sizes.items()}

    def put(self, key: str, parts: Parts) -> bool:
        if sum(memoryview(part).nbytes for part in parts) > MULTIPART:
            if self.exists(key):
                return False
            self._overwrite(key, parts)
            return True
        content = b"".join(parts)
        try:
            self._ask(lambda store: obstore.put(store, self._at(key), content, mode="create", use_multipart=False))
        except AlreadyExistsError:
            return False
        return True

    def put_group(self, key: str, objects: Mapping[str, Parts]) -> bool:
        *others, marker = objects
        if self.exists(joined(key, marker)):
            return False
        list(requests().map(lambda name: self._overwrite(joined(key, name), objects[name]), others))
        return self.put(joined(key, marker), objects[marker])

    def names(self, key: str = "") -> list[str]:
        listed = self._ask(lambda store: obstore.list_with_delimiter(store, self._at(key) or None))
        paths = [*listed["common_prefixes"], *(entry["path"] for entry in listed["objects"])]
        return sorted({path.rstrip("/").rsplit("/", 1)[-1] for path in paths})

    def groups(self, key: str, marker: str) -> list[str]:
        listed = self._ask(lambda store: obstore.list_with_delimiter(store, self._at(key) or None))
        names = [path.rstrip("/").rsplit("/", 1)[-1] for path in listed["common_prefixes"]]
        finished = list(
            itertools.compress(names, requests().map(lambda name: self.exists(joined(key, name, marker)), names))
        )
        return sorted([*finished, *(entry["path"].rsplit("/", 1)[-1] for entry in listed["objects"])])

    def entries(self, key: str = "") -> Iterator[Entry]:
        listed = self._ask(lambda store: [*itertools.chain(*obstore.list(store, self._at(key) or None))])
        for entry in sorted(listed, key=lambda entry: entry["path"]):
            name = entry["path"].removeprefix(self._prefix).lstrip("/")
            yield Entry(name, entry["size"], entry["last_modified"].timestamp())

    def size(self, key: str) -> int | None:
        try:
            return int(self._ask(lambda store: obstore.head(store, self._at(key)))["size"])
        except FileNotFoundError:
            return None

    def delete(self, key: str) -> None:
        # A group's marker lies highest: without it, what is left is a group that was never finished.
        below = sorted((entry.key for entry in self.entries(key)), key=lambda name: name.count("/"))
        for keys in ([key], below[:1], below[1:]):
            if keys:
                self._delete(keys)

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteStorage, (self._url,)

    def _at(self, key: str) -> str:
        return joined(self._prefix, key)

    def _delete(self, keys: list[str]) -> None:
        self._ask(lambda store: obstore.delete(store, [self._at(key) for key in keys]))

    def _piece(self, key: str, start: int, stop: int) -> Any:
        return self._ask(lambda store: obstore.get_range(store, self._at(key), start=start, end=stop))

    def _overwrite(self, key: str, parts: Parts) -> None:
        views = [view for part in parts if (view := memoryview(part).cast("B"))]
        if sum(map(len, views)) > PIECE:
            pieces = [view[at : at + PIECE] for view in views for at in range(0, len(view), PIECE)]
            self._ask(lambda store: obstore.put(store, self._at(key), iter(pieces), chunk_size=PIECE))
        else:
            self._ask(lambda store: obstore.put(store, self._at(key), b"".join(views), use_multipart=False))

    def _ask(self, request: Callable[[Any], T]) -> T:
        """Send a request, again while the fault may pass. A put of ours whose answer was lost shows up as taken."""
        if _askers - {os.getpid()}:
            raise UserError(
                f"{self._url}: this process was forked from one that has used an object store; start worker processes "
                'by spawn (a DataLoader\'s with multiprocessing_context="spawn")'
            )
        for attempt in range(ATTEMPTS):
            try:
                return request(client(self._root, settings()))
            except AlreadyExistsError:
                raise
            except (BaseError, FileNotFoundError) as error:
                if attempt + 1 == ATTEMPTS or not is_fleeting(error):
                    raise explained(error, self._url) from error
                time.sleep(0.1 * 2**attempt)
        raise AssertionError("unreachable")


def settings() -> tuple[tuple[str, str], ...]:
    """The environment's variables for object stores: credentials, endpoint, region."""
    return tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith(SETTINGS)))


@cache
def requests() -> ThreadPoolExecutor:
    """The threads of this process that wait for an object store."""
    return ThreadPoolExecutor(AT_ONCE, "pgm-request")


_askers: set[int] = set()  # this process; of a forked one also those before it, whose clients' threads it has not


@lru_cache(maxsize=16)
def client(root: str, environment: tuple[tuple[str, str], ...]) -> Any:
    """A bucket's client, after a first request that fails within seconds where nothing can succeed."""
    _askers.add(os.getpid())
    plain = any(value.startswith("http://") for _, value in environment)
    common: dict[str, Any] = {"allow_http": plain, "connect_timeout": timedelta(seconds=2)}

    def store(retries: int, patience: timedelta, **options: Any) -> Any:
        retry = {"max_retries": retries, "retry_timeout": patience}
        return from_url(root, client_options=common | options, retry_config=retry)  # type: ignore[call-overload]

    try:
        first = store(5, timedelta(seconds=8), timeout=timedelta(seconds=5))
        next(iter(obstore.list(first, chunk_size=1)), None)
    except (BaseError, FileNotFoundError) as error:
        raise explained(error, root) from error
    # No limit for a whole request: large objects over slow lines take their time, as long as bytes arrive.
    return store(8, timedelta(seconds=60), timeout=timedelta(hours=1), read_timeout=STALLED)
