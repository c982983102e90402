"""The wheel holds every room under the one name `pgm`, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("cache", "loaders", "pipeline", "trainer")


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    out = tmp_path_factory.mktemp("wheel")
    # A copy of what git would give: building in place would leave a build folder in the checkout.
    source = tmp_path_factory.mktemp("source")
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    for name in filter(None, files):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(out), "."],
        cwd=source,
        check=True,
    )
    return zipfile.ZipFile(next(out.glob("*.whl"))).namelist()


def test_no_top_level_name_but_pgm(wheel_names: list[str]) -> None:
    top = {name.split("/")[0] for name in wheel_names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"pgm"}


def test_every_module_of_every_room_is_in_it(wheel_names: list[str]) -> None:
    modules = [file.relative_to(ROOT) for room in ROOMS for file in (ROOT / room).rglob("*.py")]
    missing = [str(module) for module in modules if f"pgm/{module}" not in wheel_names]
    assert missing == []
    assert {
        "pgm/__init__.py",
        "pgm/cli.py",
        "pgm/py.typed",
        "pgm/workers.py",
        "pgm/trainer/report/page.html.j2",
    } <= set(wheel_names)
