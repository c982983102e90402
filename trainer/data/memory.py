"""How much memory a process may still take: the machine's, or what its control groups (a container's limit) leave.

Read from /proc and /sys/fs/cgroup, versions 1 and 2, at every level from the process's own group up to the root: a
limit anywhere above binds. Pages of files that the kernel gives back when asked (inactive_file) count as free.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

UNLIMITED = 1 << 60  # version 1 writes "no limit" as the largest number of pages


def available_memory(root: Path = Path("/")) -> tuple[int, int | None]:
    """Bytes that may be taken, and the tightest limit of a control group, None without any.

    root: where proc and sys lie.
    """
    free = values_of(root / "proc/meminfo")["MemAvailable:"] << 10
    limits = list(control_groups(root))
    left = [limit - used for limit, used in limits]
    return max(0, min([free, *left])), min((limit for limit, _ in limits), default=None)


def control_groups(root: Path) -> Iterator[tuple[int, int]]:
    """Limit and use in bytes of every group above this process that has a limit."""
    mounted = root / "sys/fs/cgroup"
    for line in lines_of(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if not controllers:
            names, top, reclaimed = ("memory.max", "memory.current"), mounted, "inactive_file"
        elif "memory" in controllers.split(","):
            names, top = ("memory.limit_in_bytes", "memory.usage_in_bytes"), mounted / "memory"
            reclaimed = "total_inactive_file"
        else:
            continue
        own = PurePosixPath(path.strip("/"))
        # In a container the path is the host's, and its own group is the root it sees.
        for group in (own, *own.parents):
            limit, used = (number_in(top / group / name) for name in names)
            if limit is not None and used is not None and limit < UNLIMITED:
                yield limit, used - values_of(top / group / "memory.stat").get(reclaimed, 0)


def number_in(path: Path) -> int | None:
    """A file's one number; None where there is no file, or no number ("max")."""
    lines = lines_of(path)
    return int(lines[0]) if lines and lines[0].isdecimal() else None


def values_of(path: Path) -> dict[str, int]:
    """The first number of each line, by the line's first word."""
    return {words[0]: int(words[1]) for words in map(str.split, lines_of(path)) if len(words) > 1}


def lines_of(path: Path) -> list[str]:
    """A small file's lines; none where it cannot be read, as in a container that hides it."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
