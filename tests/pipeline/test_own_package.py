"""A package outside the project adds a dataset, its task, a modality and its encoder: the example is installed and
used."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pgm.cache import open_dataset
from pgm.cache.errors import UserError
from pgm.pipeline import EncoderSpec, ExtractOptions, extract, load_dataset
from pgm.pipeline.datasets import adapters
from pgm.pipeline.encoders import build_encoder
from pgm.pipeline.encoders.builders import builders
from pgm.pipeline.encoders.facts import listing
from pgm.trainer import train

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_package"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example as pip installs it, in a folder of its own."""
    # A copy: building leaves a folder in the source.
    source = shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("source") / "own_package")
    site = tmp_path_factory.mktemp("site")
    install = ["pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--target", str(site)]
    subprocess.run([sys.executable, "-m", *install, str(source)], check=True)
    return site


@pytest.fixture
def entry_points_read_anew() -> Iterator[None]:
    for known in (builders, adapters):
        known.cache_clear()
    yield
    for known in (builders, adapters):
        known.cache_clear()


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch, entry_points_read_anew: None) -> None:
    monkeypatch.syspath_prepend(str(site))


@pytest.fixture
def readings(tmp_path: Path) -> Path:
    """Twenty readings of two smells by three sensors, one of them broken."""
    folder = tmp_path / "raw" / "readings"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(20):
        smell = ("coffee", "smoke")[number % 2]
        np.savetxt(folder / f"{smell}-{number:02d}.csv", rng.random((30, 3)) + number % 2, delimiter=",")
    (folder / "coffee-04.csv").write_text("not,numbers\n")
    return folder.parent


@pytest.mark.usefixtures("installed")
def test_an_installed_package_adds_a_dataset_a_modality_and_its_encoder(readings: Path, tmp_path: Path) -> None:
    collection = load_dataset("gas_readings", readings)
    assert collection.card.classes == ("coffee", "smoke")
    # Nobody said which encoder: the one that says it encodes this modality.
    extract(collection, tmp_path / "features", ExtractOptions(executor="serial", max_failures=0.1))
    store = open_dataset(tmp_path / "features", "gas_readings").features("gas")
    assert (len(store), store.dim) == (20, 3)
    expected = np.loadtxt(readings / "readings" / f"{collection.ids[0]}.csv", delimiter=",")
    np.testing.assert_allclose(store[0][:, 0], expected.mean(0), rtol=1e-3)
    [(row, reason)] = store.errors().items()
    assert collection.ids[row] == "coffee-04"
    assert "not readings" in reason
    run = train(tmp_path / "features", method="linear", runs=tmp_path / "runs", settings={"epochs": 1})
    assert run.config["task"] == "pgm_gas_task:BalancedClassification"
    assert run.test["balanced_accuracy"] >= 0


@pytest.mark.usefixtures("installed")
def test_it_stands_in_the_lists_and_refuses_what_it_does_not_encode() -> None:
    assert listing()["encoders"]["gas"] == {
        "summary": "mean, peak and rise of every gas sensor",
        "modalities": ["gas"],
    }
    assert adapters()["gas_readings"].example == "pgm extract gas_readings --root DIR"
    with pytest.raises(UserError, match="gas has encoders for gas, not for 'text'"):
        build_encoder(EncoderSpec("text", "gas"))


@pytest.mark.usefixtures("entry_points_read_anew")
@pytest.mark.parametrize("group", ["pgm.encoders", "pgm.datasets"])
def test_an_entry_point_that_is_something_else_is_named(
    group: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\nodd = math:pi\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match=r"entry point 'odd' of pgm\.\w+ \(math:pi\) is a float"):
        (builders if group == "pgm.encoders" else adapters)()
