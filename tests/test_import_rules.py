"""The rooms' walls: who may import what, read from the source itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "cache": {"torch", "dask", "distributed", "transformers", "pgm.pipeline", "pgm.trainer", "pgm.cli", "pgm.console"},
    "pipeline": {"pgm.trainer", "pgm.cli"},
    "pipeline/decode": {"transformers", "pgm.pipeline.encoders", "pgm.pipeline.engine"},
    "pipeline/encoders": {
        "dask",
        "distributed",
        "pgm.pipeline.engine",
        "pgm.pipeline.datasets",
        "pgm.pipeline.imports",
    },
    "pipeline/engine": {"pgm.pipeline.datasets", "pgm.pipeline.imports", "pgm.pipeline.extraction"},
    "loaders": {"pgm.pipeline", "pgm.trainer", "pgm.cli", "transformers", "dask"},
    "doctor": {"pgm.trainer", "pgm.cli", "pgm.console", "transformers"},
    "trainer": {"pgm.pipeline", "pgm.cli", "transformers", "zarr", "h5py"},
}


def imported_names(path: Path) -> set[str]:
    """Every module a file imports anywhere in it, relative ones spelled from `pgm`."""
    package = ("pgm", *path.relative_to(ROOT).parent.parts)
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return names


def test_the_reader_of_imports_sees_relative_and_late_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "cache").mkdir()
    file = tmp_path / "cache" / "bad.py"
    file.write_text("def f():\n    from ..trainer.run import loop\n    import torch.nn\n")
    assert {"pgm.trainer.run", "pgm.trainer.run.loop", "torch.nn"} <= imported_names(file)


@pytest.mark.parametrize("room", FORBIDDEN)
def test_a_room_imports_nothing_across_its_walls(room: str) -> None:
    files = sorted((ROOT / room).rglob("*.py"))
    assert len(files) >= 5
    broken = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in files
        for name in imported_names(file)
        for wall in FORBIDDEN[room]
        if name == wall or name.startswith(f"{wall}.")
    ]
    assert broken == []


# From the ground up: a floor imports what stands before it. What lies beside the floors is the ground.
FLOORS = {
    "cache": ["storage", "segment", "store", "dataset", "commands"],
    "trainer": ["head", "methods", "tasks", "data", "run", "studies", "report"],
}
GROUND = {"cache": {"errors", "nearest"}, "trainer": {"batch", "protocol", "randomness"}}


@pytest.mark.parametrize("room", FLOORS)
def test_a_floor_imports_nothing_from_above(room: str) -> None:
    floors = FLOORS[room]
    assert {path.parent.name for path in (ROOT / room).glob("*/__init__.py")} == set(floors)
    assert {path.stem for path in (ROOT / room).glob("*.py")} == {"__init__", *GROUND[room]}
    above = {floor: {f"pgm.{room}.{other}" for other in floors[place + 1 :]} for place, floor in enumerate(floors)}
    above |= {name: {f"pgm.{room}.{other}" for other in floors if other != "head"} for name in GROUND[room]}
    broken = [
        f"{file.relative_to(ROOT)} imports {name}"
        for where, walls in above.items()
        for file in [*(ROOT / room / where).rglob("*.py"), *(ROOT / room).glob(f"{where}.py")]
        for name in imported_names(file)
        if any(name == wall or name.startswith(f"{wall}.") for wall in walls)
    ]
    assert broken == []


def test_the_head_can_be_lifted_out() -> None:
    """It imports torch, numpy, itself, the errors and the suggestion in them: nothing else of the project."""
    names = {name for file in (ROOT / "trainer" / "head").rglob("*.py") for name in imported_names(file)}
    ours = {name for name in names if name.startswith("pgm")}
    own = {name for name in ours if name == "pgm.trainer.head" or name.startswith("pgm.trainer.head.")}
    assert {name for name in ours - own if not name.startswith(("pgm.cache.errors", "pgm.cache.nearest"))} == set()


def test_inside_the_package_imports_are_relative() -> None:
    files = [file for room in FORBIDDEN for file in (ROOT / room).rglob("*.py")] + sorted(ROOT.glob("*.py"))
    absolute = [
        str(file.relative_to(ROOT))
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == "pgm"
    ]
    assert absolute == []


@pytest.mark.parametrize("statement", ["import pgm.cache", "import pgm.cli", "from pgm import open_features"])
def test_what_needs_no_torch_loads_none(statement: str) -> None:
    heavy = "{'torch', 'transformers', 'distributed', 'dask'}"
    code = f"{statement}; import sys; found = {heavy} & set(sys.modules); assert not found, found"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_entry_points_are_read_in_one_place() -> None:
    files = [file for room in FORBIDDEN for file in (ROOT / room).rglob("*.py")] + sorted(ROOT.glob("*.py"))
    readers = {file.name for file in files if "importlib.metadata.entry_points" in imported_names(file)}
    assert readers == {"plugins.py"}
