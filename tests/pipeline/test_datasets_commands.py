"""`pgm datasets`: what is known, what a dataset looks like, and whether a folder holds it before any work begins."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pgm.cache.errors import NotFound
from pgm.pipeline import ADAPTERS, ExtractOptions, extract, load_dataset
from pgm.pipeline.datasets.commands import datasets_app
from pgm.pipeline.engine.events import Event, Note
from typer.testing import CliRunner

NAMES = (
    "digits", "av_mnist", "food101", "mosi", "meld", "wikipedia", "wikipedia_231", "mvsa_single", "mvsa_single_equal",
    "mvsa_multiple", "crema_d", "iemocap",
)  # fmt: skip
REPOSITORY = Path(__file__).parents[2]


def run(*arguments: object) -> Any:
    result = CliRunner().invoke(datasets_app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def told(*arguments: object) -> Any:
    return json.loads(run(*arguments, "--json").stdout)


def test_ls_names_every_dataset() -> None:
    assert tuple(ADAPTERS) == NAMES
    assert [line.split()[0] for line in run("ls").stdout.splitlines()] == list(NAMES)
    assert [row["name"] for row in told("ls")] == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_dataset_has_a_page(name: str) -> None:
    page = told("show", name)
    assert name == page["name"]
    for field in ("layout", "splits", "classes", "licence", "source", "citation", "published", "example"):
        assert page[field], field
    assert name.removesuffix("_231").removesuffix("_equal") in page["layout"]
    shown = run("show", name).stdout
    for line in (
        "splits ",
        "classes ",
        "published ",
        "licence ",
        "source ",
        "cite ",
        f"extract     pgm extract {name}",
    ):
        assert f"\n{line}" in shown


@pytest.mark.parametrize("name", [name for name in NAMES if name != "digits"])
def test_an_empty_folder_holds_no_dataset(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run("check", name, "--root", tmp_path)
    assert result.exit_code == 2
    assert "(needed)" in result.stdout
    assert "Get it: " in result.stdout
    assert not told("check", name, "--root", tmp_path)["ready"]
    with pytest.raises(NotFound, match="missing"):
        load_dataset(name, tmp_path)
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("PGM_DATA", str(tmp_path))
        with pytest.raises(NotFound, match=rf"pgm extract {name} --root DIR, make extract DATASET={name} ROOT=DIR"):
            load_dataset(name)


def test_a_dataset_made_on_first_use_is_not_made_by_looking(tmp_path: Path) -> None:
    result = run("check", "digits", "--root", tmp_path / "none")
    assert (result.exit_code, "made on first use" in result.stdout) == (0, True)
    assert run("check", "digits", "--root", tmp_path).exit_code == 0
    assert list(tmp_path.iterdir()) == []


def test_check_puts_found_and_published_counts_side_by_side(av_root: Path) -> None:
    result = run("check", "av_mnist", "--root", av_root)
    assert result.exit_code == 0
    assert "  found    fsdd/recordings/*.wav  (60)" in result.stdout
    assert "  warning  train: 108 here, 55,000 published" in result.stdout
    assert result.stdout.endswith(f"Ready: pgm extract av_mnist --root {av_root}\n")
    report = told("check", "av_mnist", "--root", av_root)
    assert report["counts"][2] == {
        "split": "test", "found": 20, "published": 10_000, "line": "test: 20 here, 10,000 published",
    }  # fmt: skip
    assert report["missing"] == {"audio": 0, "vision": 0}


def test_check_of_a_folder_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run("check", "meld", "--root", tmp_path / "nowhere")
    assert result.exit_code == 2
    assert "there is no such folder" in result.stdout
    monkeypatch.setenv("PGM_DATA", str(tmp_path))
    with pytest.raises(NotFound, match=f"looked for in {tmp_path / 'meld'}"):
        run("check", "meld")


def test_a_dataset_is_found_where_pgm_data_has_it(
    av_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGM_DATA", str(tmp_path))
    (tmp_path / "av_mnist").symlink_to(av_root)
    assert len(load_dataset("av_mnist")) == 140
    # Several datasets may share a folder; then it is the home itself that holds what one of them needs.
    monkeypatch.setenv("PGM_DATA", str(av_root))
    assert len(load_dataset("av_mnist")) == 140
    monkeypatch.delenv("PGM_DATA")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "av_mnist").symlink_to(av_root)
    assert run("check", "av_mnist").exit_code == 0


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(NotFound, match="Did you mean 'mvsa_single'"):
        run("show", "mvsa_singel")


def test_other_counts_than_the_published_ones_are_said_before_the_work(av_root: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    collection = load_dataset("av_mnist", av_root).limited(6)
    extract(collection, tmp_path, ExtractOptions(preset="tiny", executor="serial"), events.append)
    assert isinstance(events[0], Note)
    assert events[0].text.startswith(
        "warning: The counts are not the published ones (train: 108 here, 55,000 published"
    )
    assert collection.card.notes[-1] in events[0].text


def test_real_av_mnist_raises_no_warning(shared_data: Path) -> None:
    assert load_dataset("av_mnist", shared_data).warnings == ()


@pytest.mark.parametrize("arguments", [("datasets", "ls"), ("datasets", "show", "food101")])
def test_listing_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    code = (
        "import sys; from pgm.cli import main\n"
        f"sys.argv = ['pgm', *{arguments!r}]\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'sklearn', 'transformers', 'distributed', 'PIL', 'av', 'soundfile', 'scipy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_command_shows_an_example_in_its_help() -> None:
    for command in ("ls", "show", "check"):
        assert f"Example: pgm datasets {command}" in run(command, "--help").stdout
