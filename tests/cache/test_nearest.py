"""What is suggested is a sentence of its own, wherever it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pgm.cache import open_dataset, storage_at
from pgm.cache.dataset.selection import select
from pgm.cache.errors import NotFound
from pgm.cache.nearest import did_you_mean

from .conftest import make_store, published

ROOT = Path(__file__).parents[2]


def test_a_near_name_is_a_sentence_and_a_far_one_nothing() -> None:
    assert did_you_mean("toi", ["toy", "digits"]) == " Did you mean 'toy'?"
    assert did_you_mean("somewhere", ["toy", "digits"]) == ""


@pytest.mark.parametrize("name", ["toi", "somewhere"])
def test_a_message_ends_each_of_its_sentences_once(name: str, tmp_path: Path) -> None:
    published(make_store(tmp_path / "toy", [2, 1, 3]))
    for ask in (lambda: open_dataset(tmp_path, name), lambda: select(storage_at(tmp_path), name)):
        with pytest.raises(NotFound) as found:
            ask()
        assert not re.search(r"[?.;:,][.;,]", str(found.value)), found.value
        assert ("Did you mean 'toy'?" in str(found.value)) == (name == "toi")


def test_nothing_is_put_behind_a_suggestion_but_a_further_sentence() -> None:
    written = re.compile(r"(?:did_you_mean|nearest)\([^{}]*\)\}\s?[.;,:]")
    rooms = ("cache", "pipeline", "trainer", "loaders")
    files = [file for room in rooms for file in (ROOT / room).rglob("*.py")]
    assert [str(file) for file in files if written.search(file.read_text())] == []
