"""Dataset adapters: a published on-disk layout becomes a `Collection`. One file each; this one is their list.

Another package adds one with an entry point in the group `pgm.datasets` that names an `Adapter`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from ...cache.errors import NotFound
from ...cache.nearest import did_you_mean
from ...plugins import installed_objects
from ..collection import Collection
from . import av_mnist, crema_d, digits, food101, iemocap, meld, mosi, mvsa, wikipedia
from .home import find_root
from .page import Finding, Page, counts, differences

__all__ = ["ADAPTERS", "Adapter", "Finding", "Page", "adapter_named", "adapters", "load_dataset"]

GROUP = "pgm.datasets"


@dataclass(frozen=True)
class Adapter:
    """One dataset: what it is, what its folder must hold, and how that is read.

    look(root) lists what is there and what is missing; load(root) reads it. `folder` is its folder under `PGM_DATA`,
    where that is not its name; `made_here` says that load writes what is missing.
    """

    name: str
    summary: str
    modalities: tuple[str, ...]
    page: Page
    look: Callable[[Path], list[Finding]]
    load: Callable[[Path], Collection]
    folder: str = ""
    made_here: bool = False

    @property
    def example(self) -> str:
        """A command that works as it stands once the data is there."""
        return f"pgm extract {self.name}" + ("" if self.made_here else " --root DIR")


def _mvsa(name: str, summary: str, folder: str = "") -> Adapter:
    look, load = partial(mvsa.look, name), partial(mvsa.load, name)
    return Adapter(name, summary, mvsa.MODALITIES, mvsa.PAGES[name], look, load, folder)


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
            made_here=True,
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
            folder="wikipedia",
        ),
        _mvsa("mvsa_single", mvsa.SUMMARY),
        _mvsa("mvsa_single_equal", mvsa.SUMMARY_EQUAL, folder="mvsa_single"),
        _mvsa("mvsa_multiple", mvsa.SUMMARY_MULTIPLE),
        *(
            Adapter(name, module.SUMMARY, module.MODALITIES, module.PAGE, module.look, module.load)
            for name, module in (("crema_d", crema_d), ("iemocap", iemocap))
        ),
    )
}


@cache
def adapters() -> dict[str, Adapter]:
    """Every adapter by name, ours and other packages'. Raises UserError for an entry point that is not one."""
    return ADAPTERS | {adapter.name: adapter for adapter in installed_objects(GROUP, Adapter)}


def adapter_named(name: str) -> Adapter:
    """The adapter of a dataset. Raises NotFound with the nearest known name."""
    known = adapters()
    if name not in known:
        raise NotFound(
            f"There is no dataset adapter named {name!r}.{did_you_mean(name, known)} Known: {', '.join(known)}."
        )
    return known[name]


def load_dataset(name: str, root: Path | None = None) -> Collection:
    """The samples of dataset `name`, read from `root` or from where `PGM_DATA` has it, with a warning where their
    counts are not the published ones.

    Raises NotFound for an unknown name (with the nearest known one) or a folder that lacks what is needed.
    """
    adapter = adapter_named(name)
    collection = adapter.load(find_root(adapter, root))
    other = differences(counts(adapter.page, collection.card.splits))
    return collection.warned(other) if other else collection
