"""docs/api.md says what the docstrings say, and every public name has one."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path

import pgm

MAKER = Path(__file__).parents[1] / "docs" / "make_api.py"


def test_the_page_is_that_of_the_docstrings() -> None:
    spec = importlib.util.spec_from_file_location("make_api", MAKER)
    assert spec is not None
    assert spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    assert MAKER.with_name("api.md").read_text() == maker.page(), "python docs/make_api.py writes it anew"


def test_every_public_name_is_documented() -> None:
    assert [name for name in pgm.__all__ if not inspect.getdoc(getattr(pgm, name))] == []
