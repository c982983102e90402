"""A runs root that is no folder: finished runs lie in an object store, and each is trained in a folder of this machine.

    s3://bucket/runs/<run>/files/<digest>-<name>     its files, each named by its bytes
    s3://bucket/runs/<run>/versions/000001.json      which files make the run: put if absent, after all of them

So a run is there whole or not at all, and of two machines that train one run the first to finish it keeps it. What a
table measures of a finished run is a further version. An unfinished run stays on its machine, below PGM_SCRATCH
(~/.cache/pgm/runs): only that machine continues it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import xxhash

from ...cache.errors import CorruptStore
from ...cache.storage import Storage, storage_at
from ...cache.storage.base import digest_of, fetch_checked, in_memory, joined, put_named
from ...cache.store import Log
from .files import write_atomically

SCRATCH = "PGM_SCRATCH"
CONFIG = "config.json"
RESULT = "result.json"
WEIGHTS = "weights.safetensors"
FILES = "files"
UNFINISHED = ("checkpoint.pt",)  # what only the machine that trains needs
Root = Path | str  # of runs: a folder, or s3://bucket/prefix


def runs_place(given: Root) -> Root:
    """What --runs names: a folder, or a URL. Raises UserError for a URL of no known store."""
    return storage_at(given).url if "://" in str(given) else Path(given)


def folder_of(root: Root) -> Path:
    """The folder on this machine that runs are trained in."""
    if isinstance(root, Path):
        return root
    scratch = Path(os.environ.get(SCRATCH) or "~/.cache/pgm/runs").expanduser()
    return scratch / f"{xxhash.xxh3_64_hexdigest(root.encode())}-{root.rstrip('/').rsplit('/', 1)[-1]}"


@dataclass(frozen=True)
class Home:
    """Where one run lies when it is finished."""

    storage: Storage

    def fetch(self, folder: Path, weights: bool = False, anew: bool = False) -> bool:
        """Bring the run's files into its folder, the result last; False where there is no such run.

        weights: those too, which few ask for. anew: also over files that are there. Raises CorruptStore.
        """
        log = Log(self.storage)
        if not (numbers := log.numbers()):
            return False
        version = log.read(numbers[-1])
        for name, digest in sorted(version[FILES].items(), key=lambda item: item[0] == RESULT):
            if name != Path(name).name or name.startswith("."):
                raise CorruptStore(f"{self.storage.url} lists a file {name!r}, which is no run's")
            path = folder / name
            if (anew or not path.exists()) and (weights or name != WEIGHTS):
                content = fetch_checked(self.storage, file_key(name, digest), digest, in_memory)[""]
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, b"".join(content))
                if name == CONFIG:
                    # Runs are listed by when they were made.
                    made = datetime.fromisoformat(version["created"]).timestamp()
                    os.utime(path, (made, made))
        return True

    def put(self, folder: Path, more: Mapping[str, bytes], anew: bool = False) -> None:
        """Hand a finished run back: the files of its folder, and `more` by name, among both the result.

        Where the run is there with another result, that one stays and comes into the folder; unless `anew`.
        """
        files = {path.name: path.read_bytes() for path in kept_files(folder)} | dict(more)
        named = {name: digest_of({"": [content]}) for name, content in files.items()}
        for name, digest in named.items():
            put_named(self.storage, file_key(name, digest), [files[name]], digest)

        def draft(latest: int) -> dict[str, Any] | None:
            before = Log(self.storage).read(latest)[FILES] if latest else {}
            if anew or not latest:
                return {FILES: named}
            if before[RESULT] != named[RESULT] or before.items() >= named.items():
                return None
            return {FILES: {**before, **named}}

        number = Log(self.storage).commit(draft)
        if number is None:
            self.fetch(folder, weights=True, anew=True)

    def remove(self) -> None:
        """Delete the run; its versions go first, so that a half-deleted run is never taken for a finished one."""
        self.storage.delete("versions")
        self.storage.delete("")


def home_of(root: Root, run: str) -> Home | None:
    """Where a run lies when it is finished; None where that is the folder it is trained in."""
    return Home(storage_at(root).under(run)) if isinstance(root, str) else None


def known_runs(root: Root) -> list[str]:
    """The ids of the runs under a root: finished ones, and those this machine has begun."""
    there = storage_at(root).names() if isinstance(root, str) else []
    return sorted({*there, *(path.parent.name for path in folder_of(root).glob(f"*/{CONFIG}"))})


def kept_files(folder: Path) -> list[Path]:
    """The files that make a run."""
    return [path for path in sorted(folder.iterdir()) if path.name[0] != "." and path.name not in UNFINISHED]


def file_key(name: str, digest: str) -> str:
    """Where a file of a run lies in its home."""
    return joined(FILES, f"{digest}-{name}")
