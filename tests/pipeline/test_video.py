"""Videos as cameras, phones and broken downloads leave them: the right frames at the right times, or a plain reason."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from pgm.cache import open_dataset
from pgm.pipeline import ExtractOptions, extract
from pgm.pipeline.datasets.table import Columns, load_table
from pgm.pipeline.decode import DecodeError, decode_audio, decode_frames
from PIL import Image

RATE = 16_000
WAVE = (0.3 * np.sin(np.arange(RATE) / 9)).astype(np.float32)


def video(
    times: Sequence[int], size: tuple[int, int] = (64, 48), kind: str = "mp4", codec: str = "mpeg4", sound: bool = False
) -> bytes:
    """A clip whose frame n is grey of shade 10 n, a white corner at its upper left, shown from tick times[n] on, a
    tenth of a second each."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=kind) as file:
        stream = file.add_stream(codec, rate=10) if times or not sound else None
        track = file.add_stream("aac", rate=RATE, layout="mono") if sound else None
        if stream is not None:
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            stream.codec_context.time_base = Fraction(1, 10)
            stream.codec_context.gop_size = 4
            for number, time in enumerate(times):
                pixels = np.full((size[1], size[0], 3), 10 * number, np.uint8)
                pixels[: size[1] // 3, : size[0] // 3] = 255
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = time, Fraction(1, 10)
                file.mux(stream.encode(frame))
            file.mux(stream.encode()) if times else file.start_encoding()
        if track is not None:
            piece = av.AudioFrame.from_ndarray(WAVE[None], "fltp", "mono")
            piece.sample_rate, piece.time_base, piece.pts = RATE, Fraction(1, RATE), 0
            file.mux(track.encode(piece))
            file.mux(track.encode())
    return buffer.getvalue()


def turned(data: bytes, a: int, b: int, c: int, d: int) -> bytes:
    """An MP4 that is to be shown by this display matrix: right goes to (a, b), down to (c, d)."""
    at = data.index(b"tkhd") + 44
    matrix = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
    return data[:at] + b"".join(n.to_bytes(4, "big", signed=True) for n in matrix) + data[at + 36 :]


def shown(frames: Sequence[Image.Image]) -> list[int]:
    """Which frame each is, by its shade in the middle."""
    return [round(float(np.asarray(frame.resize((9, 9))).mean(2)[4, 4]) / 10) for frame in frames]


STEADY = list(range(20))
# A second of ten frames, then a picture that stays for four, then five quick ones.
UNEVEN = [*range(10), *range(50, 55)]


@pytest.mark.parametrize("kind", ["mp4", "matroska", "mpegts"])
def test_frames_are_those_shown_at_even_times_whatever_the_rate(kind: str) -> None:
    codec = "mpeg2video" if kind == "mpegts" else "mpeg4"
    assert shown(decode_frames(video(STEADY, kind=kind, codec=codec), 4)) == [2, 7, 12, 17]
    if kind != "mpegts":
        # 5.5 s; the middles of five parts lie at 0.55, 1.65, 2.75, 3.85 and 4.95 s: the still picture is three of them.
        assert shown(decode_frames(video(UNEVEN, kind=kind, codec=codec), 5)) == [5, 9, 9, 9, 9]
        assert shown(decode_frames(video(UNEVEN, kind=kind, codec=codec), 11))[-1] == 12


def test_a_clip_that_begins_late_begins_at_its_first_frame() -> None:
    assert shown(decode_frames(video([time + 100 for time in STEADY], kind="matroska"), 4)) == [2, 7, 12, 17]


def test_of_a_long_clip_the_first_seconds_count_by_its_own_time() -> None:
    assert shown(decode_frames(video(STEADY), 2, seconds=1.0)) == [2, 7]
    assert shown(decode_frames(video(UNEVEN), 4, seconds=4.0)) == [5, 9, 9, 9]


@pytest.mark.parametrize(
    ("matrix", "corner", "swapped"),
    [
        ((1, 0, 0, 1), "upper left", False),
        ((0, 1, -1, 0), "upper right", True),  # a phone held upright: a quarter turn clockwise
        ((-1, 0, 0, -1), "lower right", False),
        ((0, -1, 1, 0), "lower left", True),
        ((-1, 0, 0, 1), "upper right", False),  # a mirrored selfie
        ((1, 0, 0, -1), "lower left", False),
    ],
)
def test_a_turned_or_mirrored_clip_is_upright(matrix: tuple[int, int, int, int], corner: str, swapped: bool) -> None:
    [frame] = decode_frames(turned(video(STEADY), *matrix), 1)
    assert frame.size == ((48, 64) if swapped else (64, 48))
    light = np.asarray(frame.convert("L").resize((6, 6))) > 180
    corners = {
        "upper left": light[0, 0],
        "upper right": light[0, 5],
        "lower left": light[5, 0],
        "lower right": light[5, 5],
    }
    assert [name for name, white in corners.items() if white] == [corner]


@pytest.mark.parametrize("size", [(34, 18), (66, 46), (16, 16), (2, 2)])
def test_odd_sizes(size: tuple[int, int]) -> None:
    frames = decode_frames(video(STEADY, size), 2)
    assert [frame.size for frame in frames] == [size] * 2


@pytest.mark.parametrize(("kind", "codec"), [("matroska", "mpeg4"), ("mpegts", "mpeg2video")])
def test_of_a_clip_that_breaks_off_what_is_there_counts(kind: str, codec: str) -> None:
    whole = video(list(range(24)), kind=kind, codec=codec)
    frames = shown(decode_frames(whole[: len(whole) * 6 // 10], 3))
    assert frames == sorted(frames)
    assert 0 < frames[-1] < 20


def test_without_its_index_a_clip_is_refused() -> None:
    whole = video(STEADY)
    with pytest.raises(DecodeError, match="neither an image nor a video"):
        decode_frames(whole[: len(whole) // 2], 2)


def test_a_size_is_refused_before_it_is_allocated() -> None:
    whole = video(STEADY, (64, 64), kind="avi", codec="ffv1")
    at = whole.index(b"strf") + 8
    huge = whole[: at + 4] + (60_000).to_bytes(4, "little") * 2 + whole[at + 12 :]
    with pytest.raises(DecodeError, match=r"60000x60000 pixels; the limit is|max_pixels"):
        decode_frames(huge, 1)


def test_one_bad_clip_costs_itself_alone(tmp_path: Path) -> None:
    """Pictures and sound of the same files, through one extraction."""
    whole = video(STEADY, sound=True)
    clips = {
        "good": (whole, None, None),
        "uneven": (video(UNEVEN), None, "no sound track"),
        "turned": (turned(whole, 0, 1, -1, 0), None, None),
        "cut": (whole[: len(whole) // 2], "neither an image nor a video", "not sound"),
        "no frame": (video([]), "no video", "no sound track"),
        "sound alone": (video([], sound=True), "no video track", None),
        "broken off": (video(STEADY, kind="matroska", sound=True)[:4000], None, None),
    }
    rows = ["id,clip,sound,label"]
    for name, (data, _, _) in clips.items():
        (tmp_path / f"{name}.mp4").write_bytes(data)
        rows.append(f"{name},{name}.mp4,{name}.mp4,{len(name) % 2}")
    (tmp_path / "clips.csv").write_text("\n".join(rows))
    columns = Columns(image="clip", audio="sound", label="label", id="id")
    options = ExtractOptions(preset="tiny", executor="serial", max_failures=1.0)
    extract(load_table(tmp_path / "clips.csv", columns), tmp_path / "f", options)
    dataset = open_dataset(tmp_path / "f", "clips")
    for modality, place in (("vision", 1), ("audio", 2)):
        store = dataset.features(modality)
        for row, name in enumerate(dataset.samples["id"].to_pylist()):
            why = clips[name][place]
            assert (store.status[row] == "ok") == (why is None), (modality, name, store.error(row))
            assert why is None or why in store.error(row), (modality, name, store.error(row))


def test_the_sound_of_a_video_is_that_of_the_file_it_was_made_of(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", WAVE, RATE)
    heard = decode_audio(video(UNEVEN, sound=True), RATE, 0.9)
    made = decode_audio((tmp_path / "a.wav").read_bytes(), RATE, 0.9)
    assert len(heard) == len(made)
    # AAC is lossy and may begin up to a frame of 1,024 samples late.
    best = max(float(np.corrcoef(heard[late : late + 8000], made[:8000])[0, 1]) for late in range(0, 2049, 8))
    assert best > 0.98
