"""Free memory as a process may take it: files as the kernel writes them, of both versions of control groups."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from pgm.cache import open_dataset
from pgm.trainer.data.feed import open_feed
from pgm.trainer.data.memory import available_memory

GIB = 1 << 30
MEMINFO = "MemTotal:       65536000 kB\nMemFree:         1000000 kB\nMemAvailable:   33554432 kB\n"  # 32 GiB
VERSION_2 = {
    "proc/self/cgroup": "0::/user.slice/job-7\n",
    "sys/fs/cgroup/user.slice/memory.max": "max\n",
    "sys/fs/cgroup/user.slice/memory.current": f"{9 * GIB}\n",
    "sys/fs/cgroup/user.slice/job-7/memory.max": f"{8 * GIB}\n",
    "sys/fs/cgroup/user.slice/job-7/memory.current": f"{6 * GIB}\n",
    "sys/fs/cgroup/user.slice/job-7/memory.stat": f"anon 5\ninactive_file {GIB}\n",
}
VERSION_1 = {
    "proc/self/cgroup": "9:cpu,cpuacct:/\n4:memory:/docker/abc\n1:name=systemd:/docker/abc\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{4 * GIB}\n",  # the container sees its own group as the root
    "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{3 * GIB}\n",
    "sys/fs/cgroup/memory/memory.stat": "cache 1\ntotal_inactive_file 1048576\n",
}


def machine(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in {"proc/meminfo": MEMINFO, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, (32 * GIB, None)),
        (VERSION_2, (3 * GIB, 8 * GIB)),
        (VERSION_1, (GIB + (1 << 20), 4 * GIB)),
        # A group above with less left binds; a group without limit does not.
        (
            VERSION_2
            | {
                "sys/fs/cgroup/user.slice/memory.max": f"{10 * GIB}\n",
                "sys/fs/cgroup/user.slice/memory.current": f"{9 * GIB}\n",
            },
            (GIB, 8 * GIB),
        ),
        (VERSION_1 | {"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, (32 * GIB, None)),
        # More used than the limit: nothing is left, and not less.
        (VERSION_1 | {"sys/fs/cgroup/memory/memory.usage_in_bytes": f"{5 * GIB}\n"}, (0, 4 * GIB)),
    ],
    ids=["no group", "version 2", "version 1", "a group above", "no limit", "over the limit"],
)
def test_a_limit_of_a_control_group_bounds_what_is_free(
    tmp_path: Path, files: Mapping[str, str], found: tuple[int, int | None]
) -> None:
    assert available_memory(machine(tmp_path, files)) == found


def test_this_process_may_take_something() -> None:
    free, limit = available_memory()
    assert 0 < free < 1 << 50
    assert limit is None or limit > 0


def test_runs_on_one_device_share_what_is_free(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight that start at once all saw the same memory as free, and took 35 % of it each."""
    store = open_dataset(toy, "toy").features("text")
    rows = np.arange(90, dtype=np.int64)
    needed = int(store.lengths[rows].sum()) * store.dim * store.dtype.itemsize
    monkeypatch.setattr("pgm.trainer.data.feed.free_memory", lambda device: 4 * needed)
    feeds = [open_feed("auto", {"text": store}, rows, rows, 0, torch.device("meta"), sharing=n) for n in (1, 8)]
    assert [feed.kind for feed in feeds] == ["resident", "mapped"]
    assert "for each of 8 runs" in feeds[1].reason
