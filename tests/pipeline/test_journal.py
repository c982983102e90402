"""Media are read once, to be encoded. A rerun looks at names, sizes and times where these can be trusted."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pgm.cache import open_dataset
from pgm.pipeline import Collection, ExtractOptions, extract, media
from pgm.pipeline.engine import journal
from pgm.pipeline.engine.events import Event, Planned
from pgm.pipeline.engine.journal import Journal, file_keys
from pgm.pipeline.media import FileMedia

SERIAL = ExtractOptions(preset="tiny", executor="serial", max_failures=0.5)
COUNT = 24


@pytest.fixture
def texts(few_digits: Collection, tmp_path: Path) -> Collection:
    """Text files that a test may change; written long enough ago to be trusted."""
    (tmp_path / "texts").mkdir()
    files = [tmp_path / "texts" / f"{row}.txt" for row in range(COUNT)]
    for row, file in enumerate(files):
        file.write_text(f"text {row:03d}")
    few = few_digits.take(np.arange(COUNT))
    return replace(few, media={"text": [FileMedia(str(file)) for file in files]}, version="")


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SETTLED", 0.0)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file was opened, for its digest or for its content."""
    found: Counter[str] = Counter()
    enter = media._opened.__enter__

    def counted(self: media._opened) -> tuple[int, media.Seen]:
        found[self.path] += 1
        return enter(self)

    monkeypatch.setattr(media._opened, "__enter__", counted)
    return found


def pending(collection: Collection, features: Path, options: ExtractOptions = SERIAL) -> int:
    events: list[Event] = []
    extract(collection, features, options, events.append)
    return next(event.pending for event in events if isinstance(event, Planned))


def without_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of texts a few are looked at to foresee sizes; here none is."""
    monkeypatch.setattr("pgm.pipeline.engine.plan.PROBED", 0)


def file_of(texts: Collection, row: int) -> Path:
    source = texts.media["text"][row]
    assert isinstance(source, FileMedia)
    return Path(source.path)


def test_an_extraction_reads_every_file_once_and_a_rerun_none(
    texts: Collection, tmp_path: Path, reads: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_probe(monkeypatch)
    assert pending(texts, tmp_path / "features") == COUNT
    assert set(reads.values()) == {1}
    assert len(reads) == COUNT
    reads.clear()
    assert pending(texts, tmp_path / "features") == 0
    assert not reads
    assert pending(texts, tmp_path / "features", replace(SERIAL, check_sources=True)) == 0
    assert sum(reads.values()) == COUNT


def test_another_content_of_the_same_size_and_time_is_noticed(
    texts: Collection, tmp_path: Path, reads: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `cp -p` leaves it: the time of modification is another's to set, that of change is not."""
    without_probe(monkeypatch)
    pending(texts, tmp_path / "features")
    file = file_of(texts, 7)
    before = file.stat()
    file.write_text("text 999")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    reads.clear()
    assert pending(texts, tmp_path / "features") == 1
    assert set(reads) == {str(file)}
    assert open_dataset(tmp_path / "features", "digits").features("text").index.source[7].tobytes().hex() == (
        FileMedia(str(file)).digest()
    )


def test_a_file_changed_a_moment_ago_or_in_the_future_is_not_trusted(
    texts: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = texts.media["text"]
    assert file_keys(sources).any(axis=1).all()
    os.utime(file_of(texts, 3), (4e9, 4e9))
    assert np.flatnonzero(~file_keys(sources).any(axis=1)).tolist() == [3]
    monkeypatch.setattr(journal, "SETTLED", 3600.0)
    assert not file_keys(sources).any()
    assert not file_keys([FileMedia(str(tmp_path / "nowhere")), None]).any()


@pytest.mark.parametrize("harm", ["removed", "torn", "garbled", "in the way"])
def test_a_journal_that_is_lost_costs_reading_and_nothing_else(
    texts: Collection, tmp_path: Path, reads: Counter[str], harm: str
) -> None:
    pending(texts, tmp_path / "features")
    [folder] = (tmp_path / "features" / "digits").glob("text--*")
    path = Journal.of(str(folder)).path
    content = path.read_bytes()
    path.unlink()
    if harm == "torn":
        path.write_bytes(content[:-5])
    elif harm == "garbled":
        path.write_bytes(content[:40] + bytes([content[40] ^ 1]) + content[41:])
    elif harm == "in the way":
        path.mkdir()
    reads.clear()
    assert pending(texts, tmp_path / "features") == 0
    assert len(reads) == COUNT
    if harm != "in the way":
        reads.clear()
        assert pending(texts, tmp_path / "features") == 0
        assert not reads, "it is whole again"


def test_what_a_journal_was_told_last_holds(tmp_path: Path) -> None:
    there, rng = Journal(tmp_path / "deep" / "one.journal"), np.random.default_rng(0)
    keys, first, second = (rng.integers(1, 256, (5, 16)).astype(np.uint8) for _ in range(3))
    there.add(keys, first)
    there.add(keys[:2], second[:2])
    assert np.array_equal(there.find(keys), np.concatenate([second[:2], first[2:]]))
    assert not there.find(first).any(), "what is not known"


def test_a_run_that_died_reads_again_only_what_it_left(
    texts: Collection, tmp_path: Path, reads: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_probe(monkeypatch)
    monkeypatch.setattr("pgm.pipeline.engine.segments.SEGMENTS_WANTED", 4)
    monkeypatch.setattr("pgm.pipeline.engine.segments.SMALLEST_SEGMENT", 1)

    class Stopped(Exception):
        pass

    def stop(event: Event) -> None:
        if type(event).__name__ == "SegmentWritten":
            raise Stopped

    with pytest.raises(Stopped):
        extract(texts, tmp_path / "features", SERIAL, stop)
    left = len(list((tmp_path / "features").glob("digits/*/segments/[!.]*")))
    assert left >= 1
    reads.clear()
    pending(texts, tmp_path / "features")
    # Of a segment that was written and not yet told of, the sources are read to know it again.
    assert max(reads.values()) <= 2
    assert len(reads) <= COUNT - COUNT // 4
