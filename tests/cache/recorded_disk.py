"""A disk whose power may go: what a process does to a folder is recorded, and replayed to what a cut can leave of it.

A file's bytes are on the disk once it was flushed, a name once its folder was; before that either may be there or not.
Only what the interpreter reports is seen (audit hooks, and `os.fsync`): whoever uses it checks the replay to the end
against the real folder.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pgm.cache.storage.local import TEMPORARY

Operation = tuple[Any, ...]
Cut = Literal["dropped", "torn", "some"]


class Recorder:
    """Everything that happens below `root` from now on in this process, in order, as `operations`."""

    def __init__(self, root: Path) -> None:
        self.root, self.operations = str(root.absolute()), []
        fsync = os.fsync

        def flushed(descriptor: int) -> None:
            fsync(descriptor)
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            if os.path.isdir(path):
                self._note("flush folder", path)
            else:
                self._note("flush file", path, Path(path).read_bytes())

        os.fsync = flushed
        sys.addaudithook(self._heard)

    def mark(self, what: object) -> None:
        """Note that the caller has been told something."""
        self.operations.append(("mark", what))

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        match event, arguments:
            case "open", (str() | bytes() | os.PathLike() as path, _, int(flags)) if flags & os.O_CREAT:
                self._note("create", self._whole(path))
            case "os.mkdir", (path, _, folder):
                self._note("mkdir", self._whole(path, folder))
            case (("os.remove" | "os.rmdir"), (path, folder)):
                self._note("remove", self._whole(path, folder))
            case (("os.link" | "os.rename"), (old, new, there, here)):
                self._note(event.removeprefix("os."), self._whole(old, there), self._whole(new, here))

    def _whole(self, path: str | bytes | os.PathLike[str], folder: int = -1) -> str:
        start = os.readlink(f"/proc/self/fd/{folder}") if folder >= 0 else os.getcwd()
        return os.path.normpath(os.path.join(start, os.fsdecode(path)))

    def _note(self, what: str, path: str, *rest: Any) -> None:
        if path.startswith(self.root + "/") or path == self.root:
            others = [each.removeprefix(self.root) if isinstance(each, str) else each for each in rest]
            self.operations.append((what, path.removeprefix(self.root), *others))


@dataclass(eq=False)
class File:
    """content: what a flush made sure of."""

    content: bytes = b""


@dataclass(eq=False)
class Folder:
    """entries: what a process sees. durable: what the last flush made sure of; pending: the changes since."""

    entries: dict[str, File | Folder] = field(default_factory=dict)
    durable: dict[str, File | Folder] = field(default_factory=dict)
    pending: list[tuple[str | None, str | None, File | Folder]] = field(default_factory=list)

    def change(self, old: str | None, new: str | None, node: File | Folder) -> None:
        """The name `old` of a node goes, `new` appears: a rename does both or neither."""
        self.pending.append((old, new, node))
        renamed(self.entries, old, new, node)

    def flush(self) -> None:
        self.durable, self.pending = dict(self.entries), []

    def left(self, cut: Cut, rng: random.Random) -> dict[str, File | Folder]:
        """The entries a cut leaves."""
        if cut == "torn":
            return self.entries
        entries = dict(self.durable)
        for old, new, node in self.pending if cut == "some" else ():
            if rng.random() < 0.5:
                renamed(entries, old, new, node)
        return entries


def renamed(entries: dict[str, File | Folder], old: str | None, new: str | None, node: File | Folder) -> None:
    if old is not None:
        entries.pop(old, None)
    if new is not None:
        entries[new] = node


class Disk:
    """A folder as operations leave it."""

    def __init__(self) -> None:
        self.root = Folder()

    def apply(self, operation: Operation) -> None:
        """What failed when it was recorded fails here, and does nothing."""
        what, path, *rest = operation
        if what == "mark":
            return
        folder, name = self._parent(path)
        there = folder.entries.get(name) if name else self.root
        match what:
            case "create" | "mkdir" if there is None:
                folder.change(None, name, File() if what == "create" else Folder())
            case "flush file" if isinstance(there, File):
                there.content = rest[0]
            case "flush folder" if isinstance(there, Folder):
                there.flush()
            case "remove" if there is not None and not (isinstance(there, Folder) and there.entries):
                folder.change(name, None, there)
            case "link" | "rename" if there is not None:
                beside, new = self._parent(rest[0])
                assert beside is folder, "within a folder a name changes in one step"
                taken = folder.entries.get(new)
                if taken is None or (what == "rename" and isinstance(taken, File)):
                    folder.change(name if what == "rename" else None, new, there)

    def after_cut(self, cut: Cut, seed: int = 0) -> dict[str, bytes | None]:
        """What is there when power is back: path -> content, None for a folder."""
        return dict(self._below(self.root, "", cut, random.Random(seed)))

    def _below(self, folder: Folder, path: str, cut: Cut, rng: random.Random) -> Iterator[tuple[str, bytes | None]]:
        for name, node in folder.left(cut, rng).items():
            if isinstance(node, File):
                yield f"{path}/{name}", node.content
            else:
                yield f"{path}/{name}", None
                yield from self._below(node, f"{path}/{name}", cut, rng)

    def _parent(self, path: str) -> tuple[Folder, str]:
        *folders, name = path.split("/")[1:] or [""]
        here = self.root
        for each in folders:
            inner = here.entries.get(each)
            if not isinstance(inner, Folder):
                return Folder(), name
            here = inner
        return here, name


def states(operations: Sequence[Operation], cuts: Sequence[Cut], seeds: int = 1) -> Iterator[tuple[int, Cut, dict]]:
    """(operations done, kind of cut, what is left) of every prefix; of those that only differ in files that are still
    being written, one."""
    disk, told = Disk(), set()
    for done, operation in enumerate([("mark", None), *operations]):
        disk.apply(operation)
        for cut in cuts:
            for seed in range(seeds if cut == "some" else 1):
                left = disk.after_cut(cut, 1000 * seed + done)
                if (key := frozenset(item for item in left.items() if TEMPORARY not in item[0])) not in told:
                    told.add(key)
                    yield done, cut, left


def materialize(left: dict[str, bytes | None], root: Path) -> None:
    """Make a real folder of it."""
    root.mkdir()
    for path, content in left.items():
        place = Path(f"{root}{path}")
        if content is None:
            place.mkdir()
        else:
            place.write_bytes(content)
