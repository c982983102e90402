"""Real writer processes for the tests: `python writer_process.py write|hold|full|kills PATH FORMAT ...`.

It imports the package once; the kill loop forks before any thread exists, so that fifty kills cost seconds.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from pgm.cache import FeatureWriter, Identity, Items, Layout, open_features, write_shard
from pgm.cache.errors import PgMError, StoreIncomplete
from pgm.cache.verify import verify

LENGTHS = np.random.default_rng(0).integers(0, 40, 120)
DIM = 64
IDENTITY = Identity("audio", "tiny-ast", {"layer": 3})
IDS = [f"clip-{row}" for row in range(len(LENGTHS))]


def plan(format_: str, shard_tokens: int = 128) -> tuple[Layout, np.ndarray]:
    layout = Layout(LENGTHS, DIM, shard_tokens, format_)
    return layout, np.random.default_rng(1).normal(size=(layout.total, DIM)).astype(np.float32)


def write(path: Path, format_: str, wait: float = 0.0) -> None:
    """Open or continue the store, write what is pending, finish it."""
    layout, tokens = plan(format_)
    if (path / "store.json").exists():
        return
    with FeatureWriter(path, IDENTITY, layout, IDS, wait=wait) as writer:
        for shard in writer.pending():
            start, stop = layout.bounds(shard)
            write_shard(path, shard, tokens[start:stop])
        writer.finalize(Items.of(layout, IDS))


def hold(path: Path, format_: str, seconds: float) -> None:
    """Hold the store's lock for a while."""
    layout, _ = plan(format_)
    with FeatureWriter(path, IDENTITY, layout, IDS):
        print("held", flush=True)
        time.sleep(seconds)


def full(path: Path, format_: str) -> None:
    """Write three shards, then meet a limit on file sizes as a full disk is met; print the error."""
    layout, tokens = plan(format_)
    with FeatureWriter(path, IDENTITY, layout, IDS) as writer:
        for shard in writer.pending():
            if shard == 3:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))
            start, stop = layout.bounds(shard)
            write_shard(path, shard, tokens[start:stop])


def kills(path: Path, format_: str, count: int, seed: int) -> None:
    """Kill -9 a writer `count` times at random points, checking after each; print what was met, finish each store."""
    rng = random.Random(seed)
    reference = path / "undisturbed"
    begun = time.perf_counter()
    _in_child(partial(write, reference, format_), None)
    whole = time.perf_counter() - begun
    expected = _tree(reference)
    killed, finished, seen, store = 0, 0, [], path / "0"
    while killed < count:
        # Short slices meet the first steps of a run, long ones its end.
        if _in_child(partial(write, store, format_), rng.choice((0.3, 1.1)) * rng.random() * whole):
            killed += 1
        seen.append(_state(store))
        if seen[-1] == "complete":
            assert _differing(_tree(store), expected) == [], f"store {finished} differs from an undisturbed one"
            shutil.rmtree(store)
            finished += 1
            store = path / str(finished)
    write(store, format_)
    assert verify(store).sound
    assert _differing(_tree(store), expected) == [], "the last store differs from an undisturbed one"
    print(json.dumps({"killed": killed, "finished": finished, "partial": seen.count("partial")}))


def _state(store: Path) -> str:
    """What a reader meets: nothing yet, an unfinished store, or a complete and sound one."""
    if not (store / "store.json").exists():
        if not (store / ".writing" / "plan.json").exists():
            return "nothing"
        try:
            open_features(store)
        except StoreIncomplete:
            begun = open_features(store, allow_partial=True)
            expected = plan(begun.layout.format)[1].astype(np.float16)
            for row in np.flatnonzero(begun.available).tolist():
                start, stop = begun.layout.offsets[row : row + 2]
                assert np.array_equal(begun[row], expected[start:stop])
            return "partial" if begun.available.any() else "planned"
        raise AssertionError("an unfinished store was opened as if it were finished")
    report = verify(store)
    assert report.sound, [str(problem) for problem in report.problems]
    shutil.rmtree(store / ".writing", ignore_errors=True)
    (store / ".lock").unlink(missing_ok=True)
    return "complete"


def _in_child(work: Callable[[], None], seconds: float | None) -> bool:
    """Run `work` in a fork; True when it was killed after `seconds`, False when it finished before."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0, "the writer failed"
    return os.WIFSIGNALED(status)


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def _differing(left: dict[str, bytes], right: dict[str, bytes]) -> list[str]:
    return sorted(name for name in left.keys() | right.keys() if left.get(name) != right.get(name))


if __name__ == "__main__":
    mode, where, kind, *rest = sys.argv[1:]
    try:
        if mode == "kills":
            kills(Path(where), kind, int(rest[0]), int(rest[1]))
        else:
            {"write": write, "hold": hold, "full": full}[mode](Path(where), kind, *map(float, rest))
    except PgMError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
