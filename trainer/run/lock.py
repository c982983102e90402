"""One process a run: a lock file that names host and process.

The kernel's lock on the file (flock) decides between processes of one host and vanishes with its owner, so a killed
writer blocks nobody. The text in it is for people, and for file systems whose locks do not reach other hosts: a lock
left by another host is believed, because its owner cannot be asked.
"""

import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from ...cache.errors import RunLocked

NAME = ".lock"
POLL_SECONDS = 0.05


class RunLock:
    """Held from `acquire` to `release`; `acquire` waits up to `wait` seconds, then raises RunLocked."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.descriptor: int | None = None

    def acquire(self, wait: float = 0.0) -> None:
        """Take the lock, recover it from a dead owner, or say who holds it."""
        deadline = time.monotonic() + wait
        while (holder := self._try()) is not None:
            if time.monotonic() >= deadline:
                raise RunLocked(self._refusal(holder, wait))
            time.sleep(POLL_SECONDS)

    def release(self) -> None:
        """Remove the lock file and let go of it, in this order, so that a waiter never locks a file that is gone."""
        if self.descriptor is not None:
            self.path.unlink(missing_ok=True)
            os.close(self.descriptor)
            self.descriptor = None

    def _try(self) -> dict[str, Any] | None:
        """None when the lock is now held here; else what is known of its holder."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _read(descriptor)
            os.close(descriptor)
            return holder
        if not self._is_current(descriptor):
            os.close(descriptor)
            return {}
        holder = _read(descriptor)
        if holder.get("host", socket.gethostname()) != socket.gethostname():
            os.close(descriptor)
            return holder
        me = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(me).encode(), 0)
        self.descriptor = descriptor
        return None

    def _is_current(self, descriptor: int) -> bool:
        """Whether the locked file is still the one at the path: its last owner may have removed it meanwhile."""
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        except FileNotFoundError:
            return False

    def _refusal(self, holder: dict[str, Any], wait: float) -> str:
        who = f"process {holder['pid']} on {holder['host']} (since {holder['since']})" if holder else "another process"
        waited = f" after waiting {wait:g} s" if wait else ""
        message = (
            f"{self.path.parent} is being written by {who}{waited}. Wait for it to finish, or stop it and run again."
        )
        if holder.get("host", socket.gethostname()) != socket.gethostname():
            message += f" If that machine no longer runs it, delete {self.path}."
        return message


def _read(descriptor: int) -> dict[str, Any]:
    """The holder's name, or nothing when it has not written it yet."""
    try:
        value = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
