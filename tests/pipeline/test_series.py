"""Numeric series as a modality: `--series-column`, windows with their place in time, and what is wrong with a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pgm.cache import open_dataset
from pgm.cache.errors import UserError
from pgm.pipeline import Collection, EncoderSpec, ExtractOptions, extract
from pgm.pipeline.datasets.table import Columns, load_table
from pgm.pipeline.decode import DecodeError, decode_series
from pgm.pipeline.encoders import build_encoder, specs_for
from pgm.pipeline.encoders.series import TURNS, Patch, parse_patch


def windows_one_by_one(series: np.ndarray, window: int, hop: int, raw: bool) -> np.ndarray:
    """The tokens of a (T, C) series by plain loops, in float64."""
    tokens = []
    start = 0
    while True:
        told: list[float] = []
        for channel in series[start : start + window].T:
            values = np.concatenate([channel, np.full(window - len(channel), np.nan)]).astype(np.float64)
            known = ~np.isnan(values)
            if raw:
                told += [value if there else 0.0 for value, there in zip(values, known, strict=True)]
            elif known.any():
                slope = np.polyfit(np.linspace(-0.5, 0.5, window)[known], values[known], 1)[0] if known.sum() > 1 else 0
                told += [values[known].mean(), values[known].std(), values[known].min(), values[known].max(), slope]
            else:
                told += [0.0] * 5
            told.append(known.mean())
        centre = min((start + window / 2) / len(series), 1.0)
        told += [
            centre,
            *(np.sin(2 * np.pi * centre * n) for n in TURNS),
            *(np.cos(2 * np.pi * centre * n) for n in TURNS),
        ]
        tokens.append(told)
        if start + window >= len(series):
            return np.array(tokens)
        start += hop


@pytest.mark.parametrize("values", ["stats", "raw"])
@pytest.mark.parametrize(("samples", "window", "hop"), [(40, 8, 8), (37, 8, 5), (3, 8, 8), (8, 8, 3), (41, 10, 15)])
def test_tokens_are_those_of_plain_loops(samples: int, window: int, hop: int, values: str) -> None:
    rng = np.random.default_rng(samples)
    series = rng.normal(size=(samples, 3)).astype(np.float32)
    series[rng.random(series.shape) < 0.2] = np.nan
    series[:, 2] = np.nan if samples == 37 else series[:, 2]  # a channel that was never measured
    patch = Patch(window, hop, 3, values)
    tokens = patch.tokens(series)
    expected = windows_one_by_one(series, window, hop, values == "raw")
    assert tokens.shape == (patch.windows(samples), patch.dim) == expected.shape
    np.testing.assert_allclose(tokens, expected, atol=1e-4)


def test_equal_windows_at_different_times_are_different_tokens() -> None:
    tokens = Patch(10, 10, 1).tokens(np.tile(np.sin(np.arange(10)), 32)[:, None])
    assert len(tokens) == 32
    np.testing.assert_allclose(tokens[:, :6], np.broadcast_to(tokens[:1, :6], (32, 6)), atol=1e-6)
    apart = np.linalg.norm(tokens[:, None] - tokens, axis=2)
    assert apart[~np.eye(32, dtype=bool)].min() > 0.5


def test_settings_are_read_from_the_source_and_a_typo_is_named() -> None:
    assert parse_patch("patch") == {}
    assert parse_patch("patch:window=50,hop=25,values=raw") == {"window": 50, "hop": 25, "values": "raw"}
    for wrong in ("patch:windows=5", "patch:window=0", "patch:values=median"):
        with pytest.raises(UserError, match=r"is not a setting of patch\. Known: window=SAMPLES"):
            parse_patch(wrong)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Six rides, each file's series (20, 2) in another format; one file is missing from its cell, one is odd."""
    rng = np.random.default_rng(0)
    rows = ["imu_file,text,terrain,split"]
    for number, kind in enumerate(("npy", "csv", "parquet", "npy", "", "odd")):
        series = rng.normal(size=(20, 2)).round(4)
        name = f"{number}.{kind}" if kind else ""
        if kind == "npy":
            np.save(tmp_path / name, series.astype(np.float32))
        elif kind == "csv":
            np.savetxt(tmp_path / name, series, delimiter=",", header="x,y", comments="")
        elif kind == "parquet":
            pq.write_table(pa.table({"x": series[:, 0], "y": series[:, 1]}), tmp_path / name)
        elif kind == "odd":
            np.save(tmp_path / "5.odd.npy", series[:, :1])
            (tmp_path / "5.odd.npy").rename(tmp_path / name)
        rows.append(f"{name},ride {number},{'sand' if number % 2 else 'ice'},{'test' if number == 3 else 'train'}")
    (tmp_path / "rides.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "rides.csv"


def rides(table: Path) -> Collection:
    return load_table(table, Columns(text="text", label="terrain", split="split", series=(("imu", "imu_file"),)))


def test_a_column_of_series_is_a_modality_like_any_other(table: Path, tmp_path: Path) -> None:
    collection = rides(table)
    assert set(collection.media) == {"text", "imu"}
    extract(collection, tmp_path / "f", ExtractOptions(preset="tiny", executor="serial", max_failures=0.5))
    store = open_dataset(tmp_path / "f", "rides").features("imu")
    # About 32 windows of the first series: 20 of one sample. A channel's statistics and share, twice, and the place.
    assert (store.dim, [int(n) for n in store.lengths]) == (2 * 6 + 11, [20, 20, 20, 20, 0, 0])
    assert list(store.status[4:]) == ["missing", "failed"]
    assert "a series of 1 channels; the others have 2" in store.error(5)
    for row, name in ((0, "0.npy"), (1, "1.csv"), (2, "2.parquet")):
        series = decode_series((tmp_path / name).read_bytes())
        np.testing.assert_allclose(store[row][:, 0], series[:, 0], rtol=2e-3)


def test_the_window_is_part_of_the_name(table: Path) -> None:
    collection = rides(table)
    found = [
        build_encoder(specs_for(collection, {"imu": EncoderSpec("imu", source)}, "tiny")["imu"]).identity_fields()
        for source in ("patch", "patch:window=5", "patch:window=5,hop=2", "patch:window=5,values=raw")
    ]
    assert len({str(fields) for fields in found}) == 4
    assert found[1]["processor_config"] == {"window": 5, "hop": 5, "channels": 2, "values": "stats"}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"\x93NUMPY\x01\x00", "broken .npy"),
        (b"PAR1 nothing", "broken Parquet"),
        (b"x,y\n1,2\n3,left\n", "column 'y' holds string"),
        (b"x,y\n", "without values"),
        (b"1,inf\n", "infinite"),
    ],
)
def test_what_is_no_series_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        decode_series(data)


def test_a_csv_may_have_a_header_gaps_or_another_delimiter() -> None:
    for text in ("x,y\n1,2\n,4\n", "1;2\nNaN;4\n", "1\t2\nnull\t4\n"):
        np.testing.assert_array_equal(decode_series(text.encode()), [[1, 2], [np.nan, 4]])


def test_where_in_time_something_happened_can_be_learned(tmp_path: Path) -> None:
    """A bump in the first half or in the second: without a place in time the two are the same bag of windows."""
    from pgm.trainer import train

    rng = np.random.default_rng(0)
    rows = ["file,class"]
    for number in range(160):
        series = 0.1 * rng.normal(size=64)
        series[int(rng.integers(0, 28)) + 32 * (number % 2) :][:4] += 2
        np.save(tmp_path / f"{number}.npy", series)
        rows.append(f"{number}.npy,{'late' if number % 2 else 'early'}")
    (tmp_path / "bumps.csv").write_text("\n".join(rows))
    collection = load_table(tmp_path / "bumps.csv", Columns(label="class", series=(("sensor", "file"),)))
    spec = EncoderSpec("sensor", "patch:window=4")
    extract(collection, tmp_path / "f", ExtractOptions(encoders={"sensor": spec}, executor="serial"))
    small = {"dim": 16, "heads": 2, "feedforward": 32, "epochs": 8, "pretrain_epochs": 2, "batch": 16, "lr": 5e-3}
    run = train(tmp_path / "f", runs=tmp_path / "runs", method="single:sensor", settings=small)
    assert run.test["accuracy"] > 0.85
