"""Where a checkpoint lies: a folder as it is, or a hub id in Hugging Face's cache, fetched where it is not there yet.

What the cache holds is used without asking the network: an encoder is named by its content, so that a branch which
moved makes no difference unnoticed, and `--revision` fetches another. From here on everything loads from a local
folder. Where the hub does not answer within `TIMEOUT` seconds the error says how to bring the files from elsewhere.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, errors, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ...cache.errors import NotFound, UserError

# Of whichever transport library this huggingface_hub has: httpx, or httpx2.
HTTPError: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]
TIMEOUT = 8.0
# A checkpoint's own files, and the numbered folders in which sentence-transformers keeps its later modules.
PLACES = re.compile(r"(\d+_\w+/)?[^/]+")
WEIGHTS = ("model*.safetensors", "*.safetensors", "pytorch_model*.bin")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on this machine. `name` is for people; `revision` the commit, where it is of the hub."""

    folder: Path
    name: str
    revision: str | None = None

    def json(self, file: str) -> Any:
        """What a JSON file of it says; {} where there is none. Raises NotFound where it is not JSON."""
        path = self.folder / file
        try:
            return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise NotFound(f"{path} is not readable as JSON: {error}") from error


def locate(source: str, revision: str | None = None) -> Checkpoint:
    """The checkpoint `source` names, its files fetched if they are not on this machine.

    Raises NotFound for a folder or hub id that does not exist, UserError where it would have to be fetched and the hub
    cannot be reached.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return Checkpoint(folder, folder.resolve().name)
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", source):
        raise NotFound(f"No encoder could be loaded from the folder {source!r}: {missing_folder(folder)}")
    found = cached(source, revision)
    return found if found else fetch(source, revision)


def missing_folder(folder: Path) -> str:
    """What to say of a folder that is not there, with the nearest one that is."""
    there = [path.name for path in folder.parent.iterdir() if path.is_dir()] if folder.parent.is_dir() else []
    near = get_close_matches(folder.name, there, n=1)
    return "there is no such folder." + (f" Did you mean {folder.parent / near[0]}?" if near else "")


def cached(source: str, revision: str | None = None) -> Checkpoint | None:
    """The checkpoint as Hugging Face's cache holds it, whole; None where it does not."""
    try:
        folder = Path(snapshot_download(source, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    return Checkpoint(folder, source, folder.name) if is_whole(folder) else None


def is_whole(folder: Path) -> bool:
    """Whether a folder holds a configuration and all of its weights."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return all((folder / name).is_file() for name in json.loads(index.read_text())["weight_map"].values())
    return (folder / "config.json").is_file() and any(any(folder.glob(pattern)) for pattern in WEIGHTS)


def fetch(source: str, revision: str | None) -> Checkpoint:
    """The checkpoint's files from the hub into Hugging Face's cache: configuration, processor, weights of one
    format."""
    try:
        info = HfApi().model_info(source, revision=revision, timeout=TIMEOUT)
        files = wanted([file.rfilename for file in info.siblings or ()])
        folder = snapshot_download(source, revision=info.sha, allow_patterns=files, etag_timeout=TIMEOUT)
    except GatedRepoError as error:
        raise NotFound(
            f"{source} is only given to people who accepted its terms: accept them at huggingface.co/{source}, then "
            "`hf auth login`."
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        what = f"revision {revision!r} of {source!r}" if isinstance(error, RevisionNotFoundError) else repr(source)
        raise NotFound(
            f"No encoder could be loaded from the hub id {what}: the hub has no such thing, or not for you.\n"
            "Give a hub id (google-t5/t5-base), a folder written by save_pretrained, or tiny."
        ) from error
    except (HTTPError, OSError) as error:
        raise UserError(unreachable(source, revision, error)) from error
    return Checkpoint(Path(folder), source, info.sha)


def wanted(files: list[str]) -> list[str]:
    """Of a repository's files those an encoder is made of: one format of weights, and all that describes them."""
    near = [name for name in files if PLACES.fullmatch(name)]
    kept = [name for name in near if name.endswith((".json", ".txt", ".model", ".tiktoken"))]
    safe = [name for name in near if name.endswith(".safetensors") and not name.startswith("consolidated")]
    ours = [name for name in safe if "/" in name or name.startswith("model")] or safe
    return kept + (ours or [name for name in near if re.fullmatch(r"(.*/)?pytorch_model.*\.bin", name)])


def unreachable(source: str, revision: str | None, error: BaseException) -> str:
    """What to say where an encoder is not here and the hub does not answer."""
    named = source + (f" --revision {revision}" if revision else "")
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return (
        f"{source} is not on this machine, and the Hugging Face hub cannot be reached from it ({reason}).\n"
        "Fetch it where there is network, and copy it here:\n"
        f"  hf download {named} --local-dir {source.rsplit('/', 1)[-1]}\n"
        f"      then give that folder's path in its place; or\n"
        f"  hf download {named}\n"
        "      then copy ~/.cache/huggingface to here, or set HF_HOME to where the copy lies.\n"
        "Or try without: --encoders tiny needs no download (random weights, for trying out the pipeline only)."
    )
