"""kill -9 at random moments of real work: does what is finished afterwards equal what nobody disturbed?

`python bench/kills.py [--kills 100]` kills extractions (of the embedded digits, begun and grown), imports of arrays
(written, changed) and compactions with the sweep after them, each so often a format, then finishes them and compares
content digest, segments and every checksum with an undisturbed run. Exits 1 where anything differs.

Everything is imported once and children are forked, so that a kill costs the work and not two seconds of imports.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from pgm.cache import (
    DatasetCard,
    Format,
    Identity,
    ids_digest,
    list_datasets,
    open_dataset,
    publish,
    storage_at,
    write_features,
)
from pgm.cache.dataset.collect import garbage, remove
from pgm.cache.dataset.compact import compact
from pgm.cache.dataset.verify import verify_dataset, verify_store
from pgm.pipeline import Collection, ExtractOptions, StoreOptions, extract, load_dataset

SAMPLES, BEGUN = 240, 160
WORKS = ("extraction", "import", "compaction")
IN_A_ROW = 3  # kills before a run may finish, at most
IMPORTED = Identity("text", "arrays", {})
Work = Callable[[Path, Format], None]


def extracted(digits: Collection, root: Path, format: Format) -> None:
    """Begin a dataset and let it grow; segments are of 64 samples or so."""
    options = ExtractOptions(preset="tiny", executor="serial", store=StoreOptions(format=format))
    extract(replace(digits.take(np.arange(BEGUN)), version=""), root, options)
    extract(digits, root, options)


def imported(root: Path, format: Format) -> None:
    """Write arrays, then the same with a tenth changed and more of them."""
    for count, seed in ((300, 1), (330, 2)):
        tokens = np.random.default_rng(0).normal(size=(count * 4, 64)).astype(np.float32)
        tokens[: count // 10] = seed
        ids, lengths = [f"row-{row}" for row in range(count)], np.full(count, 4)
        dataset = storage_at(root / "arrays")
        made = write_features(
            dataset, IMPORTED, ids, ids_digest(ids), lengths, tokens, format=format, segment_bytes=1 << 14
        )
        table = pa.table({"id": ids, "split": ["train"] * count})
        publish(dataset, DatasetCard("arrays", "retrieval", (), ()), table, {IMPORTED.folder: made.number})


def compacted(root: Path, format: Format) -> None:
    """Rewrite the store that lies there, and sweep what only the versions of before use."""
    dataset = storage_at(root / "arrays")
    compact(dataset.under(IMPORTED.folder), segment_bytes=1 << 16)
    remove(garbage(dataset, keep=1, grace=0))


@dataclass(frozen=True)
class Outcome:
    """What came of one kind of work in one format."""

    work: str
    format: Format
    kills: int
    finished: int
    equal: int
    sound: int
    seconds: float


def described(root: Path) -> dict[str, object]:
    """All that must be the same: the contents of every store and the segments that hold them."""
    [name] = list_datasets(root)
    dataset, told = open_dataset(root, name), {}
    for modality in dataset.modalities:
        features = dataset.features(modality)
        checksums = features.checksums.tolist()
        told[modality] = [features.content, sorted(features.version.segments), checksums, features.errors()]
    stores = [verify_store(dataset.storage.under(folder)) for folder in dataset.version.stores]
    sound = all(report.sound for report in (verify_dataset(dataset.storage), *stores))
    return {"stores": told, "samples": dataset.version.samples, "sound": sound}


def in_child(work: Callable[[], object]) -> int:
    """Start work in a forked process; returns its id. What it returns is printed to nobody."""
    child = os.fork()
    if not child:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def finish(work: Callable[[], object]) -> None:
    """Do work in a child to its end. Raises RuntimeError where it fails."""
    if status := os.waitpid(in_child(work), 0)[1]:
        raise RuntimeError(f"a run that nobody disturbed ended with {status}")


def seen(root: Path) -> dict[str, object]:
    """`described`, by a child: this process stays without threads."""
    with mmap.mmap(-1, 1 << 24) as shared:

        def tell() -> None:
            shared.write(json.dumps(described(root)).encode())

        finish(tell)
        return json.loads(bytes(shared).rstrip(b"\0"))


def killed(work: Callable[[], object], after: float) -> bool:
    """Whether work could be killed `after` seconds; False where it had ended."""
    child = in_child(work)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def trial(name: str, work: Work, format: Format, kills: int, folder: Path, before: Path | None) -> Outcome:
    """Kill `work` until there are `kills`, each folder up to IN_A_ROW times, and finish it in every folder.

    before: what lies in a folder when work begins.
    """
    rng, began = random.Random(f"{name} {format}"), time.perf_counter()

    def begin(place: Path) -> Path:
        shutil.copytree(before, place) if before else place.mkdir()
        return place

    undisturbed = begin(folder / "undisturbed")
    started = time.perf_counter()
    finish(lambda: work(undisturbed, format))
    length = time.perf_counter() - started
    wanted = seen(undisturbed)
    done = finished = equal = sound = 0
    while done < kills:
        place = begin(folder / f"trial-{finished}")
        for _ in range(rng.randint(1, IN_A_ROW)):
            done += killed(lambda place=place: work(place, format), rng.uniform(0, length))
        finish(lambda place=place: work(place, format))
        found = seen(place)
        finished += 1
        equal += found["stores"] == wanted["stores"] and found["samples"] == wanted["samples"]
        sound += bool(found["sound"])
        shutil.rmtree(place)
    return Outcome(name, format, done, finished, equal, sound, time.perf_counter() - began)


def main() -> int:
    """Print a table; 1 where anything differed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="of each kind of work and format")
    parser.add_argument(
        "--work", nargs="*", default=WORKS, choices=WORKS, help="a compaction needs the import before it"
    )
    parser.add_argument("--folder", type=Path, default=None, help="where to work, default a temporary folder")
    given = parser.parse_args()
    pa.array(np.zeros(1, bool))  # imports pandas where there is one: once, and not in every child
    outcomes = []
    with tempfile.TemporaryDirectory(dir=given.folder) as scratch:
        root = Path(scratch)
        digits = replace(load_dataset("digits", root / "raw").limited(SAMPLES).only(["vision"]), version="")
        print(f"{'work':<12} {'format':<6} {'kills':>6} {'finished':>8} {'equal':>6} {'sound':>6} {'minutes':>8}")
        formats: tuple[Format, ...] = ("zarr", "hdf5")
        for format in formats:
            (root / format).mkdir()
            works: list[tuple[str, Work, Path | None]] = [
                ("extraction", lambda place, kind: extracted(digits, place, kind), None),
                ("import", imported, None),
                ("compaction", compacted, root / format / "import" / "undisturbed"),
            ]
            for name, work, before in (each for each in works if each[0] in given.work):
                (root / format / name).mkdir()
                made = trial(name, work, format, given.kills, root / format / name, before)
                outcomes.append(made)
                numbers = f"{made.kills:>6} {made.finished:>8} {made.equal:>6} {made.sound:>6}"
                print(f"{made.work:<12} {made.format:<6} {numbers} {made.seconds / 60:>8.1f}", flush=True)
    return int(any(made.equal != made.finished or made.sound != made.finished for made in outcomes))


if __name__ == "__main__":
    sys.exit(main())
