"""What a dataset lists: versions of its stores that belong to its samples, and never an earlier one than it had."""

from __future__ import annotations

import shutil
from pathlib import Path

from pgm.cache import open_dataset, publish

from .conftest import CARD, Made, make_store, samples_table


def listed(root: Path) -> int:
    return open_dataset(root, "toy").features("text").version.number


def again(root: Path, failures: dict[int, str] | None = None) -> Made:
    return make_store(root / "toy", [3, 2, 4], failures=failures)


def published(made: Made) -> None:
    publish(made.dataset, CARD, samples_table(made.ids), {made.store.identity.folder: made.features.version.number})


def test_a_slower_writer_does_not_take_a_dataset_back_to_an_earlier_version_of_its_store(tmp_path: Path) -> None:
    """It committed first and publishes last; meanwhile another one encoded what it could not."""
    slower = again(tmp_path, {1: "out of memory"})
    faster = again(tmp_path)
    published(faster)
    published(slower)
    assert listed(tmp_path) == faster.features.version.number
    assert open_dataset(tmp_path, "toy").features("text").available.all()


def test_a_store_that_went_and_was_made_again_is_listed_with_the_numbers_it_has_now(tmp_path: Path) -> None:
    again(tmp_path, {1: "out of memory"})
    second = again(tmp_path)
    published(second)
    shutil.rmtree(second.path)
    third = again(tmp_path)
    published(third)
    assert third.features.version.number == listed(tmp_path) == 1
