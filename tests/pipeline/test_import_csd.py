"""Computational sequences: segments, their ids and exactly their rows, aligned by the SDK or cut here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import typer
from pgm.cache import open_dataset
from pgm.cache.dataset.verify import verify_store
from pgm.cache.errors import NotFound, UserError
from pgm.pipeline.imports.commands import import_command
from typer.testing import CliRunner

RNG = np.random.default_rng(0)
LABELS = "Opinion Segment Labels"
SEGMENTS = {  # two videos, one with an underscore and a number at its end, and a gap between segments
    "vidA_1": ([[0.0, 1.0], [1.0, 2.5]], [1.4, -2.0]),
    "vidB": ([[0.5, 1.0], [2.0, 3.0], [3.0, 4.0]], [0.0, 3.0, -0.6]),
}
IDS = ["vidA_1_1", "vidA_1_2", "vidB_1", "vidB_2", "vidB_3"]


def write(path: Path, name: str, entries: Mapping[str, tuple[Any, Any]], **metadata: Any) -> Path:
    with h5py.File(path, "w") as file:
        for key, (features, intervals) in entries.items():
            file[f"{name}/data/{key}/features"] = features
            file[f"{name}/data/{key}/intervals"] = intervals
        for key, value in {"root name": name, **metadata}.items():
            text = file.create_dataset(f"{name}/metadata/{key.replace('_', ' ')}", (1,), h5py.string_dtype())
            text[0] = json.dumps(value)
    return path


def labels(path: Path, width: int = 1) -> Path:
    entries = {}
    for video, (spans, scores) in SEGMENTS.items():
        rows = np.full((len(scores), width), 9.0)
        rows[:, 0] = scores
        entries[video] = (rows, np.array(spans))
    return write(path, LABELS, entries, dimension_names=[f"d{place}" for place in range(width)])


def steps(seconds: float, rate: float, dim: int) -> tuple[Any, Any]:
    """Rows of 1/rate seconds each from 0 on."""
    count = round(seconds * rate)
    starts = np.arange(count) / rate
    return RNG.normal(size=(count, dim)), np.stack([starts, starts + 1 / rate], axis=1)


def run(*arguments: object) -> Any:
    app = typer.Typer()
    app.command()(import_command)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None:
        raise result.exception
    return result


def columns(root: Path, *names: str) -> list[list[Any]]:
    samples = open_dataset(root, "mosi").samples
    return [samples[name].to_pylist() for name in names]


def test_unaligned_features_are_cut_by_the_labels(tmp_path: Path) -> None:
    audio = {"vidA_1": steps(3, 4, 2), "vidB": steps(3, 4, 2)}  # vidB's sound ends before its third segment
    words = {"vidB": (np.arange(6.0)[:, None], [[0.4, 0.6], [0.6, 0.8], [0.9, 1.2], [1.9, 2.2], [2.2, 3], [3.2, 3.4]])}
    audio["vidA_1"][0][1, 0] = -np.inf
    files = [
        labels(tmp_path / "b.csd"),
        write(tmp_path / "a.csd", "COVAREP", audio),
        write(tmp_path / "c.csd", "glove_vectors", words),
    ]
    said = json.loads(run("mosi", *files, "--features", tmp_path, "--json").stdout)
    dataset = open_dataset(tmp_path, "mosi")
    assert (said["layout"], dataset.card.task) == ("csd", "sentiment")
    ids, groups, scores = columns(tmp_path, "id", "group", "label")
    assert ids == IDS
    assert groups == ["vidA_1"] * 2 + ["vidB"] * 3
    assert scores == [1.4, -2.0, 0.0, 3.0, -0.6]
    sound = dataset.features("audio")
    clean = np.nan_to_num(audio["vidA_1"][0], neginf=0).astype(np.float32)
    assert np.array_equal(sound[0], clean[0:4])
    assert np.array_equal(sound[1], clean[4:10])
    assert np.array_equal(sound[2], audio["vidB"][0][2:4].astype(np.float32))
    assert np.array_equal(sound[3], audio["vidB"][0][8:12].astype(np.float32))
    assert sound.status.tolist() == ["ok", "ok", "ok", "ok", "missing"]
    text = dataset.features("text")
    # The middle decides: .9 to 1.2 lies outside of .5 to 1, and 1.9 to 2.2 inside of 2 to 3.
    assert [text[row].ravel().tolist() for row in (2, 3, 4)] == [[0, 1], [3, 4], [5]]
    assert text.status.tolist()[:2] == ["missing", "missing"]
    notes = " ".join(said["notes"])
    assert "audio: 1 values that were infinite or NaN are now 0." in notes
    assert "audio: 1 of 5 segments have no row of 'COVAREP'." in notes
    assert "70/10/20 drawn" in notes
    assert all(verify_store(store.storage).sound for store in dataset.stores.values())


@pytest.mark.parametrize("clip", ["{video}[{before}]", "{video}_{number}"])
@pytest.mark.parametrize("labels_too", [False, True])
def test_aligned_features_go_by_their_names(tmp_path: Path, clip: str, labels_too: bool) -> None:
    keys = [
        clip.format(video=video, before=place, number=place + 1)
        for video, (_, scores) in SEGMENTS.items()
        for place in range(len(scores))
    ]
    entries = {key: (RNG.normal(size=(1 + row, 3)), np.zeros((1 + row, 2))) for row, key in enumerate(keys)}
    reversed_ = dict(reversed(entries.items()))
    pairs = [pair for spans, scores in SEGMENTS.values() for pair in zip(spans, scores, strict=True)]
    if labels_too:
        rows = {key: (np.array([[score]]), np.array([span])) for key, (span, score) in zip(keys, pairs, strict=True)}
        label = write(tmp_path / "l.csd", LABELS, rows)
    else:
        label = labels(tmp_path / "l.csd")
    run("mosi", label, write(tmp_path / "x.csd", "FACET_4.2", reversed_), "--features", tmp_path)
    ids, scores = columns(tmp_path, "id", "label")
    assert dict(zip(ids, scores, strict=True)) == dict(zip(IDS, [1.4, -2.0, 0.0, 3.0, -0.6], strict=True))
    store = open_dataset(tmp_path, "mosi").features("vision")
    for place, key in enumerate(keys):
        assert np.array_equal(store[ids.index(IDS[place])], entries[key][0].astype(np.float32))


def test_the_folds_come_from_a_table_of_videos_or_segments(tmp_path: Path) -> None:
    files = [labels(tmp_path / "l.csd"), write(tmp_path / "a.csd", "COVAREP", {"vidB": steps(4, 4, 2)})]
    (tmp_path / "folds.csv").write_text("video,split\nvidA_1,test\nvidB,train\n")
    run("mosi", *files, "--split", tmp_path / "folds.csv", "--features", tmp_path)
    assert columns(tmp_path, "split") == [["test", "test", "train", "train", "train"]]
    (tmp_path / "label.csv").write_text("video_id,clip_id,mode\nvidA_1,2,train\nvidB,1,valid\nvidB,3,test\n")
    said = json.loads(
        run("mosi", *files, "--split", tmp_path / "label.csv", "--features", tmp_path / "2", "--json").stdout
    )
    assert columns(tmp_path / "2", "id", "split") == [["vidA_1_2", "vidB_1", "vidB_3"], ["train", "val", "test"]]
    assert "2 labelled segments stand in no row of label.csv and were left out." in said["notes"]
    (tmp_path / "folds.csv").write_text("video,split\nother,test\n")
    with pytest.raises(NotFound, match=r"folds\.csv names no labelled segment: its first is 'other'"):
        run("mosi", *files, "--split", tmp_path / "folds.csv", "--features", tmp_path)
    (tmp_path / "folds.csv").write_text("video,fold\nvidB,test\n")
    with pytest.raises(NotFound, match="no column for the split of a sample"):
        run("mosi", *files, "--split", tmp_path / "folds.csv", "--features", tmp_path)


def test_the_videos_of_mosi_go_by_the_standard_folds(tmp_path: Path) -> None:
    videos = ["03bSnISJMiM", "WKA5OygbEKI", "c7UH_rxdZv4"]
    entries = {video: (np.ones((2, 1)), np.array([[0.0, 1.0], [1.0, 2.0]])) for video in videos}
    files = [write(tmp_path / "l.csd", LABELS, entries), write(tmp_path / "a.csd", "COVAREP", entries)]
    run("mosi", *files, "--features", tmp_path)
    assert columns(tmp_path, "group", "split") == [
        [video for video in videos for _ in range(2)],
        ["train", "train", "val", "val", "test", "test"],
    ]


def test_several_label_columns_are_said(tmp_path: Path) -> None:
    files = [labels(tmp_path / "l.csd", 3), write(tmp_path / "a.csd", "COVAREP", {"vidB": steps(4, 4, 2)})]
    result = run("mosi", *files, "--features", tmp_path)
    assert "note: 'Opinion Segment Labels' has 3 columns (d0, d1, d2); the first is the label." in result.stderr


def test_files_that_do_not_go_together_are_said(tmp_path: Path) -> None:
    label = labels(tmp_path / "l.csd")
    covarep = write(tmp_path / "a.csd", "COVAREP", {"vidB": steps(4, 4, 2)})
    smile = write(tmp_path / "s.csd", "OpenSMILE", {"vidB": steps(4, 2, 3)})
    with pytest.raises(UserError, match=r"hold 'COVAREP', 'OpenSMILE'. Give one sequence of labels"):
        run("mosi", covarep, smile, "--features", tmp_path)
    with pytest.raises(UserError, match="need as many different names; give one --modality for each"):
        run("mosi", label, covarep, smile, "--features", tmp_path)
    run("mosi", label, covarep, smile, "--modality", "audio", "--modality", "prosody", "--features", tmp_path)
    assert open_dataset(tmp_path, "mosi").modalities == ["audio", "prosody"]
    other = write(tmp_path / "o.csd", "FACET", {"elsewhere": steps(1, 1, 1)})
    with pytest.raises(NotFound, match="no features for any labelled segment: its first entry is 'elsewhere'"):
        run("mosi", label, other, "--features", tmp_path)
