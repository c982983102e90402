"""Where a checkpoint lies: a folder as it is, or a hub id in Hugging Face's cache, fetched where it is not there yet.

What the cache holds is used without asking the network: an encoder is named by its content, so that a branch which
moved makes no difference unnoticed, and `--revision` fetches another. From here on everything loads from a local
folder. Where the hub does not answer within `TIMEOUT` seconds the error says how to bring the files from elsewhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
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
from ...cache.nearest import did_you_mean

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
    return here(source, revision) or fetch(source, revision)


def here(source: str, revision: str | None = None) -> Checkpoint | None:
    """The checkpoint where it is on this machine. Raises NotFound for what is neither a folder nor a hub id."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        return Checkpoint(folder, folder.resolve().name)
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", source):
        raise NotFound(f"No encoder could be loaded from the folder {source!r}: {missing_folder(folder)}")
    return cached(source, revision)


def bring(asked: Iterable[tuple[str, str | None]]) -> None:
    """Fetch each (source, revision) that is not on this machine.

    Raises as `locate` does; where the hub cannot be reached, the error names all that are lacking.
    """
    lacking = [one for one in dict.fromkeys(asked) if here(*one) is None]
    for number, (source, revision) in enumerate(lacking):
        fetch(source, revision, lacking[number + 1 :])


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


def fetch(source: str, revision: str | None, after: Iterable[tuple[str, str | None]] = ()) -> Checkpoint:
    """The checkpoint's files from the hub into Hugging Face's cache: configuration, processor, weights of one format.

    after: what would be fetched next, for the error where the hub cannot be reached.
    """
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
            f"No encoder could be loaded from the hub id {what}: the hub has no such thing, or not for you."
            f"{nearest(source)}\nGive a hub id (google-t5/t5-base), a folder written by save_pretrained, or tiny."
        ) from error
    except (HTTPError, OSError) as error:
        raise UserError(unreachable([(source, revision), *after], error)) from error
    return Checkpoint(Path(folder), source, info.sha)


def wanted(files: list[str]) -> list[str]:
    """Of a repository's files those an encoder is made of: one format of weights, and all that describes them."""
    near = [name for name in files if PLACES.fullmatch(name)]
    kept = [name for name in near if name.endswith((".json", ".txt", ".model", ".tiktoken"))]
    safe = [name for name in near if name.endswith(".safetensors") and not name.startswith("consolidated")]
    ours = [name for name in safe if "/" in name or name.startswith("model")] or safe
    return kept + (ours or [name for name in near if re.fullmatch(r"(.*/)?pytorch_model.*\.bin", name)])


def unreachable(lacking: Sequence[tuple[str, str | None]], error: BaseException) -> str:
    """What to say where encoders are not here and the hub does not answer."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    names = " and ".join(source for source, _ in lacking)
    commands = [f"hf download {source}" + (f" --revision {revision}" * bool(revision)) for source, revision in lacking]
    folders = [source.rsplit("/", 1)[-1] for source, _ in lacking]
    return "\n".join(
        [
            f"{names} {'is' if len(lacking) == 1 else 'are'} not on this machine, and the Hugging Face hub cannot be "
            f"reached from it ({reason}).{nearest(lacking[0][0])}",
            "Fetch what is lacking where there is network, and copy it here:",
            *(f"  {command} --local-dir {folder}" for command, folder in zip(commands, folders, strict=True)),
            f"      then give the folder's path in its place (--encoder MODALITY={folders[0]}); or",
            *(f"  {command}" for command in commands),
            "      then copy ~/.cache/huggingface to here, or set HF_HOME to where the copy lies.",
            "Or try without: --encoders tiny needs no download (random weights, for trying out the pipeline only).",
        ]
    )


def nearest(source: str) -> str:
    """A guess at what was meant by a name that is perhaps not a hub id; "" where nothing is near."""
    from .builders import builders
    from .presets import PRESETS, PUBLISHED

    known = {*PRESETS, *builders(), *(name for name, _ in PUBLISHED)}
    return "" if source in known else did_you_mean(source, sorted(known))
