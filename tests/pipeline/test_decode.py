"""A torture folder: every odd medium the decoders promise something for, as real bytes."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from pgm.pipeline.decode import (
    DECODE_VERSION,
    DecodeError,
    decode_audio,
    decode_frames,
    decode_image,
    decode_text,
    library_versions,
)
from pgm.pipeline.decode import image as image_module
from pgm.pipeline.decode.audio import check_sound
from PIL import Image
from scipy.signal import resample_poly

RATE = 16_000


def image_bytes(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def sound_bytes(wave: np.ndarray, rate: int, kind: str, subtype: str | None = None) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def tone(seconds: float, rate: int, hertz: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


def clip_bytes(frames: int, sound: bool, shades: bool = True) -> bytes:
    """An MP4 whose frame n is grey of shade 10 n, with or without a sound track."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("aac", rate=RATE, layout="mono") if sound else None
        for number in range(frames):
            pixels = np.full((48, 64, 3), 10 * number if shades else 128, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(video.encode())
        if audio is not None:
            frame = av.AudioFrame.from_ndarray(tone(frames / 10, RATE).astype(np.float32)[None], "fltp", "mono")
            frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), 0
            container.mux(audio.encode(frame))
            container.mux(audio.encode())
    return buffer.getvalue()


class TestImages:
    def test_exif_orientation_is_applied(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6  # the camera was turned
        wide = Image.new("RGB", (40, 20), "red")
        assert decode_image(image_bytes(wide, "JPEG", exif=exif)).size == (20, 40)

    def test_transparency_is_laid_on_white(self) -> None:
        half = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
        assert decode_image(image_bytes(half, "PNG")).getpixel((0, 0)) == (255, 255, 255)

    def test_a_palette_with_a_transparent_colour_is_laid_on_white(self) -> None:
        palette = Image.new("P", (4, 4), 0)
        palette.putpalette([0, 0, 0, 255, 0, 0])
        assert decode_image(image_bytes(palette, "PNG", transparency=0)).getpixel((0, 0)) == (255, 255, 255)
        assert decode_image(image_bytes(palette, "PNG")).getpixel((0, 0)) == (0, 0, 0)

    def test_cmyk_becomes_rgb(self) -> None:
        red = decode_image(image_bytes(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")).getpixel((4, 4))
        assert red[0] > 200
        assert max(red[1:]) < 60

    def test_16_bit_grey_is_scaled_not_clipped(self) -> None:
        deep = Image.fromarray(np.array([[0, 32768, 65535]], np.uint16))
        pixels = np.asarray(decode_image(image_bytes(deep, "PNG")))[0, :, 0]
        assert pixels.tolist() == [0, 127, 255]

    @pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "YCbCr", "HSV"])
    def test_every_mode_comes_out_as_rgb(self, mode: str) -> None:
        kind = {"YCbCr": "JPEG", "HSV": "TIFF"}.get(mode, "PNG")
        image = Image.new("RGB", (6, 5), "blue").convert(mode)
        source = image if mode != "HSV" else image.convert("RGB")
        assert decode_image(image_bytes(source, kind)).mode == "RGB"

    def test_the_first_frame_of_an_animation_counts(self) -> None:
        frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime")]
        gif = image_bytes(frames[0], "GIF", save_all=True, append_images=frames[1:])
        assert decode_image(gif).getpixel((0, 0)) == (255, 0, 0)

    def test_a_truncated_file_is_refused(self) -> None:
        noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8))
        whole = image_bytes(noise, "JPEG")
        with pytest.raises(DecodeError, match="broken image"):
            decode_image(whole[: len(whole) // 2])

    def test_a_decompression_bomb_is_refused_before_it_is_unpacked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(image_module, "MAX_PIXELS", 100)
        with pytest.raises(DecodeError, match="20x20 pixels; the limit is 100"):
            decode_image(image_bytes(Image.new("L", (20, 20)), "PNG"))

    def test_a_bomb_beyond_pillows_own_limit_is_refused(self) -> None:
        bomb = image_bytes(Image.new("1", (20_000, 10_000)), "PNG")
        assert len(bomb) < 100_000
        with pytest.raises(DecodeError, match=r"pixels|bomb"):
            decode_image(bomb)

    @pytest.mark.parametrize("kind", ["JPEG", "PNG"])
    def test_a_picture_far_larger_than_needed_is_decoded_smaller_and_looks_the_same(self, kind: str) -> None:
        ramp = np.add.outer(np.arange(2100) / 20, np.arange(4200) / 40).astype(np.uint8)
        data = image_bytes(Image.fromarray(ramp).convert("RGB"), kind)
        small, exact = decode_image(data), Image.open(io.BytesIO(data)).convert("RGB")
        assert small.size == (2100, 1050)
        assert decode_image(data, needed=264).size == exact.size, "a shorter side of 1056 is kept"
        difference = np.asarray(small.resize((224, 224)), int) - np.asarray(exact.resize((224, 224)), int)
        assert np.abs(difference).max() <= 2

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
    def test_an_ordinary_picture_is_decoded_exactly(self, kind: str) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (2047, 300, 3)).astype(np.uint8)
        data = image_bytes(Image.fromarray(noise), kind)
        np.testing.assert_array_equal(np.asarray(decode_image(data)), np.asarray(Image.open(io.BytesIO(data))))

    def test_a_thread_of_pixels_is_refused(self) -> None:
        assert decode_image(image_bytes(Image.new("L", (200, 2)), "PNG")).size == (200, 2)
        with pytest.raises(DecodeError, match="100 times"):
            decode_image(image_bytes(Image.new("L", (202, 2)), "PNG"))

    @pytest.mark.parametrize("data", [b"", b"no image at all", b"\x89PNG\r\n\x1a\n"])
    def test_what_is_no_image_is_refused(self, data: bytes) -> None:
        with pytest.raises(DecodeError):
            decode_image(data)

    def test_one_pixel_is_an_image(self) -> None:
        assert decode_image(image_bytes(Image.new("RGB", (1, 1)), "PNG")).size == (1, 1)


class TestSound:
    @pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 44_100, 48_000])
    @pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG"])
    def test_any_rate_keeps_pitch_and_duration(self, rate: int, kind: str) -> None:
        wave = decode_audio(sound_bytes(tone(0.5, rate), rate, kind), RATE, 10.0)
        assert len(wave) == pytest.approx(0.5 * RATE, abs=2)
        peak = np.abs(np.fft.rfft(wave)).argmax() * RATE / len(wave)
        assert peak == pytest.approx(440, abs=3)
        assert np.abs(wave).max() == pytest.approx(0.5, abs=0.08)

    def test_channels_are_averaged(self) -> None:
        stereo = np.stack([np.full(800, 0.5), np.full(800, -0.1)], 1)
        np.testing.assert_allclose(decode_audio(sound_bytes(stereo, RATE, "WAV"), RATE, 1.0), 0.2, atol=1e-4)

    @pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"])
    def test_every_sample_format(self, subtype: str) -> None:
        wave = decode_audio(sound_bytes(tone(0.1, RATE), RATE, "WAV", subtype), RATE, 1.0)
        np.testing.assert_allclose(wave, tone(0.1, RATE), atol=0.02)

    def test_an_mp3_named_wav_is_read_by_its_bytes(self, tmp_path: Path) -> None:
        (tmp_path / "song.wav").write_bytes(sound_bytes(tone(0.5, RATE), RATE, "MP3"))
        wave = decode_audio((tmp_path / "song.wav").read_bytes(), RATE, 10.0)
        assert np.abs(np.fft.rfft(wave)).argmax() * RATE / len(wave) == pytest.approx(440, abs=5)

    def test_a_videos_sound_track_is_read(self) -> None:
        wave = decode_audio(clip_bytes(10, sound=True), RATE, 10.0)
        assert np.abs(np.fft.rfft(wave)).argmax() * RATE / len(wave) == pytest.approx(440, abs=5)

    def test_a_video_without_a_sound_track_says_so(self) -> None:
        with pytest.raises(DecodeError, match="no sound track"):
            decode_audio(clip_bytes(5, sound=False), RATE, 10.0)

    def test_zero_length_is_refused_and_one_sample_is_sound(self) -> None:
        with pytest.raises(DecodeError, match="zero samples"):
            decode_audio(sound_bytes(np.zeros(0), RATE, "WAV"), RATE, 1.0)
        assert len(decode_audio(sound_bytes(np.array([0.3]), RATE, "WAV"), RATE, 1.0)) == 1

    def test_only_the_seconds_asked_for_are_read_and_the_cut_is_exact(self) -> None:
        long = tone(3.0, 44_100)
        cut = decode_audio(sound_bytes(long, 44_100, "WAV", "FLOAT"), RATE, 1.0)
        whole = decode_audio(sound_bytes(long, 44_100, "WAV", "FLOAT"), RATE, 10.0)
        assert len(cut) == RATE
        np.testing.assert_allclose(cut, whole[:RATE], atol=1e-5)

    def test_numbers_that_are_not_finite_are_refused(self) -> None:
        with pytest.raises(DecodeError, match="not finite"):
            decode_audio(sound_bytes(np.array([0.0, np.nan, 0.0]), RATE, "WAV", "FLOAT"), RATE, 1.0)

    def test_ordinary_sound_is_the_mean_of_its_channels_resampled(self) -> None:
        data = sound_bytes(np.random.default_rng(0).normal(0, 0.1, (22_050, 2)), 44_100, "WAV")
        read, _ = soundfile.read(io.BytesIO(data), dtype="float32")
        expected = resample_poly(read.mean(axis=1), 160, 441).astype(np.float32)
        np.testing.assert_array_equal(decode_audio(data, RATE, 10.0), expected)

    @pytest.mark.parametrize(
        ("rate", "channels", "seconds", "why"),
        [
            (999, 1, 1.0, "999 Hz"),
            (768_001, 1, 1.0, "Hz"),
            (RATE, 65, 1.0, "65 channels"),
            (768_000, 64, 30.0, "bytes"),
        ],
    )
    def test_rates_channels_and_sizes_are_bounded(self, rate: int, channels: int, seconds: float, why: str) -> None:
        with pytest.raises(DecodeError, match=why):
            check_sound(rate, channels, seconds)

    @pytest.mark.parametrize("data", [b"", b"RIFF", b"no sound at all" * 20])
    def test_what_is_no_sound_is_refused(self, data: bytes) -> None:
        with pytest.raises(DecodeError):
            decode_audio(data, RATE, 1.0)


class TestVideo:
    def test_frames_are_evenly_spaced(self) -> None:
        shades = [np.asarray(frame).mean() for frame in decode_frames(clip_bytes(20, sound=False), 4)]
        np.testing.assert_allclose(shades, [20, 70, 120, 170], atol=8)

    def test_a_clip_shorter_than_asked_repeats_frames(self) -> None:
        assert len(decode_frames(clip_bytes(2, sound=True), 5)) == 5

    def test_a_still_image_is_a_clip_of_one_frame(self) -> None:
        frames = decode_frames(image_bytes(Image.new("RGB", (9, 9), "red"), "PNG"), 3)
        assert [frame.getpixel((0, 0)) for frame in frames] == [(255, 0, 0)] * 3

    def test_a_truncated_clip_is_refused_or_gives_what_is_whole(self) -> None:
        clip = clip_bytes(20, sound=False)
        with pytest.raises(DecodeError):
            decode_frames(clip[: len(clip) // 2], 2)

    def test_sound_alone_has_no_frames(self) -> None:
        with pytest.raises(DecodeError, match=r"no video track|neither"):
            decode_frames(sound_bytes(tone(0.2, RATE), RATE, "WAV"), 2)

    @pytest.mark.parametrize("data", [b"", b"neither image nor video"])
    def test_what_is_neither_is_refused(self, data: bytes) -> None:
        with pytest.raises(DecodeError):
            decode_frames(data, 1)


class TestText:
    @pytest.mark.parametrize(
        ("data", "text"),
        [
            (b"", ""),
            ("naïve 🦊".encode(), "naïve 🦊"),
            (b"\xef\xbb\xbfmarked", "marked"),
            ("wide".encode("utf-16"), "wide"),
            (b"it\x92s cp1252", "it’s cp1252"),
            (b"latin \x81 one", "latin \x81 one"),
        ],
    )
    def test_each_declared_encoding(self, data: bytes, text: str) -> None:
        assert decode_text(data) == text


def test_every_modality_has_a_version_and_every_library_says_its_own() -> None:
    assert set(DECODE_VERSION) == {"text", "vision", "audio", "series"}
    found = library_versions()
    assert {"pillow", "pyav", "libavcodec", "soundfile", "libsndfile", "scipy"} <= set(found)
    assert all(version[0].isdigit() for version in found.values()), found
