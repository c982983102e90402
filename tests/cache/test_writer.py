"""Writing: plans are checked, bad numbers refused, two writers never meet, a full disk or a kill costs one shard."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pgm.cache import FeatureWriter, Identity, Items, Layout, open_features, write_shard
from pgm.cache.errors import IdentityMismatch, RunFailed, StoreIncomplete, StoreLocked, UserError
from pgm.cache.verify import verify

DRIVER = Path(__file__).parent / "writer_process.py"
IDENTITY = Identity("text", "tiny", {"layer": -1, "dtype": {"compute": "float32"}})


def run(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(DRIVER), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, **options)


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory where there is one: kill loops otherwise wait for fsync most of the time."""
    base = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path("/tmp")
    folder = base / f"pgm-test-{os.getpid()}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("format_", ["zarr", "hdf5"])
def test_fifty_kills_leave_the_bytes_of_an_undisturbed_write(memory: Path, format_: str) -> None:
    done = run("kills", memory / "k", format_, 50, 7)
    assert done.returncode == 0, done.stderr
    met = json.loads(done.stdout)
    assert met["killed"] == 50
    assert met["partial"] >= 5, "the kills missed the write loop"


def test_two_processes_writing_one_store_leave_one_sound_store(tmp_path: Path) -> None:
    run("write", tmp_path / "alone", "zarr")
    command = [sys.executable, str(DRIVER), "write", str(tmp_path / "shared"), "zarr", "60"]
    crowd = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    errors = [process.communicate(timeout=120)[1] for process in crowd]
    # A writer that waited finds the store finished, and says so.
    assert all(process.returncode == 0 or "is complete" in error for process, error in zip(crowd, errors, strict=True))
    assert any(process.returncode == 0 for process in crowd)
    assert verify(tmp_path / "shared").sound
    alone, shared = ((tmp_path / name) for name in ("alone", "shared"))
    names = sorted(str(path.relative_to(alone)) for path in alone.rglob("*") if path.is_file())
    assert names == sorted(str(path.relative_to(shared)) for path in shared.rglob("*") if path.is_file())
    assert all((alone / name).read_bytes() == (shared / name).read_bytes() for name in names)


def test_a_second_writer_says_who_holds_the_store_and_a_dead_owner_is_recovered(tmp_path: Path) -> None:
    path = tmp_path / "s"
    holder = subprocess.Popen(
        [sys.executable, str(DRIVER), "hold", str(path), "zarr", "600"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        refused = run("write", path, "zarr")
        assert refused.returncode == 1
        assert "StoreLocked" in refused.stderr
        assert f"process {holder.pid} on {socket.gethostname()}" in refused.stderr
        waited = run("write", path, "zarr", 0.3)
        assert "after waiting 0.3 s" in waited.stderr
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    assert (path / ".lock").exists()
    recovered = run("write", path, "zarr")
    assert recovered.returncode == 0, recovered.stderr
    assert verify(path).sound
    assert not (path / ".lock").exists()


def test_a_lock_of_another_host_is_believed_and_the_message_says_how_to_remove_it(tmp_path: Path) -> None:
    layout = Layout(np.array([3]), 2, 4)
    FeatureWriter(tmp_path, IDENTITY, layout, ["a"]).close()
    (tmp_path / ".lock").write_text(json.dumps({"host": "gpu-node-7", "pid": 12, "since": "2026-01-01 00:00:00"}))
    with pytest.raises(StoreLocked, match=r"process 12 on gpu-node-7 .* delete .*\.lock"):
        FeatureWriter(tmp_path, IDENTITY, layout, ["a"])
    (tmp_path / ".lock").unlink()
    FeatureWriter(tmp_path, IDENTITY, layout, ["a"]).close()


@pytest.mark.parametrize("format_", ["zarr", "hdf5"])
def test_a_file_size_limit_keeps_finished_shards_and_says_what_to_do(tmp_path: Path, format_: str) -> None:
    path = tmp_path / "s"
    failed = run("full", path, format_)
    assert failed.returncode == 1
    assert "RunFailed: no room to write" in failed.stderr
    assert "free some space and run the same command again" in failed.stderr
    assert not list((path / ".writing" / "scratch").iterdir())
    assert open_features(path, allow_partial=True).available.any()
    assert run("write", path, format_).returncode == 0
    assert verify(path).sound


@pytest.mark.parametrize("format_", ["zarr", "hdf5"])
def test_a_really_full_disk_keeps_finished_shards(tmp_path: Path, format_: str) -> None:
    """A file system of 400 kB, mounted for one process, for a store of 550 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    on_disk, kept, python, driver = (shlex.quote(str(path)) for path in (disk, tmp_path, sys.executable, DRIVER))
    script = (
        f"mount -t tmpfs -o size=400k none {on_disk} || exit 77; {python} {driver} write {on_disk}/s {format_}; "
        f"code=$?; cp -r {on_disk}/s {kept}/kept; exit $code"
    )
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, check=False)
    if done.returncode in (77, 1) and "RunFailed" not in done.stderr and "mount" in done.stderr + done.stdout:
        pytest.skip("no right to mount a small file system here")
    assert done.returncode == 1, done.stderr
    assert "no room to write" in done.stderr
    assert "No space left on device" in done.stderr
    kept = tmp_path / "kept"
    finished = len(list((kept / ".writing" / "records").glob("*.json")))
    assert finished > 0
    assert run("write", kept, format_).returncode == 0
    assert verify(kept).sound


def filled(path: Path, layout: Layout, skip: tuple[int, ...] = ()) -> np.ndarray:
    tokens = np.random.default_rng(0).normal(size=(layout.total, layout.dim)).astype(np.float32)
    for shard in range(layout.shards):
        if shard not in skip:
            start, stop = layout.bounds(shard)
            write_shard(path, shard, tokens[start:stop])
    return tokens


def ids(count: int) -> list[str]:
    return [f"s{row}" for row in range(count)]


@pytest.mark.parametrize("stored", ["float16", "float32", "int8"])
@pytest.mark.parametrize("given", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 70000.0, -65505.0])
def test_a_value_the_store_cannot_hold_is_refused_with_its_sample(
    tmp_path: Path, stored: Any, given: Any, bad: float
) -> None:
    layout = Layout(np.array([3, 4, 5]), 4, 8, stored=stored)
    with np.errstate(over="ignore"):
        value = given(bad)
    tokens = np.ones((8, 4), given)
    with FeatureWriter(tmp_path / "s", IDENTITY, layout, ids(3)) as writer:
        tokens[5, 2] = value
        # float16 itself rounds 65505 to its largest number, which fits.
        if np.isfinite(value) and (stored == "float32" or abs(value) <= given(65504)):
            write_shard(tmp_path / "s", 0, tokens)
            assert writer.pending() == [1]
            return
        with pytest.raises(RunFailed, match=r"shard 0 .* in sample 1 \(s1\)\."):
            write_shard(tmp_path / "s", 0, tokens)
        assert writer.pending() == [0, 1]
        tokens[5, 2] = np.float16(65504)
        write_shard(tmp_path / "s", 0, tokens)
        assert writer.pending() == [1]


def test_finalize_refuses_while_shards_are_pending_and_readers_refuse_until_then(tmp_path: Path) -> None:
    layout = Layout(np.array([3, 9, 5, 0]), 4, 8)
    path = tmp_path / "s"
    with FeatureWriter(path, IDENTITY, layout, ids(4)) as writer:
        tokens = filled(path, layout, skip=(1,))
        with pytest.raises(StoreIncomplete, match=r"1 of 3 shards .* \(1\)"):
            writer.finalize(Items.of(layout, ids(4)))
    with pytest.raises(StoreIncomplete, match="allow-partial"):
        open_features(path)
    partial = open_features(path, allow_partial=True)
    assert partial.status.tolist() == ["ok", "pending", "pending", "missing"]
    np.testing.assert_array_equal(partial[0], tokens[:3].astype(np.float16))
    with pytest.raises(UserError, match="not written yet"):
        partial[1]


def test_a_record_is_not_believed_when_its_file_has_changed(tmp_path: Path) -> None:
    layout = Layout(np.array([30, 30]), 4, 16)
    path = tmp_path / "s"
    with FeatureWriter(path, IDENTITY, layout, ids(2)) as writer:
        filled(path, layout)
        assert writer.pending() == []
    (path / "features.zarr/tokens/c/0/0").write_bytes(b"short")
    content = bytearray((path / "features.zarr/tokens/c/1/0").read_bytes())
    content[7] ^= 1
    (path / "features.zarr/tokens/c/1/0").write_bytes(content)
    (path / "features.zarr/tokens/c/2/0").unlink()
    (path / ".writing/records/00003.json").write_text("{half")
    with FeatureWriter(path, IDENTITY, layout, ids(2)) as writer:
        assert writer.pending() == [0, 1, 2, 3]


def test_a_record_of_another_plan_is_not_believed(tmp_path: Path) -> None:
    layout = Layout(np.array([30, 30]), 4, 16)
    path = tmp_path / "s"
    with FeatureWriter(path, IDENTITY, layout, ids(2)):
        filled(path, layout)
    record = path / ".writing/records/00002.json"
    value = json.loads(record.read_text())
    record.write_text(json.dumps({**value, "plan": "0" * 16}))
    with FeatureWriter(path, IDENTITY, layout, ids(2)) as writer:
        assert writer.pending() == [2]


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        (
            {"identity": Identity("text", "tiny", {"layer": -2, "dtype": {"compute": "float32"}})},
            "fields.layer: -1 here",
        ),
        ({"identity": Identity("text", "tiny", {"layer": -1})}, r"fields.dtype.compute: .* here, \(absent\) asked for"),
        ({"layout": Layout(np.array([30, 30]), 4, 8)}, "layout.shard_tokens: 16 here, 8 asked for"),
        ({"layout": Layout(np.array([31, 29]), 4, 16)}, "layout.lengths"),
        ({"ids": ["s0", "other"]}, "sample_ids"),
    ],
)
def test_another_plan_for_the_same_folder_is_refused_field_by_field(
    tmp_path: Path, changed: dict[str, Any], line: str
) -> None:
    asked = {"identity": IDENTITY, "layout": Layout(np.array([30, 30]), 4, 16), "ids": ids(2)}
    with FeatureWriter(tmp_path / "s", *asked.values()) as writer:
        filled(tmp_path / "s", writer.layout)
    with pytest.raises(IdentityMismatch, match=line):
        FeatureWriter(tmp_path / "s", *(asked | changed).values())
    with FeatureWriter(tmp_path / "s", *asked.values()) as writer:
        writer.finalize(Items.of(writer.layout, ids(2)))
    with pytest.raises(IdentityMismatch, match=line):
        FeatureWriter(tmp_path / "s", *(asked | changed).values(), reopen=True)
    other = changed.get("identity")
    if other:
        with pytest.raises(IdentityMismatch, match=line):
            open_features(tmp_path / "s", identity=other)


def test_failed_samples_are_zeros_kept_through_straddled_shards_and_filled_by_a_retry(tmp_path: Path) -> None:
    layout = Layout(np.array([3, 9, 5]), 4, 8)
    path = tmp_path / "s"
    tokens = np.random.default_rng(0).normal(size=(17, 4)).astype(np.float32)
    spoiled = tokens.copy()
    spoiled[3:12] = np.nan  # what a failed sample's rows hold does not matter
    with FeatureWriter(path, IDENTITY, layout, ids(3)) as writer:
        for shard in range(3):
            start, stop = layout.bounds(shard)
            write_shard(path, shard, spoiled[start:stop], {1: "no such file"} if shard < 2 else {})
        assert writer.failures() == {1: "no such file"}
        with pytest.raises(ValueError, match="samples 1 ok"):
            writer.finalize(Items.of(layout, ids(3)))
        writer.finalize(Items.of(layout, ids(3), failures=writer.failures()))
    features = open_features(path)
    assert not features.token_rows(3, 12).any()
    assert features.items.error[1] == "no such file"
    with FeatureWriter(path, IDENTITY, layout, ids(3), reopen=True) as writer:
        assert writer.pending() == []
        assert writer.failures() == {1: "no such file"}
        writer.reset(layout.shards_of(1))
        assert writer.pending() == [0, 1]
        with pytest.raises(StoreIncomplete):
            open_features(path)
        for shard in writer.pending():
            start, stop = layout.bounds(shard)
            write_shard(path, shard, tokens[start:stop])
        assert writer.failures() == {}
        writer.finalize(Items.of(layout, ids(3)))
    np.testing.assert_array_equal(open_features(path)[1], tokens[3:12].astype(np.float16))
    assert verify(path).sound


def test_a_retry_that_dies_is_continued_and_never_claims_to_be_complete(tmp_path: Path) -> None:
    layout = Layout(np.array([30, 30, 30]), 4, 16)
    path = tmp_path / "s"
    with FeatureWriter(path, IDENTITY, layout, ids(3)) as writer:
        tokens = filled(path, layout)
        failed = {1: "cut"}
        writer.finalize(Items.of(layout, ids(3), failures=failed))
    with FeatureWriter(path, IDENTITY, layout, ids(3), reopen=True) as writer:
        writer.reset([2, 3])
        write_shard(path, 2, 2 * tokens[32:48])
    assert not (path / "store.json").exists()
    with FeatureWriter(path, IDENTITY, layout, ids(3)) as writer:
        assert writer.pending() == [3]
        write_shard(path, 3, 2 * tokens[48:64])
        assert writer.failures() == failed  # shard 1 was not taken back
        writer.finalize(Items.of(layout, ids(3), failures=failed))
    assert verify(path).sound
    np.testing.assert_array_equal(open_features(path).token_rows(32, 64), (2 * tokens[32:64]).astype(np.float16))


def test_a_complete_store_is_not_written_by_accident(tmp_path: Path) -> None:
    layout = Layout(np.array([5, 5]), 4, 16)
    path = tmp_path / "s"
    with FeatureWriter(path, IDENTITY, layout, ids(2)) as writer:
        filled(path, layout)
        writer.finalize(Items.of(layout, ids(2)))
    with pytest.raises(UserError, match="reopen=True"):
        FeatureWriter(path, IDENTITY, layout, ids(2))
    with pytest.raises(UserError, match="reset"):
        write_shard(path, 0, np.ones((10, 4), np.float16))
    with FeatureWriter(path, IDENTITY, layout, ids(2), reopen=True):
        pass
    assert verify(path).sound


def test_a_folder_with_other_files_is_never_cleared(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"thesis\.tex"):
        FeatureWriter(tmp_path, IDENTITY, Layout(np.array([5]), 4, 16), ["a"])
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_tokens_of_the_wrong_shape_or_kind_are_refused(tmp_path: Path) -> None:
    layout = Layout(np.array([5, 5]), 4, 8)
    with FeatureWriter(tmp_path / "s", IDENTITY, layout, ids(2)):
        with pytest.raises(ValueError, match=r"shape \(8, 4\), not \(7, 4\)"):
            write_shard(tmp_path / "s", 0, np.ones((7, 4), np.float16))
        with pytest.raises(ValueError, match="int64"):
            write_shard(tmp_path / "s", 0, np.ones((8, 4), np.int64))
        with pytest.raises(UserError, match=r"has 2 \(0 to 1\)"):
            write_shard(tmp_path / "s", 2, np.ones((8, 4), np.float16))
        with pytest.raises(ValueError, match="no token in shard 1"):
            write_shard(tmp_path / "s", 1, np.ones((2, 4), np.float16), {0: "x"})


@pytest.mark.parametrize("format_", ["zarr", "hdf5"])
@pytest.mark.parametrize("lengths", [[], [0, 0, 0]])
def test_a_store_without_tokens_is_a_store(tmp_path: Path, lengths: list[int], format_: Any) -> None:
    layout = Layout(np.array(lengths, np.int64), 4, 8, format_)
    with FeatureWriter(tmp_path / "s", IDENTITY, layout, ids(len(lengths))) as writer:
        assert writer.pending() == []
        features = writer.finalize(Items.of(layout, ids(len(lengths)), missing=dict.fromkeys(range(len(lengths)), "-")))
    assert len(features) == len(lengths)
    tokens, counts = features.gather([])
    assert tokens.shape == (0, 4)
    assert counts.shape == (0,)
    assert list(features) == []
    assert verify(tmp_path / "s").sound


def test_a_million_samples_open_at_once_and_read_like_a_few(tmp_path: Path) -> None:
    count = 1_000_000
    layout = Layout(np.full(count, 2), 4, 1 << 18)
    path = tmp_path / "s"
    names = [f"{row:07d}" for row in range(count)]
    with FeatureWriter(path, IDENTITY, layout, names) as writer:
        filled(path, layout)
        writer.finalize(Items.of(layout, names))
    begun = time.perf_counter()
    features = open_features(path)
    opened = time.perf_counter() - begun
    assert features[count - 1].shape == (2, 4)
    assert opened < 0.5
    assert "items" not in features.__dict__, "opening read items.parquet, which costs a second"


def test_the_identity_digest_knows_content_and_not_its_spelling() -> None:
    base = Identity("text", "a/b", {"rate": 16000, "nested": {"x": 1, "y": [1, 2]}})
    assert base.digest == Identity("text", "a/b", {"nested": {"y": (1, 2), "x": 1}, "rate": 16000.0}).digest
    assert base.digest == Identity("text", "a/b", {"nested": {"y": (1, 2), "x": np.int64(1)}, "rate": 16000}).digest
    assert base.digest != Identity("text", "a/b", {**base.fields, "rate": 16001}).digest
    assert base.digest != replace(base, encoder="a/c").digest
    assert base.folder == f"text--b--{base.digest}"
    assert Identity("vision", "../we ird/näme@x", {}).folder.startswith("vision--n-me-x--")
    with pytest.raises(TypeError, match="PosixPath"):
        _ = Identity("text", "a", {"path": Path("/tmp")}).digest
    with pytest.raises(ValueError, match="nan"):
        _ = Identity("text", "a", {"x": float("nan")}).digest


def test_a_layout_tells_which_samples_and_shards_belong_together() -> None:
    layout = Layout(np.array([0, 3, 9, 0, 5, 0]), 4, 8)
    assert [layout.bounds(shard) for shard in range(layout.shards)] == [(0, 8), (8, 16), (16, 17)]
    assert [list(layout.samples_of(shard)) for shard in range(3)] == [[1, 2], [2, 3, 4], [4]]
    assert [list(layout.shards_of(row)) for row in range(6)] == [[], [0], [0, 1], [], [1, 2], []]
    with pytest.raises(UserError, match="zarr, hdf5"):
        Layout(np.array([1]), 4, 8, "parquet")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="--format zarr"):
        Layout(np.array([1]), 4, 8, "hdf5", "zstd")
