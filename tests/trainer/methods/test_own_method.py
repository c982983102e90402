"""A method of somebody else's is named, trained, resumed, restored, predicted and tabulated like ours."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pgm.cache.errors import UserError
from pgm.cli import app
from pgm.trainer import Run
from pgm.trainer.methods import restored
from pgm.trainer.methods.concat import ConcatConfig
from pgm.trainer.methods.new import write_method
from pgm.trainer.run.inference import evaluate_run
from pgm.trainer.run.request import Request, resolve
from pgm.trainer.studies import studies
from pgm.trainer.studies.engine.runner import train_cell
from typer.testing import CliRunner

from ..conftest import TINY
from ..run.test_resume import KILLED, SETTINGS, assert_same, train_now, unfinished

EXAMPLE = Path(__file__).parents[3] / "examples" / "own_method"
PATH = "pgm_gated:GatedConfig"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `pgm new method gated` writes, and the example, as pip installs them, in a folder of their own."""
    source, site = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    write_method("gated", source)
    # A copy: building leaves a folder in the source.
    shutil.copytree(EXAMPLE, source / "own_method")
    install = ["pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--target", str(site)]
    packages = [str(source / "gated"), str(source / "own_method")]
    subprocess.run([sys.executable, "-m", *install, *packages], check=True)
    shutil.copy(source / "gated" / "test_gated.py", site)
    return site


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site))
    studies.cache_clear()
    yield
    studies.cache_clear()


def call(*words: object) -> str:
    """A command's stdout; its own errors are raised."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None:
        raise result.exception
    return result.stdout


@pytest.mark.usefixtures("installed")
def test_name_import_path_class_and_configuration_are_one_run(toy: Path) -> None:
    config = importlib.import_module("pgm_gated").GatedConfig
    preset = {"dim": 64, "heads": 4, "feedforward": 128}

    def asked(method: Any, **settings: Any) -> Any:
        return resolve(Request(toy, Path("unused"), method=method, settings=settings))

    found = [asked(method).run.id for method in ("gated", PATH, config, config(**preset))]
    assert len(set(found)) == 1
    assert asked("gated", temperature="0.5").run.id == asked(config(**preset, temperature=0.5)).run.id != found[0]
    described = asked("gated").config["method"]
    assert {"name": PATH, "version": 1, "extends": {"TrunkConfig": 1}}.items() <= described.items()
    assert restored(json.loads(json.dumps(described)), ("text", "vision")) == config(**preset)
    ours = ConcatConfig(dim=8, heads=2, feedforward=16)
    assert asked(ours).run.id == asked("concat", dim=8, heads=2, feedforward=16).run.id
    with pytest.raises(UserError, match="No switch 'temperature'"):
        asked(config(), temperature=0.5)


@pytest.mark.usefixtures("installed")
def test_its_own_version_is_in_the_name_of_a_run(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = importlib.import_module("pgm_gated").GatedConfig
    before = resolve(Request(toy, Path("unused"), method="gated")).run.id
    monkeypatch.setattr(config, "version", 2)
    assert resolve(Request(toy, Path("unused"), method="gated")).run.id != before


@pytest.mark.usefixtures("installed")
def test_killed_without_warning_it_ends_with_the_same_bits(toy: Path, tmp_path: Path) -> None:
    whole = train_now(toy, tmp_path / "whole", "gated")
    arguments = [str(toy), str(tmp_path / "cut"), "gated", "2", repr(SETTINGS)]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, check=False)
    assert killed.returncode == -9, killed.stderr.decode()[-2000:]
    unfinished(tmp_path / "cut" / whole.id)
    run = train_now(toy, tmp_path / "cut", PATH)
    assert_same(run, whole)
    assert evaluate_run(run, "test", toy, "auto", "cpu")["metrics"] == pytest.approx(run.test)


@pytest.mark.usefixtures("installed")
def test_the_example_trains_predicts_and_stands_in_tables_by_the_command_line(toy: Path, tmp_path: Path) -> None:
    where = ["--features", toy, "--runs", tmp_path / "runs"]
    few = [f"--set={name}={value}" for name, value in TINY.items()]
    trained = json.loads(call("train", "--cached", *where, "--method=lowrank", "--json", *few))
    out = tmp_path / "predictions.parquet"
    call("predict", trained["run"], *where, "--out", out)
    assert pq.read_table(out).num_rows == 160
    table = ["--seeds=2", "--workers=1", "--json", *few]
    fusion = json.loads(
        call("table", "fusion", "--methods=concat,gated,lowrank,pgm_lowrank:LowRankConfig", *where, *table)
    )
    assert [row["method"] for row in fusion["rows"]] == ["concat", "gated", "lowrank", "pgm_lowrank:LowRankConfig"]
    assert trained["run"] in fusion["rows"][2]["runs"]
    assert fusion["rows"][2]["runs"] == fusion["rows"][3]["runs"]
    assert fusion["reference"] == "Concatenation"
    ranks = json.loads(call("table", "ranks", *where, *table))
    assert [row["label"] for row in ranks["rows"]] == ["concat", "rank 1", "rank 4", "rank 16"]
    assert ranks["rows"][2]["runs"] == fusion["rows"][2]["runs"]
    assert all(0 <= row["test"]["calibration_error"]["mean"] <= 1 for row in ranks["rows"])
    assert call("methods").count("installed: ") == 2


def test_what_pgm_new_writes_passes_its_own_tests(site: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "test_gated.py"]
    done = subprocess.run(command, cwd=site, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "4 passed" in done.stdout


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Gated", "small letters"),
        ("class", "small letters"),
        ("concat", "a method 'concat' already"),
        ("there", "there is there"),
    ],
)
def test_a_new_method_takes_no_name_that_is_none_or_taken(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match=message):
        write_method(name, tmp_path)
    assert list(tmp_path.rglob("*")) == [tmp_path / "there"]


BROKEN = """
from dataclasses import dataclass, field
from typing import Any, ClassVar
from pgm.trainer.methods import Method, MethodConfig

class Net(Method):
    pass

@dataclass(frozen=True)
class Fine(MethodConfig):
    version: ClassVar[int] = 1
    width: int = 8
    extra: Any = 0
    def build(self, shape):
        raise NotImplementedError

@dataclass(frozen=True)
class Plain:
    version: ClassVar[int] = 1

class Undecorated(Fine):
    version: ClassVar[int] = 1

@dataclass(frozen=True)
class Unversioned(Fine):
    pass

@dataclass(frozen=True)
class VersionField(Fine):
    version: int = 1

@dataclass(frozen=True)
class Unbuilt(MethodConfig):
    version: ClassVar[int] = 1

@dataclass(frozen=True)
class Required(MethodConfig):
    version: ClassVar[int] = 1
    width: int
    build = Fine.build

@dataclass(frozen=True)
class Lists(Fine):
    version: ClassVar[int] = 1
    extra: Any = field(default_factory=lambda: {1, 2})
"""


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("nowhere_at_all:Head", "no module 'nowhere_at_all' in this Python"),
        ("broken_heads:Fime", "has no 'Fime'. It has Fine, .*Did you mean 'Fine'"),
        ("broken_heads:Net", "it is the module; name its configuration"),
        ("broken_heads:Plain", "extends pgm.trainer.methods.MethodConfig"),
        ("broken_heads:Undecorated", r"@dataclass\(frozen=True\) is missing"),
        ("broken_heads:Unversioned", "says no version of its own"),
        ("broken_heads:VersionField", "the version is a class variable"),
        ("broken_heads:Unbuilt", "it has no build"),
        ("broken_heads:Required", "every field needs a default"),
        ("broken_heads:Lists", r"extra=\{1, 2\} of broken_heads:Lists does not come back the same from JSON"),
        ("failing_heads:Head", r"importing failing_heads failed: ZeroDivisionError: .*failing_heads.py, line 1"),
        ("needing_heads:Head", "importing needing_heads failed: No module named 'nowhere_at_all'"),
        ("gatd", "No method 'gatd' for this dataset"),
    ],
)
def test_what_is_no_method_is_told_so_in_plain_words(
    asked: str, message: str, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_heads.py").write_text(BROKEN)
    (tmp_path / "failing_heads.py").write_text("1 / 0\n")
    (tmp_path / "needing_heads.py").write_text("import nowhere_at_all\n")
    # They lie in the working folder, where `python -m` would find them.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "broken_heads", raising=False)
    with pytest.raises(UserError, match=message):
        resolve(Request(toy, Path("unused"), method=asked))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("math:pi", "is a float, and not a Study"),
        ("no_such:S", "cannot be loaded"),
        ("pgm.trainer:Study", "cannot be loaded.*abstract method"),
    ],
)
def test_an_entry_point_that_is_no_study_is_named(
    value: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[pgm.studies]\nodd = {value}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    studies.cache_clear()
    with pytest.raises(UserError, match=rf"entry point 'odd' of pgm.studies \({value}\) {message}"):
        studies()


def test_a_class_that_no_other_process_finds_is_refused(toy: Path) -> None:
    class Local(ConcatConfig):
        version = 1

    with pytest.raises(UserError, match="dataclass"):
        resolve(Request(toy, Path("unused"), method=Local))
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(BROKEN, "script.py", "exec", dont_inherit=True), namespace)
    with pytest.raises(UserError, match="a module of its own"):
        resolve(Request(toy, Path("unused"), method=namespace["Fine"]()))


def test_a_worker_that_cannot_import_it_says_so(toy: Path, tmp_path: Path) -> None:
    _, error = train_cell(Request(toy, tmp_path, method="of_a_client:Head"))
    assert error is not None
    assert "there is no module 'of_a_client' in this Python" in error
    assert "the workers of another machine need it too" in error


@pytest.mark.usefixtures("installed")
def test_a_run_whose_method_is_gone_says_what_is_missing(
    toy: Path, tmp_path: Path, quick: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, site: Path
) -> None:
    run = quick(toy, tmp_path, "gated")
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder != str(site)])
    monkeypatch.delitem(sys.modules, "pgm_gated")
    with pytest.raises(UserError, match="no module 'pgm_gated'"):
        evaluate_run(run, "test", toy, "auto", "cpu")
