"""What is said of a dataset before any work: its page, what its adapter looks for under a root, and whether the counts
are the published ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...cache.errors import NotFound


@dataclass(frozen=True)
class Page:
    """What `pgm datasets show` prints.

    layout: the adapter's docstring, which draws the tree. published: samples as published, by split or by several
    joined with a plus ("train+val", where the validation split is carved here); empty where no count is published.
    """

    layout: str
    splits: str
    classes: str
    licence: str
    source: str
    citation: str
    published: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """One thing an adapter looks for: `count` files or rows of `what` (a path under the root, perhaps with stars).

    needed: nothing can be read without it. without: what its absence costs where it is not needed.
    """

    what: str
    count: int
    needed: bool = True
    without: str = ""

    def __str__(self) -> str:
        if self.count:
            return f"  found    {self.what}" + (f"  ({self.count:,})" if self.count > 1 else "")
        return f"  missing  {self.what}  ({'needed' if self.needed else f'without it: {self.without}'})"


@dataclass(frozen=True)
class Count:
    """Samples of one split (or several, joined with a plus) as found here and as published."""

    split: str
    found: int
    published: int

    def __str__(self) -> str:
        return f"{self.split}: {self.found:,} here, {self.published:,} published"


def require(name: str, root: Path, findings: Sequence[Finding], source: str) -> None:
    """Raise NotFound, listing what is there and what is not, where something that is needed is missing."""
    if not root.is_dir():
        raise NotFound(f"{name} was to be read from --root {root}, and there is no such folder. Get it: {source}")
    if any(finding.needed and not finding.count for finding in findings):
        lines = "\n".join(map(str, findings))
        raise NotFound(f"{name} cannot be read from --root {root}, which was searched for:\n{lines}\nGet it: {source}")


def counts(page: Page, splits: Mapping[str, int]) -> list[Count]:
    """The found counts beside the published ones."""
    return [
        Count(joined, sum(splits.get(split, 0) for split in joined.split("+")), published)
        for joined, published in page.published.items()
    ]


def differences(compared: Iterable[Count]) -> str:
    """One sentence with both numbers of every count that is not the published one; empty where all agree."""
    other = [str(count) for count in compared if count.found != count.published]
    return f"The counts are not the published ones ({'; '.join(other)})." if other else ""
