"""Dataset adapters: a published on-disk layout becomes a `Collection`. One file each; this one is their list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from ...cache.errors import NotFound, UserError
from ..collection import Collection
from . import av_mnist, digits

__all__ = ["ADAPTERS", "Adapter", "load_dataset"]


@dataclass(frozen=True)
class Adapter:
    """One dataset: what it is, whether it needs `--root`, and how its folder is read.

    `example` is a command that works as it stands once the data is there.
    """

    name: str
    summary: str
    example: str
    modalities: tuple[str, ...]
    load: Callable[[Path], Collection]
    default_root: Path | None = None


ADAPTERS: dict[str, Adapter] = {
    adapter.name: adapter
    for adapter in (
        Adapter(
            "digits",
            digits.SUMMARY,
            "pgm extract digits",
            ("text", "audio", "vision"),
            digits.load,
            default_root=Path("data/digits"),
        ),
        Adapter("av_mnist", av_mnist.SUMMARY, "pgm extract av_mnist --root DIR", ("audio", "vision"), av_mnist.load),
    )
}


def load_dataset(name: str, root: Path | None = None) -> Collection:
    """The samples of dataset `name`, read from `root`.

    Raises NotFound for an unknown name (with the nearest known one) and UserError where a root is needed and none was
    given.
    """
    if name not in ADAPTERS:
        near = get_close_matches(name, ADAPTERS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise NotFound(f"There is no dataset adapter named {name!r}.{hint} Known: {', '.join(ADAPTERS)}.")
    adapter = ADAPTERS[name]
    root = root or adapter.default_root
    if root is None:
        raise UserError(f"{name!r} needs the folder that holds its raw media: {adapter.example}")
    # Absolute: workers of a scheduler elsewhere have another working directory.
    return adapter.load(root.expanduser().absolute())
