"""Dataset adapters: a published on-disk layout becomes a `Collection`. One file each; this one is their list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path

from ...cache.errors import NotFound, UserError
from ..collection import Collection
from . import av_mnist, crema_d, digits, food101, iemocap, meld, mosi, mvsa, wikipedia
from .page import Finding, Page, counts, differences

__all__ = ["ADAPTERS", "Adapter", "Finding", "Page", "adapter_named", "load_dataset"]


@dataclass(frozen=True)
class Adapter:
    """One dataset: what it is, what its folder must hold, and how that is read.

    look(root) lists what is there and what is missing; load(root) reads it. `default_root` is where a dataset lies that
    needs no `--root`.
    """

    name: str
    summary: str
    modalities: tuple[str, ...]
    page: Page
    look: Callable[[Path], list[Finding]]
    load: Callable[[Path], Collection]
    default_root: Path | None = None

    @property
    def example(self) -> str:
        """A command that works as it stands once the data is there."""
        return f"pgm extract {self.name}" + ("" if self.default_root else " --root DIR")


def _mvsa(name: str, summary: str) -> Adapter:
    return Adapter(name, summary, mvsa.MODALITIES, mvsa.PAGES[name], partial(mvsa.look, name), partial(mvsa.load, name))


ADAPTERS: dict[str, Adapter] = {
    adapter.name: adapter
    for adapter in (
        Adapter(
            "digits",
            digits.SUMMARY,
            digits.MODALITIES,
            digits.PAGE,
            digits.look,
            digits.load,
            default_root=Path("data/digits"),
        ),
        *(
            Adapter(name, module.SUMMARY, module.MODALITIES, module.PAGE, module.look, module.load)
            for name, module in (
                ("av_mnist", av_mnist),
                ("food101", food101),
                ("mosi", mosi),
                ("meld", meld),
                ("wikipedia", wikipedia),
            )
        ),
        Adapter(
            "wikipedia_231",
            wikipedia.SUMMARY_231,
            wikipedia.MODALITIES,
            wikipedia.PAGE_231,
            wikipedia.look,
            wikipedia.load_231,
        ),
        _mvsa("mvsa_single", mvsa.SUMMARY),
        _mvsa("mvsa_single_equal", mvsa.SUMMARY_EQUAL),
        _mvsa("mvsa_multiple", mvsa.SUMMARY_MULTIPLE),
        *(
            Adapter(name, module.SUMMARY, module.MODALITIES, module.PAGE, module.look, module.load)
            for name, module in (("crema_d", crema_d), ("iemocap", iemocap))
        ),
    )
}


def adapter_named(name: str) -> Adapter:
    """The adapter of a dataset. Raises NotFound with the nearest known name."""
    if name not in ADAPTERS:
        near = get_close_matches(name, ADAPTERS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise NotFound(f"There is no dataset adapter named {name!r}.{hint} Known: {', '.join(ADAPTERS)}.")
    return ADAPTERS[name]


def load_dataset(name: str, root: Path | None = None) -> Collection:
    """The samples of dataset `name`, read from `root`, with a warning where their counts are not the published ones.

    Raises NotFound for an unknown name (with the nearest known one) or a folder that lacks what is needed, UserError
    where a root is needed and none was given.
    """
    adapter = adapter_named(name)
    root = root or adapter.default_root
    if root is None:
        raise UserError(f"{name!r} needs the folder that holds its raw media: {adapter.example}")
    # Absolute: workers of a scheduler elsewhere have another working directory.
    collection = adapter.load(root.expanduser().absolute())
    other = differences(counts(adapter.page, collection.card.splits))
    return collection.warned(other) if other else collection
