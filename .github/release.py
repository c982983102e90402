"""Is this commit a release? python .github/release.py [--tag vX.Y.Z]; without --tag it also makes the tag.

A release has one version everywhere, a dated section of CHANGELOG.md that says something, and nothing uncommitted. The
tag carries that section. Pushing it is left to a person: it starts the workflow that publishes.
"""

from __future__ import annotations

import argparse
import datetime
import re
import subprocess
import sys
from pathlib import Path

VERSIONS = {
    "pyproject.toml": r'^version = "([^"]+)"',
    "__init__.py": r'^__version__ = "([^"]+)"',
    "CITATION.cff": r"^version: (\S+)",
}


def faults(root: Path, tag: str | None, today: datetime.date) -> list[str]:
    """What is in the way of a release, each with what to do; none where it may go."""
    stated = {name: found(pattern, (root / name).read_text()) for name, pattern in VERSIONS.items()}
    version = stated["pyproject.toml"]
    wrong = [f"{name} says {other}, pyproject.toml {version}" for name, other in stated.items() if other != version]
    if tag is not None and tag != f"v{version}":
        wrong.append(f"the tag is {tag}, the version {version}: the tag of this commit is v{version}")
    heading, text = newest(root)
    if heading != f"{version} ({today.isoformat()})" and (tag is None or not heading.startswith(f"{version} (20")):
        wrong.append(f"CHANGELOG.md begins with {heading!r}: write '## {version} ({today.isoformat()})'")
    if not text:
        wrong.append(f"CHANGELOG.md says nothing of {heading}")
    return wrong


def found(pattern: str, text: str) -> str:
    """The first match's group; empty without one."""
    match = re.search(pattern, text, re.MULTILINE)
    return match[1] if match else ""


def newest(root: Path) -> tuple[str, str]:
    """The changelog's first heading, and what stands below it."""
    parts = re.split(r"^## (.+)$", (root / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    return (parts[1].strip(), parts[2].strip()) if len(parts) > 2 else ("nothing", "")


def git(root: Path, *words: str) -> str:
    """What git prints."""
    return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True).stdout.strip()


def main(root: Path, tag: str | None) -> int:
    """Check, and without a tag make it; 1 where something is in the way."""
    wrong = faults(root, tag, datetime.date.today())
    name = f"v{found(VERSIONS['pyproject.toml'], (root / 'pyproject.toml').read_text())}"
    if tag is None:
        if git(root, "status", "--porcelain"):
            wrong.append("there are uncommitted changes: commit them first")
        if git(root, "tag", "--list", name):
            wrong.append(f"{name} is tagged already: raise the version")
    for line in wrong:
        print(f"release: {line}", file=sys.stderr)
    if tag is None and not wrong:
        git(root, "tag", "--annotate", name, "--cleanup=verbatim", "--message", f"{name}\n\n{newest(root)[1]}")
        print(f"{name} is tagged. To publish it: git push origin {name}")
    return 1 if wrong else 0


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--tag")
    sys.exit(main(Path(__file__).parents[1], arguments.parse_args().tag))
