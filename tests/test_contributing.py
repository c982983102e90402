"""CONTRIBUTING.md names every file that a new dataset, encoder, method, task, table or figure takes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAME = "throwaway"
FILES = {
    "dataset": {
        "pipeline/datasets/NAME.py": (
            "from . import Adapter\nfrom .digits import PAGE, load, look\n"
            'ADAPTER = Adapter("throwaway", "a copy of digits", ("text",), PAGE, look, load)\n'
        ),
        "pipeline/datasets/__init__.py": (
            "    return ADAPTERS | {",
            "    from .throwaway import ADAPTER\n\n    return ADAPTERS | {ADAPTER.name: ADAPTER} | {",
        ),
    },
    "encoder": {
        "pipeline/encoders/NAME.py": (
            "from .builders import Builder\nfrom .tiny import TINY\n"
            'THROWAWAY = Builder("throwaway", ("smell",), "a copy of tiny", TINY.build)\n'
        ),
        "pipeline/encoders/builders.py": (
            "for builder in (TINY, PATCH, *",
            "for builder in (TINY, PATCH, __import__('pgm.pipeline.encoders.throwaway', fromlist=['x']).THROWAWAY, *",
        ),
    },
    "method": {
        "trainer/methods/NAME.py": (
            '"""A copy of concat."""\nfrom dataclasses import dataclass\nfrom .concat import ConcatConfig\n'
            '@dataclass(frozen=True)\nclass CopyConfig(ConcatConfig):\n    names = ("throwaway",)\n'
        ),
    },
    "task": {
        "trainer/tasks/NAME.py": (
            '"""A copy of classification."""\nfrom .classification import Classification\n'
            'class Throwaway(Classification):\n    name = "throwaway"\n'
        ),
    },
    "table": {
        "trainer/studies/NAME.py": (
            '"""One row, tabulated and drawn."""\nfrom .engine.study import Row, Study, TableSpec\n'
            'class Throwaway(Study):\n    name = "throwaway"\n'
            "    def spec(self, request, options):\n"
            '        return TableSpec("One row", (Row("copy", "throwaway"),), "copy")\n'
            "STUDY = Throwaway()\n"
        ),
    },
}
FILES["figure"] = FILES["table"]  # a study is both
SEEN = """
import json, sys
from pathlib import Path
from typer.testing import CliRunner
import pgm
assert Path(pgm.__file__).parents[1] == Path(sys.argv[1]), pgm.__file__
from pgm.cli import app
from pgm.pipeline.datasets import adapters
from pgm.pipeline.encoders.builders import builder_of
from pgm.trainer import train
assert adapters()["throwaway"].summary == "a copy of digits"
assert builder_of("throwaway").modalities == ("smell",)
run = train(sys.argv[2], method="throwaway", runs=sys.argv[3], device="cpu",
            settings={"dim": 8, "heads": 2, "feedforward": 16, "epochs": 1, "pretrain_epochs": 1})
assert run.config["method"]["name"] == "throwaway" and run.config["task"] == "throwaway"
settings = [f"--set={s}" for s in ("dim=8", "heads=2", "feedforward=16", "epochs=1", "pretrain_epochs=1")]
where = ["throwaway", "--features", sys.argv[2], "--runs", sys.argv[3], "--seeds=1", "--device=cpu", "--json"]
made = CliRunner().invoke(app, ["table", *where, *settings], catch_exceptions=False)
assert json.loads(made.stdout)["rows"][0]["runs"] == [run.id], made.output
drawn = CliRunner().invoke(app, ["figure", *where, *settings, "--out", sys.argv[3]], catch_exceptions=False)
assert json.loads(drawn.stdout)["figure"] == "throwaway"
from pgm.trainer.studies import described
assert "throwaway: One row, tabulated and drawn." in described()
"""


def listed() -> dict[str, set[str]]:
    """Kind -> files, from CONTRIBUTING.md's table."""
    lines = re.findall(r"^\| (\w+) \| (`.*`) \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    return {kind: set(re.findall(r"`([^`]+)`", files)) for kind, files in lines}


def copied(to: Path) -> Path:
    """The package as git would give it."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py", "*.template", "*.j2"]
    files = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in filter(None, files):
        if not name.startswith(("tests/", "bench/", "docs/", "examples/")) and (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            (to / name).write_bytes((ROOT / name).read_bytes())
    return to


def test_the_files_listed_are_those_that_something_new_takes(tmp_path: Path) -> None:
    assert listed() == {kind: set(changes) for kind, changes in FILES.items()}
    package = copied(tmp_path / "copy" / "pgm")
    for changes in FILES.values():
        for name, change in changes.items():
            path = package / name.replace("NAME", NAME)
            if isinstance(change, str):
                path.write_text(change)
            else:
                text = path.read_text()
                assert change[0] in text or change[1] in text
                path.write_text(text.replace(*change) if change[1] not in text else text)
    environment = {**os.environ, "PYTHONPATH": str(package.parent), "OMP_NUM_THREADS": "1"}
    script = tmp_path / "data.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(ROOT / 'tests' / 'trainer')!r})\n"
        f"import conftest\nfrom pathlib import Path\nconftest.write_toy(Path(sys.argv[2]), task='throwaway')\n{SEEN}"
    )
    command = [sys.executable, str(script), str(package.parent), str(tmp_path / "features"), str(tmp_path / "runs")]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
