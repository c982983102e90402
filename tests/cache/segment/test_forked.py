"""Remote segments read in a forked process, such as a DataLoader's worker: what is here is read, and nobody waits."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable

import numpy as np
import pytest
from pgm.cache.storage import storage_at

# From 3.12 on Python warns of what is tried here.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


def in_fork(work: Callable[[], object], seconds: float = 20.0) -> str:
    """What a forked process says of some work."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            told = str(work())
        except BaseException as error:
            told = str(error)
        os.write(writer, told.encode())
        os._exit(0)
    os.close(writer)
    ready, _, _ = select.select([reader], [], [], seconds)
    if not ready:
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        return pipe.read() if ready else "waits for ever"


def test_what_the_parent_fetched_is_read_and_the_rest_refused_at_once(
    s3_bucket: str, made: Callable[..., object]
) -> None:
    store = made(storage_at(f"{s3_bucket}/x"), [[2, 1]] * 6)
    features = store.features
    features.gather([0, 2])

    def right(rows: list[int]) -> bool:
        return np.array_equal(features.gather(rows)[0], np.concatenate([store.samples[row] for row in rows]))

    assert in_fork(lambda: right([0, 1, 2, 3])) == "True"
    assert "start worker processes by spawn" in in_fork(lambda: right([4]))
    features.gather(list(range(12)))
    assert in_fork(lambda: right(list(range(12)))) == "True"


def test_it_waits_for_no_fetch_that_the_parent_has_begun(s3_bucket: str, made: Callable[..., object]) -> None:
    store = made(storage_at(f"{s3_bucket}/x"), [[3]] * 8)
    features = store.features
    features.gather([0])
    features._reader.expect(range(8))
    with features._reader._lock:  # as where another thread of the parent opens a segment
        said = in_fork(lambda: features.gather(range(8))[1].tolist())
    # The parent may have been quicker: then all of it is here.
    assert "start worker processes by spawn" in said or said == str([3] * 8)
