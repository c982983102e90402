"""The machine itself: Python, the packages, torch and its GPUs, memory, what a process may open."""

from __future__ import annotations

import os
import platform
import re
import resource
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import torch
from packaging.requirements import Requirement

from .check import Check, fail, ok, warn

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
LEAST_MEMORY = 4e9  # bytes: torch, an encoder and a batch
LEAST_GPU_MEMORY = 4e9
LEAST_FILES = 1024  # descriptors, the usual default
GIB = 1 << 30


def environment() -> Iterator[Check]:
    """Everything that can be said without a disk or a network."""
    yield python()
    yield dependencies()
    if CONSTRAINTS.exists():
        yield constraints(CONSTRAINTS.read_text())
    yield from accelerators()
    yield memory()
    yield descriptors()


def python() -> Check:
    """Python's version, and the system's."""
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.platform != "linux":
        return warn("Python", found, "PgM is tested on Linux alone; Windows lacks the file locks and maps it needs.")
    return ok("Python", found)


def dependencies() -> Check:
    """Whether what PgM declares is installed, in the versions it allows."""
    wanted = [Requirement(line) for line in requires("pgm") or () if "extra ==" not in line]
    wrong = [text for text in map(unmet, wanted) if text]
    if wrong:
        advice = "Install them: python -m pip install -c constraints.txt -e . (or make setup in a clone)."
        return fail("packages", "; ".join(wrong), advice)
    return ok("packages", f"all {len(wanted)} that PgM needs are installed, in versions it allows")


def unmet(requirement: Requirement) -> str:
    """Why a requirement is not met; empty where it is."""
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return f"{requirement.name} is not installed"
    if requirement.specifier.contains(found, prereleases=True):
        return ""
    return f"{requirement.name} is {found}, and {requirement.specifier} is needed"


def constraints(text: str) -> Check:
    """Whether the versions are those that the results were made with."""
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE))
    other = []
    for name, wanted in pinned.items():
        try:
            # A build's own mark (+cpu, +cu130) is no other release.
            if (found := version(name).partition("+")[0]) != wanted:
                other.append(f"{name} {found} (not {wanted})")
        except PackageNotFoundError:
            continue
    if other:
        advice = "Nothing is wrong; to get the versions the documented results were made with: make setup."
        return warn("versions", f"{len(other)} differ from constraints.txt: {', '.join(other[:5])}", advice)
    return ok("versions", "those of constraints.txt, with which the documented results were made")


def accelerators() -> Iterator[Check]:
    """torch's build, and each GPU with its free memory."""
    built = f"{torch.__version__}, {'CUDA ' + torch.version.cuda if torch.version.cuda else 'built without CUDA'}"
    if not torch.cuda.is_available():
        if Path("/dev/nvidia0").exists():
            advice = "There is an NVIDIA GPU that torch cannot use: install torch's CUDA build, or mend the driver."
            yield warn("torch", built, advice)
        else:
            yield ok("torch", f"{built}; no GPU, {torch.get_num_threads()} threads on {cores()} cores")
        return
    yield ok("torch", f"{built}; {torch.cuda.device_count()} GPUs")
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        found = f"{torch.cuda.get_device_name(number)}, {free / GIB:.1f} of {total / GIB:.1f} GiB free"
        if free < LEAST_GPU_MEMORY:
            yield warn(f"GPU {number}", found, "Somebody uses it: wait, or choose another by CUDA_VISIBLE_DEVICES.")
        else:
            yield ok(f"GPU {number}", found)


def memory() -> Check:
    """What a process may still take: the machine's free memory, or what its container leaves."""
    free, limit = available_memory()
    found = f"{free / GIB:.1f} GiB free" + (f", the container's limit is {limit / GIB:.1f} GiB" if limit else "")
    if free < LEAST_MEMORY:
        return warn("memory", found, "Encoders may not fit: --workers 1, and a smaller --batch-size.")
    return ok("memory", found)


def available_memory() -> tuple[int, int | None]:
    """Bytes that may be taken, and the control group's limit if it has one."""
    free = int(re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())[1]) << 10  # type: ignore[index]
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):
        return free, None
    return min(free, limit - used), limit


def descriptors() -> Check:
    """How many files a process may have open, and map."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"{soft:,} open files a process"
    if soft < LEAST_FILES:
        return warn("limits", found, f"Workers and stores of many segments want more: ulimit -n {min(hard, 65536)}.")
    return ok("limits", found)


def cores() -> int:
    """Those this process may use."""
    return len(os.sched_getaffinity(0))
