"""The guides' and concepts' commands and code run as they stand, one page after another in one folder.

What needs big data, another machine or the network stands in a block with a title that says so, and is only parsed.
"""

from __future__ import annotations

import inspect
import re
import runpy
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pgm
import pytest
import typer
import yaml
from pgm.cli import app
from pgm.trainer.protocol import Protocol
from PIL import Image
from typer.testing import CliRunner

DOCS = Path(__file__).parents[1] / "docs"
GUIDES = (
    "your-media",
    "extracted-features",
    "published-dataset",
    "your-method",
    "your-encoder",
    "cluster",
    "missing-modalities",
    "tables",
    "your-model",
)
CONCEPTS = ("cache", "run-identity", "protocol", "statistics")
DISHES = ("pasta", "cake", "soup", "salad")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the guides speak of: a table of recipes with photographs, and features in an .npz."""
    folder = tmp_path_factory.mktemp("guides")
    rng = np.random.default_rng(0)
    (folder / "photos").mkdir()
    rows = ["title,photo,dish"]
    for number in range(40):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(folder / f"photos/{number:03}.png")
        rows.append(f'"{DISHES[number % 4]}, the {number}th way",photos/{number:03}.png,{DISHES[number % 4]}')
    (folder / "recipes.csv").write_text("\n".join(rows))
    np.savez(
        folder / "clips.npz",
        bert=rng.normal(size=(40, 5, 8)).astype(np.float32),
        words=rng.integers(1, 6, 40),
        mfcc=rng.normal(size=(40, 12)),
        emotion=np.arange(40) % 2,
        part=np.array(["train"] * 24 + ["val"] * 8 + ["test"] * 8),
    )
    return folder


def blocks(page: str) -> list[tuple[str, str, str]]:
    """(language, title, text) of a page's code."""
    fence = re.compile(r"""^```(sh|python)(?: title="([^"\n]*)")?\n(.*?)^```$""", re.DOTALL | re.MULTILINE)
    return fence.findall((DOCS / page).read_text())


def lines(text: str) -> list[list[str]]:
    """A block's commands, word by word."""
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]


def run(words: Sequence[str]) -> None:
    """A `pgm` command, in this process."""
    assert words[0] == "pgm"
    done = CliRunner().invoke(app, words[1:])
    assert done.exit_code == 0, (words, done.output, done.exception)


@pytest.mark.parametrize("page", [f"guides/{g}.md" for g in GUIDES] + [f"concepts/{c}.md" for c in CONCEPTS])
def test_a_page_runs_as_it_stands(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    # The same commands with a preset of two epochs.
    monkeypatch.setattr(Protocol, "preset", classmethod(lambda cls, name: cls(pretrain_epochs=1, epochs=1)))
    for language, title, text in blocks(page):
        if title.endswith(".py"):
            Path(title).write_text(text)
        elif language == "python":
            Path("guide.py").write_text(text)
            runpy.run_path("guide.py", run_name="__main__")
        elif not title:
            for words in lines(text):
                run(words)


def test_what_is_not_run_is_spelled_right() -> None:
    """Commands and options of the blocks with a title exist."""
    titled = [
        text for page in DOCS.rglob("*.md") for language, runs, text in blocks(page) if language == "sh" and not runs
    ]
    assert titled
    for words in (line for text in titled for line in lines(text.replace("&&", "\n")) if line[0] == "pgm"):
        command = typer.main.get_command(app)
        rest = words[1:]
        while rest and rest[0] in getattr(command, "commands", {}):
            command = command.commands[rest.pop(0)]
        assert not getattr(command, "commands", {}), words
        known = {spelling for one in command.params for spelling in one.opts}
        assert {word for word in rest if word.startswith("--")} <= known, words


def test_every_page_is_in_the_site_and_every_public_name_in_the_reference() -> None:
    text = (DOCS.parent / "mkdocs.yml").read_text()
    nav = yaml.safe_load(text[text.index("\nnav:") :])["nav"]
    made = {"cli.md", "changelog.md", "contributing.md"}
    listed = re.findall(r"[\w/-]+\.md", str(nav))
    assert sorted(listed) == sorted({str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} | made)
    assert sorted(re.findall(r"^::: pgm\.(\w+)$", (DOCS / "api.md").read_text(), re.MULTILINE)) == sorted(pgm.__all__)


def test_every_public_name_is_documented() -> None:
    assert [name for name in pgm.__all__ if not inspect.getdoc(getattr(pgm, name))] == []
