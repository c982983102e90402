"""The command line as a user types it: real processes, from raw media to a result."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
from pgm.cli import app, main
from pgm.pipeline.imports import ArrayModality, import_arrays
from typer.testing import CliRunner

PGM = str(Path(sys.executable).parent / "pgm")
EXTRACT = ("extract", "digits", "--root", "raw data", "--limit", "120", "--executor", "serial")


class Ended(NamedTuple):
    """How a command ended, under the names of `subprocess.CompletedProcess`."""

    returncode: int
    stdout: str
    stderr: str


def pgm(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PGM, *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder after `pgm extract digits --json`, its raw media gone."""
    folder = tmp_path_factory.mktemp("a user")
    done = pgm(folder, *EXTRACT, "--json")
    assert done.returncode == 0, done.stderr
    (folder / "extract.json").write_text(done.stdout)
    (folder / "extract.err").write_text(done.stderr)
    (folder / "raw data").rename(folder / "taken away")
    return folder


def test_extract_prints_one_json_object_and_progress_elsewhere(folder: Path) -> None:
    told = json.loads((folder / "extract.json").read_text())
    assert set(told["modalities"]) == {"text", "audio", "vision"}
    for modality, store in told["modalities"].items():
        assert {"store", "samples", "tokens", "bytes", "failed", "seconds"} <= set(store)
        assert store["samples"] == 120
        assert store["failed"] == 0
        assert Path(store["store"]).is_dir()
        assert Path(store["store"]).name.startswith(f"{modality}--tiny-")
    assert "random weights, not pretrained" in (folder / "extract.err").read_text()


def test_training_from_the_cache_needs_no_encoder_and_no_raw_media(folder: Path) -> None:
    code = (
        "import sys; from pgm.cli import main\n"
        "sys.argv = ['pgm', 'train', '--cached', '--epochs', '1', '--pretrain-epochs', '1', '--json']\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert not {'transformers', 'distributed', 'PIL', 'soundfile', 'av'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    keys = "run dataset method seed parameters val test seconds samples_per_second"
    assert set(keys.split()) <= set(told)
    assert (told["dataset"], told["method"], told["seed"]) == ("digits", "pgm", 0)
    predictions = pq.read_table(folder / "runs" / told["run"] / "predictions-test.parquet").to_pydict()
    right = [guess == truth for guess, truth in zip(predictions["prediction"], predictions["target"], strict=True)]
    assert told["test"]["accuracy"] == pytest.approx(sum(right) / len(right))


def test_without_cached_what_is_there_is_not_extracted_again(folder: Path) -> None:
    done = pgm(folder, "train", "--epochs", "1", "--method", "text", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["method"] == "single:text"
    assert not (folder / "data").exists()


def test_nothing_cached_names_the_command_that_makes_some(tmp_path: Path) -> None:
    done = pgm(tmp_path, "train", "--cached")
    assert done.returncode == 2
    assert "pgm extract digits" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """What `pgm` does in a folder, in this process: it has imported already what a new one takes seconds for."""

    def run(folder: Path, *arguments: str) -> Ended:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["pgm", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        assert isinstance(end.value.code, int)
        return Ended(end.value.code, *capsys.readouterr())

    return run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("extract", "digitz"), "Did you mean 'digits'"),
        (("extract", "av_mnist"), "make extract DATASET=av_mnist ROOT=DIR"),
        (("extract", "av_mnist", "--root", "."), "mnist/mnist.npz"),
        (("extract", "digits", "--executor", "threads"), "use serial or dask"),
        (("extract", "digits", "--format", "tar"), "is not one of zarr, hdf5"),
        (("extract", "digits", "--dtype", "int4"), "use auto, float32"),
        (("extract", "digits", "--pool", "text=max"), "none, mean, cls, last, sentence or tokens:K"),
        (("extract", "digits", "--encoder", "smell=tiny"), "names the modality 'smell'"),
        (("extract", "digits", "--layer", "text=last"), "takes a number"),
        (("extract", "digits", "--text-column", "title"), "describe a table of yours"),
        (("extract",), "Which dataset?"),
        (("extract", "digits", "--encoders", "papr"), "Did you mean 'paper'"),
        (("train", "--cached", "--method", "concta"), "concat"),
        (("params", "--preset", "huge"), "small"),
        (("cache", "ls", "nowhere"), "nowhere"),
    ],
)
def test_a_mistake_exits_2_with_one_message_and_no_traceback(
    folder: Path, typed: Callable[..., Ended], arguments: tuple[str, ...], said: str
) -> None:
    done = typed(folder, *arguments)
    assert done.returncode == 2, done.stderr
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    "command", ["", "extract", "train", "params", "import", "cache", "runs", "evaluate", "predict"]
)
def test_every_help_page_teaches_with_an_example(tmp_path: Path, typed: Callable[..., Ended], command: str) -> None:
    done = typed(tmp_path, *filter(None, [command]), "--help")
    assert done.returncode == 0
    assert "pgm " in done.stdout
    assert "Example" in done.stdout or command in ("cache", "runs")


def test_a_dry_run_writes_nothing(tmp_path: Path, folder: Path) -> None:
    arguments = ["digits" if part == "digits" else part for part in EXTRACT]
    arguments[arguments.index("raw data")] = str(folder / "taken away")
    done = pgm(tmp_path, *arguments, "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    forecast = json.loads(done.stdout)["modalities"]["vision"]
    assert {"samples", "tokens", "longest", "dim", "bytes", "segments", "free", "seconds"} <= set(forecast)
    assert 64 << 20 < forecast["memory"] < 1 << 30
    assert (forecast["samples"], forecast["longest"], forecast["dim"]) == (120, 17, 128)
    assert list(tmp_path.iterdir()) == []


def test_tab_tells_datasets_methods_and_runs(tmp_path: Path) -> None:
    place = tmp_path / "features"
    for name in ("moods", "moons"):
        import_arrays(place, name, {"text": ArrayModality(np.ones((4, 2)))}, np.arange(4) % 2, ["train", "test"] * 2)
    (tmp_path / "runs" / "d2fba5").mkdir(parents=True)
    (tmp_path / "runs" / "d2fba5" / "config.json").write_text("{}")

    def offered(line: str) -> list[str]:
        environment = {"_PGM_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
        return CliRunner().invoke(app, [], env=environment, prog_name="pgm").stdout.split()

    assert offered(f"pgm train --features {place} --dataset moon") == ["moons"]
    assert offered(f"pgm cache log --features {place} moon") == ["moons"]
    assert offered(f"pgm train --features {tmp_path}/nowhere --dataset m") == []
    assert offered(f"pgm evaluate --runs {tmp_path}/runs d2") == ["d2fba5"]
    assert "mla" in offered("pgm train --method ml")
