"""Every check in turn, and the text for a report of a fault, which names no path, host or secret."""

from __future__ import annotations

import os
import platform
import re
import socket
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import distributions, version

from .check import Check
from .environment import cores, environment
from .network import credentials, hub, workers
from .places import places

ADDRESS = re.compile(r"\b(?:s3|gs|az|hf|tcp|tls|https?)://[^\s:,;)]+(?::\d+)?")
PATH = re.compile(r"(?<![\w.])~?(?:/[^\s/:,;()]+)+/?")


def examine(features: str, runs: str, scheduler: str | None = None) -> Iterator[Check]:
    """The checks, one after another; the slow ones (disk, hub, Dask: seconds) come last."""
    yield from environment()
    yield from places({"features": features, "runs": runs})
    yield credentials()
    yield from hub()
    yield from workers(scheduler)


def bundle(checks: Iterable[Check], places: Sequence[str] = ()) -> str:
    """The checks and all installed versions, as Markdown for a bug report, without paths, hosts or secrets.

    places: what the user named, which may hold spaces and so be no path to an expression.
    """
    lines = [f"- **{check.state}** {check.name}: {anonymous(check.found, places)}" for check in checks]
    installed = sorted({f"{one.metadata['Name']}=={one.version}" for one in distributions()}, key=str.lower)
    return "\n".join(
        [
            f"### pgm {version('pgm')}, Python {platform.python_version()}, {platform.system()} {platform.release()} "
            f"{platform.machine()}, {cores()} cores",
            "",
            *lines,
            "",
            "<details><summary>packages</summary>",
            "",
            *installed,
            "",
            "</details>",
        ]
    )


def anonymous(text: str, places: Sequence[str] = ()) -> str:
    """The text without addresses, paths, the machine's name and the user's."""
    for place in places:
        text = text.replace(os.path.abspath(place), "PATH").replace(place, "PLACE")
    text = PATH.sub("PATH", ADDRESS.sub("ADDRESS", text))
    for name in {socket.gethostname(), os.environ.get("USER", ""), os.environ.get("LOGNAME", "")} - {"", "root"}:
        text = text.replace(name, "NAME")
    return text
