"""From raw pictures to a run: replaced pictures are another run with other numbers, the same again the same run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pgm.cli import app
from PIL import Image
from typer.testing import CliRunner

COUNT = 60


def draw(folder: Path, noise: bool) -> None:
    """Pictures whose class can be seen, or noise under the same names."""
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    lines = ["id,picture,label"]
    for row in range(COUNT):
        label = row % 2
        pixels = rng.integers(0, 256, (32, 32, 3)) if noise else np.full((32, 32, 3), 40 + 150 * label)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{row}.png")
        lines.append(f"{row},{row}.png,{'dark' if label else 'bright'}")
    (folder / "table.csv").write_text("\n".join(lines))


def trained(monkeypatch: pytest.MonkeyPatch, where: Path) -> tuple[str, float]:
    """`pgm extract` and `pgm train` in a folder; the run's id and its test accuracy."""
    monkeypatch.chdir(where)
    extract = "extract table.csv --id-column id --image-column picture --label-column label --encoders tiny"
    for command in (f"{extract} --executor serial", "train --cached --method linear --epochs 4 --device cpu"):
        done = CliRunner().invoke(app, command.split())
        assert done.exit_code == 0, done.output
    run = max((where / "runs").glob("*/result.json"), key=lambda path: path.stat().st_mtime)
    return run.parent.name, json.loads(run.read_text())["test"]["accuracy"]


def test_replaced_pictures_are_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    draw(here, noise=False)
    clear = trained(monkeypatch, here)
    draw(here, noise=True)
    noisy = trained(monkeypatch, here)
    assert clear[0] != noisy[0]
    assert clear[1] == 1.0 > noisy[1]
    # The same media elsewhere, from nothing: the same name.
    there = tmp_path / "there"
    there.mkdir()
    for path in (*here.glob("*.png"), here / "table.csv"):
        shutil.copy(path, there)
    assert trained(monkeypatch, there) == noisy
