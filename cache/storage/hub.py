"""A dataset repository of the Hugging Face Hub: read at one commit, written as one commit at the end.

Files go up as they are put (what the Hub has already, by digest, is not sent again) and are named by one commit, which
`commit` makes and the Hub refuses where somebody else was first. Only `pgm cache push` and `pull` use it.
"""

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # public, and exported without saying so
    build_hf_headers,
    hf_raise_for_status,
    http_backoff,
)

from ..errors import RunFailed, UserError
from .base import Entry, Parts, Storage, joined
from .mirror import Mirror

SCHEME = "hf://datasets/"
KIND = "dataset"
# What its HTTP client raises where nothing answers, under whichever name this version of the client has.
TransportError: type[Exception] = HfHubHTTPError.__bases__[0]

T = TypeVar("T")


@dataclass(eq=False)
class Repository:
    """The repository's files at its latest commit, and what is to be added."""

    name: str
    added: dict[str, CommitOperationAdd] = field(default_factory=dict)
    small: dict[str, bytes] = field(default_factory=dict)  # of what is added, what may be read back

    @property
    def url(self) -> str:
        """hf://datasets/OWNER/NAME."""
        return SCHEME + self.name

    @cached_property
    def api(self) -> HfApi:
        """The Hub's client, with the endpoint and token of the environment."""
        return HfApi(endpoint=os.environ.get("HF_ENDPOINT"))

    @cached_property
    def head(self) -> str | None:
        """The latest commit, None where there is no such repository, or none this token may see."""
        try:
            info = asked(self.url, lambda: self.api.repo_info(self.name, repo_type=KIND))
        except FileNotFoundError:
            return None
        return info.sha

    @cached_property
    def files(self) -> dict[str, int]:
        """Path -> bytes, at the latest commit."""
        if self.head is None:
            return {}
        tree = asked(
            self.url, lambda: [*self.api.list_repo_tree(self.name, repo_type=KIND, revision=self.head, recursive=True)]
        )
        return {entry.path: entry.size for entry in tree if isinstance(entry, RepoFile)}

    def read(self, path: str) -> bytes:
        """A file's bytes. Raises FileNotFoundError."""
        if path in self.small:
            return self.small[path]
        if path not in self.files:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{self.url}/{path}")
        address = hf_hub_url(self.name, path, repo_type=KIND, revision=self.head, endpoint=self.api.endpoint)

        def get() -> bytes:
            answer = http_backoff("GET", address, headers=build_hf_headers(), follow_redirects=True)
            hf_raise_for_status(answer)
            return bytes(answer.content)

        return asked(self.url, get)

    def create(self) -> None:
        """Make the repository, unless it is there."""
        if self.head is None:
            asked(self.url, lambda: self.api.create_repo(self.name, repo_type=KIND, exist_ok=True))
            del self.head

    def add(self, objects: Mapping[str, Parts]) -> None:
        """Send files; the commit that names them comes at the end."""
        contents = {path: b"".join(parts) for path, parts in objects.items()}
        operations = [CommitOperationAdd(path, content) for path, content in contents.items()]
        self.small |= {path: content for path, content in contents.items() if path.endswith((".json", ".md"))}
        # Frees the bytes of what goes to the Hub's large-file store; the rest travels in the commit.
        asked(self.url, lambda: self.api.preupload_lfs_files(self.name, operations, repo_type=KIND))
        self.added |= {operation.path_in_repo: operation for operation in operations}

    def commit(self, message: str) -> bool:
        """Name what was added by one commit; False where there is nothing to name. Raises RunFailed where another
        writer was first."""
        if not self.added:
            return False
        try:
            asked(
                self.url,
                lambda: self.api.create_commit(
                    self.name, [*self.added.values()], commit_message=message, repo_type=KIND, parent_commit=self.head
                ),
            )
        except FileExistsError as error:
            raise RunFailed(
                f"{self.url} was committed to while this was sent; run the same command again, what was sent stays"
            ) from error
        self.added.clear()
        return True


class HubStorage(Storage):
    """Files below hf://datasets/OWNER/NAME."""

    def __init__(self, repository: Repository, prefix: str = "") -> None:
        self.repository, self._prefix = repository, prefix

    @property
    def url(self) -> str:
        return joined(self.repository.url, self._prefix)

    @property
    def parent(self) -> "HubStorage":
        return HubStorage(self.repository, self._prefix.rpartition("/")[0])

    def under(self, key: str) -> "HubStorage":
        return HubStorage(self.repository, joined(self._prefix, key))

    def read(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        return self.repository.read(self._at(key))[start:stop]

    def local(self, key: str, digest: str) -> Path:
        return Mirror.here().path(self, key, digest)

    def put(self, key: str, parts: Parts) -> bool:
        return self._add({self._at(key): parts})

    def put_group(self, key: str, objects: Mapping[str, Parts]) -> bool:
        return self._add({self._at(joined(key, name)): parts for name, parts in objects.items()})

    def names(self, key: str = "") -> list[str]:
        return sorted({entry.key.removeprefix(key).lstrip("/").split("/")[0] for entry in self.entries(key)})

    def entries(self, key: str = "") -> Iterator[Entry]:
        below = f"{self._at(key)}/".lstrip("/")
        sizes = {**self.repository.files, **dict.fromkeys(self.repository.added, 0)}
        for path in sorted(path for path in sizes if path.startswith(below)):
            yield Entry(path.removeprefix(f"{self._prefix}/" if self._prefix else ""), sizes[path], 0.0)

    def size(self, key: str) -> int | None:
        path = self._at(key)
        return 0 if path in self.repository.added else self.repository.files.get(path)

    def delete(self, key: str) -> None:
        raise UserError(f"{self.url}/{key}: nothing is deleted from the Hub by this; delete it on its page")

    def _at(self, key: str) -> str:
        return joined(self._prefix, key)

    def _add(self, objects: Mapping[str, Parts]) -> bool:
        there = {*self.repository.files, *self.repository.added}
        if there.issuperset(objects):
            return False
        self.repository.add(objects)
        return True


def repository_at(url: str) -> Repository:
    """The repository hf://datasets/OWNER/NAME names. Raises UserError."""
    name = url.removeprefix(SCHEME).strip("/")
    if not url.startswith(SCHEME) or name.count("/") != 1:
        raise UserError(f"{url} is no place of the Hub; it is written {SCHEME}OWNER/NAME")
    return Repository(name)


def asked(url: str, request: Callable[[], T]) -> T:
    """The Hub's answer; what it refuses in plain words.

    FileNotFoundError where there is no such repository, FileExistsError where a commit has another parent by now.
    """
    try:
        return request()
    except RepositoryNotFoundError as error:
        if error.response.status_code == 401:
            raise UserError(f"{url}: access was denied; set HF_TOKEN, or run `hf auth login`") from error
        raise FileNotFoundError(errno.ENOENT, "no such repository", url) from error
    except HFValidationError as error:
        raise UserError(f"{url}: {error}") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status in (401, 403):
            raise UserError(f"{url}: access was denied; the token in HF_TOKEN may not do this") from error
        if status == 412:
            raise FileExistsError(errno.EEXIST, "another commit came first", url) from error
        what = str(error).splitlines()[0]
        raise RunFailed(f"{url}: the Hub refused ({what}). What was sent stays: run the same command again") from error
    except (TransportError, OSError, RuntimeError) as error:
        raise RunFailed(f"{url}: the Hub does not answer ({error}); check the network and HF_ENDPOINT") from error
