"""The wheel holds every room under the one name `pgm`, works away from the checkout, and is what a release says."""

from __future__ import annotations

import datetime
import importlib.util
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pgm
import pytest
import yaml

ROOT = Path(__file__).parents[1]
ROOMS = ("cache", "doctor", "loaders", "pipeline", "trainer")
TODAY = datetime.date(2026, 12, 1)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
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
    return next(out.glob("*.whl"))


def test_no_top_level_name_but_pgm(wheel: Path) -> None:
    top = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"pgm"}


def test_every_module_of_every_room_is_in_it(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    kinds = ("*.py", "*.j2", "*.template")
    parts = [file.relative_to(ROOT) for room in ROOMS for kind in kinds for file in (ROOT / room).rglob(kind)]
    assert [str(part) for part in parts if f"pgm/{part}" not in names] == []
    assert {"pgm/__init__.py", "pgm/cli.py", "pgm/py.typed", "pgm/workers.py"} <= set(names)


def test_the_wheel_works_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    """`make wheel` does it in an environment of its own; here the packages are those that are there."""
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = "import pgm; print(pgm.__file__, pgm.__version__); from pgm.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "datasets", "ls"],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(f"{tmp_path}/site/pgm/__init__.py {pgm.__version__}\n")
    assert "av_mnist" in done.stdout
    assert wheel.name.startswith(f"pgm-{pgm.__version__}-")


@pytest.fixture(scope="module")
def release() -> ModuleType:
    spec = importlib.util.spec_from_file_location("release", ROOT / ".github" / "release.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def checkout(root: Path, changelog: str, version: str = "0.3.0") -> Path:
    """A repository whose files say a version."""
    (root / "pyproject.toml").write_text(f'version = "{version}"\n')
    (root / "__init__.py").write_text(f'__version__ = "{version}"\n')
    (root / "CITATION.cff").write_text("version: 0.3.0\n")
    (root / "CHANGELOG.md").write_text(f"# Changelog\n\n{changelog}")
    for words in (("init", "--quiet"), ("add", "."), ("commit", "--quiet", "--message", "all")):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=root, check=True)
    return root


@pytest.mark.parametrize(
    ("changelog", "version", "tag", "said"),
    [
        ("## 0.3.0 (2026-12-01)\n\n- news\n", "0.3.0", None, ""),
        ("## 0.3.0 (2026-11-01)\n\n- news\n", "0.3.0", "v0.3.0", ""),
        ("## 0.3.0 (2026-11-01)\n\n- news\n", "0.3.0", None, "write '## 0.3.0 (2026-12-01)'"),
        ("## 0.3.0 (unreleased)\n\n- news\n", "0.3.0", "v0.3.0", "write '## 0.3.0 (2026-12-01)'"),
        ("## 0.3.0 (2026-12-01)\n\n## 0.2.0\n\n- old\n", "0.3.0", None, "says nothing of 0.3.0"),
        ("## 0.3.0 (2026-12-01)\n\n- news\n", "0.3.0", "v0.4.0", "the tag of this commit is v0.3.0"),
        ("## 0.4.0 (2026-12-01)\n\n- news\n", "0.4.0", None, "CITATION.cff says 0.3.0, pyproject.toml 0.4.0"),
    ],
)
def test_a_release_has_one_version_and_a_dated_changelog(
    release: ModuleType, tmp_path: Path, changelog: str, version: str, tag: str | None, said: str
) -> None:
    wrong = release.faults(checkout(tmp_path, changelog, version), tag, TODAY)
    assert [said in line for line in wrong] == ([True] if said else [])


def test_the_tag_carries_the_changelog(
    release: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = checkout(tmp_path, f"## 0.3.0 ({datetime.date.today().isoformat()})\n\n### Added\n\n- news\n")
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "a")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "a@b")
    assert release.main(root, None) == 0
    assert "### Added\n\n- news" in release.git(root, "tag", "--list", "--format=%(contents)")
    assert release.main(root, None) == 1
    assert "raise the version" in capsys.readouterr().err
    (root / "new").write_text("")
    assert release.main(root, None) == 1
    assert "uncommitted" in capsys.readouterr().err


def test_what_the_workflows_make_can_be_made() -> None:
    """Targets exist; every Python that is declared is tested, and no other."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    flows = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / ".github" / "workflows").glob("*.yml")}
    assert set(flows) == {"checks", "release"}
    steps = [step.get("run", "") for flow in flows.values() for job in flow["jobs"].values() for step in job["steps"]]
    made = {target for step in steps for target in re.findall(r"\bmake ([a-z-]+)", step)}
    assert {"lint", "test", "test-lowest", "docs", "wheel"} == made & targets == made
    declared = re.findall(r":: (3\.\d+)", (ROOT / "pyproject.toml").read_text())
    assert flows["checks"]["jobs"]["tests"]["strategy"]["matrix"]["python"] == declared


def test_this_commit_says_one_version(release: ModuleType) -> None:
    assert [line for line in release.faults(ROOT, None, TODAY) if not line.startswith("CHANGELOG.md begins")] == []
