"""Figures hold what the runs hold, and the report works in a real browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pgm.cache.errors import NotFound, UserError
from pgm.cli import app
from pgm.trainer.run.request import Request
from pgm.trainer.studies import modules
from pgm.trainer.studies.confusion import counted
from pgm.trainer.studies.engine.options import StudyOptions
from pgm.trainer.studies.engine.plan import TablePlan, plan_table
from pgm.trainer.studies.engine.runner import WorkerPool, run_cells
from pgm.trainer.studies.gates import STUDY as GATES
from pgm.trainer.studies.losses import STUDY as LOSSES
from PIL import Image
from typer.testing import CliRunner

from ..conftest import TINY

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
SWITCHES = [f"--set={name}={value}" for name, value in TINY.items()]


@pytest.fixture(scope="module")
def table(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> TablePlan:
    """Table 3 of the toy dataset, two seeds."""
    request = Request(toy, tmp_path_factory.mktemp("runs"), dataset="toy", settings=TINY)
    plan = plan_table(modules.STUDY.spec(request, StudyOptions()), request, 2)
    assert run_cells(plan.missing, WorkerPool(workers=1), lambda *_: None) == []
    return plan


def options(table: TablePlan, *more: str) -> list[str]:
    request = table.cells[0].request
    where = [f"--features={request.features}", f"--runs={request.runs}", "--dataset=toy", "--seeds=2", *SWITCHES]
    return [*more, *where]


@pytest.mark.parametrize("name", ["gates", "losses", "tokens", "confusion", "modules"])
def test_a_figure_is_a_png_and_an_svg_with_words(table: TablePlan, tmp_path: Path, name: str) -> None:
    out = tmp_path / "my figures"
    done = CliRunner().invoke(app, options(table, "figure", name, f"--out={out}", "--json"))
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in out.iterdir()) == [f"toy-{name}.png", f"toy-{name}.svg"]
    pixels = np.asarray(Image.open(out / f"toy-{name}.png").convert("L"))
    assert pixels.max() == 255
    assert pixels.std() > 10
    edges = (pixels[:2], pixels[-2:], pixels[:, :2], pixels[:, -2:])
    assert min(edge.min() for edge in edges) > 250, "something is cut off at the figure's edge"
    text = (out / f"toy-{name}.svg").read_text()
    ET.fromstring(text)
    assert "toy" in re.sub("<[^>]*>", "", text)


def test_the_same_figure_twice_is_the_same_file(table: TablePlan, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        assert CliRunner().invoke(app, options(table, "figure", "gates", f"--out={tmp_path / folder}")).exit_code == 0
    for suffix in ("png", "svg"):
        one, two = ((tmp_path / folder / f"toy-gates.{suffix}").read_bytes() for folder in ("a", "b"))
        assert one == two


def test_the_drawn_numbers_are_the_runs(table: TablePlan) -> None:
    full = table.of(table.spec.rows[0])
    only = replace(table, cells=tuple(full))
    counts = counted(full)
    tables = [pq.read_table(cell.run.predictions_path("test")) for cell in full]
    assert counts.sum() == sum(len(t) for t in tables)
    right = sum((t["target"].to_numpy() == t["prediction"].to_numpy()).sum() for t in tables)
    assert np.trace(counts) == right
    curves = LOSSES.results(only).losses
    assert list(curves) == ["UFC", "PFC", "UPR", "Task"]
    assert curves["UPR"].shape == (2, TINY["epochs"])
    assert curves["UPR"][0, 0] == next(e for e in full[0].run.metrics if e["stage"] == "task")["losses"]["upr"]
    gates = GATES.results(only).shares
    assert set(gates) == {"text", "vision"}
    for shares in gates.values():
        for several in (shares["uni"], shares["paired"]):
            assert len(several) == len(set(several)) == 2, "one a seed, each its own model's"
            assert all(0 < value < 100 for value in several)


def test_what_cannot_be_drawn_is_said(table: TablePlan) -> None:
    done = CliRunner().invoke(app, options(table, "figure", "gate"))
    assert isinstance(done.exception, UserError)
    assert "Did you mean 'gates'" in str(done.exception)
    done = CliRunner().invoke(app, options(table, "figure", "losses", "--method=concat"))
    assert isinstance(done.exception, UserError)


def test_a_report_needs_finished_runs(toy: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["report", f"--features={toy}", f"--runs={tmp_path}", "--dataset=toy"])
    assert isinstance(done.exception, NotFound)
    assert "pgm table 3 --dataset toy" in str(done.exception)


@pytest.fixture(scope="module")
def report(table: TablePlan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "my report.html"
    done = CliRunner().invoke(app, options(table, "report", "-o", str(path), "--json"))
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["runs"] == 10
    return path


def test_the_page_is_self_contained_and_every_number_leads_to_its_run(report: Path, table: TablePlan) -> None:
    text = report.read_text()
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!#|data:)""", text)
    assert "http" not in re.sub(r"http://(?:www\.w3\.org|purl\.org|creativecommons\.org)[^\"'\s<]*", "", text).replace(
        "https://matplotlib.org/", ""
    )
    for cell in table.cells:
        assert f'id="run-{cell.run.id}"' in text
        assert f'href="#run-{cell.run.id}"' in text
    assert f"--runs {table.cells[0].request.runs}" in text
    assert "toy/" in text
    assert "With 2 seeds significance after Holm over 4 cannot be reached by a test that assumes nothing" in text
    assert "Every network is trained for 4 epochs." in text


@pytest.fixture(scope="module")
def page(report: Path) -> Iterator[Any]:
    """The report in headless Chromium, with everything it said on the console."""
    if not CHROMIUM:
        pytest.skip("no Chromium is installed")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as running:
        flags = ["--disable-gpu", "--disable-background-networking", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
        browser = running.chromium.launch(executable_path=CHROMIUM, args=flags)
        opened = browser.new_page()
        opened.said = []
        opened.on("console", lambda message: opened.said.append(message.text))
        opened.on("pageerror", lambda error: opened.said.append(str(error)))
        opened.goto(report.as_uri())
        yield opened
        browser.close()


def test_the_page_loads_without_complaint(page: Any) -> None:
    assert page.said == []
    assert page.locator("figure svg").count() == 5
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")


@pytest.mark.parametrize("width", [400, 1600])
def test_the_page_fits_narrow_and_wide_windows(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_columns_sort_by_mouse_and_keyboard(page: Any) -> None:
    body = page.locator("#runs table")

    def seconds() -> list[float]:
        return [float(text.replace(",", "")) for text in body.locator("tbody td:nth-child(5)").all_inner_texts()]

    head = body.locator("th:nth-child(5)")
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert seconds() == sorted(seconds())
    head.locator("button").press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert seconds() == sorted(seconds(), reverse=True)
    body.locator("th:nth-child(1) button").press("Space")
    names = body.locator("tbody td:nth-child(1)").all_inner_texts()
    assert names == sorted(names)
