"""Power goes at any moment: what was published stays, what is listed is whole, and a rerun ends where it would have."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pgm.cache import CachedDataset, list_datasets, open_dataset, storage_at
from pgm.cache.dataset.verify import verify_dataset, verify_store
from pgm.cache.store import Log

from .plain_extraction import FIRST, IDENTITY, THEN, contents, equal, expected, extract
from .recorded_disk import Disk, Operation, materialize, states

PROGRAM = Path(__file__).with_name("dying_writers.py")
# Every prefix in CI; more ways of losing a part of what was not flushed where there is time.
SEEDS = int(os.environ.get("PGM_POWER_CUTS", "1"))


def recorded(root: Path, file: Path, format_: str) -> list[Operation]:
    """What two writers did, the first of which died; held against the folder they left."""
    root.mkdir()
    command = [sys.executable, PROGRAM, "recorded", root, format_, file]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    operations: list[Operation] = pickle.loads(file.read_bytes())
    disk = Disk()
    for operation in operations:
        disk.apply(operation)
    there = {str(path)[len(str(root)) :]: path.read_bytes() if path.is_file() else None for path in root.rglob("*")}
    assert disk.after_cut("torn") == there, "the recording lacks something"
    return operations


@pytest.mark.parametrize("format_", ["zarr", "hdf5"])
def test_whatever_was_not_flushed_may_be_gone_when_power_goes(tmp_path: Path, format_: str) -> None:
    operations = recorded(tmp_path / "recorded", tmp_path / "operations", format_)
    marks = [done for done, operation in enumerate(operations, 1) if operation[0] == "mark"]
    extract(storage_at(tmp_path / "whole/toy"), THEN)
    content = open_dataset(tmp_path / "whole", "toy").features("audio").content
    seen = 0
    for done, cut, left in states(operations, ("dropped", "torn", "some"), SEEDS):
        root = tmp_path / "cut"
        materialize(left, root)
        try:
            published = sum(mark <= done for mark in marks)
            check_what_is_listed(root, published)
            extract(storage_at(root / "toy"), THEN, format_, 4)
            after = open_dataset(root, "toy").features("audio")
            assert after.content == content
            assert equal(contents(after), expected(THEN))
        except BaseException as error:
            error.add_note(f"power cut after {done} of {len(operations)} ({operations[done - 1][:2]}), {cut}")
            raise
        shutil.rmtree(root)
        seen += 1
    assert seen > 25


def check_what_is_listed(root: Path, published: int) -> None:
    """Every version that is there is one that was published, and whole; the last that was published is there."""
    if "toy" not in list_datasets(root):
        assert not published
        return
    dataset = storage_at(root / "toy")
    numbers = Log(dataset).numbers()
    assert published <= max(numbers) <= published + 1
    for number in numbers:
        there: CachedDataset = open_dataset(root, "toy", number)
        assert equal(contents(there.features("audio")), expected(FIRST if number == 1 else THEN))
    assert verify_dataset(dataset).problems == ()
    assert verify_store(dataset.under(IDENTITY.folder)).problems == ()
