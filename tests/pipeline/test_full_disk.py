"""A disk that fills up mid-run: the run stops with the reason, keeps what is whole, and goes on when there is room."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pgm.cache import open_dataset
from pgm.cache.dataset.verify import verify_store
from pgm.cache.errors import RunFailed
from pgm.pipeline import Collection, ExtractOptions, extract
from pgm.pipeline.engine.events import Event, SegmentWritten

SERIAL = ExtractOptions(preset="tiny", executor="serial")
MEGABYTE = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of its own, one megabyte large."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=False)
    if mounted.returncode:
        pytest.skip("mounting a tmpfs needs privileges this process does not have")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_stops_the_run_cleanly_and_it_resumes(
    digits: Collection, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = digits.limited(400).only(["vision"])
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"\0" * (MEGABYTE // 3))
    events: list[Event] = []
    # The plan would refuse outright; here the space is taken by someone else after it looked.
    monkeypatch.setattr("pgm.pipeline.extraction.free_bytes", lambda _: 1 << 40)
    with pytest.raises(RunFailed, match="no room"):
        extract(images, small_disk / "features", SERIAL, events.append)
    written = [event.segment for event in events if isinstance(event, SegmentWritten)]
    assert written
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    again: list[Event] = []
    extract(images, small_disk / "features", SERIAL, again.append)
    assert [event.segment for event in again if isinstance(event, SegmentWritten) and event.there] == written
    store = open_dataset(small_disk / "features", "digits").features("vision")
    assert verify_store(store.store.storage).sound
    extract(images, tmp_path / "undisturbed", SERIAL)
    reference = open_dataset(tmp_path / "undisturbed", "digits").features("vision")
    assert store.version.segments == reference.version.segments
    assert store.content == reference.content
