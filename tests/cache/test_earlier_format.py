"""A dataset in the format before segments (the files in `earlier/`, as that version wrote them) is refused everywhere,
by a line that says to extract again, and nothing is written beside it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pgm.cli import app
from pgm.pipeline.imports import ArrayModality, import_arrays
from typer.testing import CliRunner

EARLIER = Path(__file__).parent / "earlier"
REFUSED = r"digits.* has the .*format.* of an earlier PgM.*remove the folder and extract again"


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EARLIER, tmp_path / "features"))


@pytest.mark.parametrize(
    "command",
    [
        "extract digits --encoders tiny --modality text --limit 20",
        "extract digits --encoders tiny --modality text --limit 20 --dry-run",
        "train --cached --dataset digits",
        "train --cached",
        "table 2 --dataset digits",
        "cache ls",
        "cache ls digits",
        "cache verify",
        "cache gc --yes",
        "cache log digits",
        "cache info digits/text--imported-arrays--{digest}",
    ],
)
def test_every_command_refuses_it_and_leaves_it_as_it_is(
    command: str,
    earlier: Path,
    tmp_path: Path,
    tree: Callable[[Path], dict[str, bytes]],
    digits_root: Path,
) -> None:
    before = tree(earlier)
    [store] = (earlier / "digits").glob("text--*")
    words = command.format(digest=store.name[-8:]).split()
    runs = ["--runs", str(tmp_path / "runs")] if words[0] in ("train", "table") else []
    media = ["--root", str(digits_root)] if words[0] == "extract" else []
    done = CliRunner().invoke(app, [*words, "--features", str(earlier), *runs, *media])
    told = f"{done.output} {done.exception}"
    assert re.search(REFUSED, told.replace("\n", " ")), told
    assert done.exit_code != 0
    assert tree(earlier) == before
    assert not (tmp_path / "runs").exists()


def test_an_import_does_not_go_into_its_folder(earlier: Path, tree: Callable[[Path], dict[str, bytes]]) -> None:
    before = tree(earlier)
    vectors = ArrayModality(np.ones((6, 4), np.float16))
    with pytest.raises(Exception, match=REFUSED):
        import_arrays(earlier, "digits", {"text": vectors}, np.arange(6) % 2, ["train"] * 4 + ["test"] * 2)
    assert tree(earlier) == before


def test_datasets_beside_it_can_still_be_used(earlier: Path) -> None:
    vectors = ArrayModality(np.ones((6, 4), np.float16))
    import_arrays(earlier, "mine", {"text": vectors}, np.arange(6) % 2, ["train"] * 4 + ["test"] * 2)
    done = CliRunner().invoke(app, ["cache", "ls", "mine", "--features", str(earlier)])
    assert done.exit_code == 0
    assert "complete" in done.output
