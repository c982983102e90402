"""Sound to mono float32 at the encoder's rate: soundfile first, PyAV for what it cannot read (AAC, video sound tracks).

Decided here: the format is told from the bytes, not from the file's name (an MP3 named .wav is read); channels are
averaged; resampling is polyphase (scipy); at most `seconds` are read, so that an hour-long recording costs what the
encoder uses of it. A header may promise more sound than there is: what is there counts. No sound at all, samples that
are not finite, and rates and channels out of bounds are refused, the last two before anything is allocated.
"""

from __future__ import annotations

import io
import math

import av
import numpy as np
import soundfile

from .container import check_codec, opened
from .errors import DecodeError, refusing

# Resampling filters look a little past the end; reading this much more keeps the cut exact.
MARGIN_SECONDS = 0.1
FORMATS = ("WAV", "WAVEX", "RF64", "W64", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF", "NIST")
LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000
MAX_CHANNELS = 64
# Samples of all channels, float32, before they are averaged: 30 s of 32 channels at 96 kHz is 369 MB.
MAX_SOUND_BYTES = 512 << 20


def decode_audio(data: bytes, rate: int, seconds: float) -> np.ndarray:
    """(n,) float32 at `rate` Hz, n <= seconds * rate. Raises DecodeError with the reason."""
    if not data:
        raise DecodeError("empty file")
    with refusing("broken sound"):
        try:
            wave, found = _read_soundfile(data, seconds + MARGIN_SECONDS)
        except soundfile.LibsndfileError:
            wave, found = _read_av(data, seconds + MARGIN_SECONDS)
        if wave.size == 0:
            raise DecodeError("no sound in it: zero samples")
        if not np.isfinite(wave).all():
            raise DecodeError("samples that are not finite numbers")
        if found != rate:
            wave = _resampled(wave, found, rate)
        return np.ascontiguousarray(wave[: int(seconds * rate)], dtype=np.float32)


def check_sound(rate: int, channels: int, seconds: float) -> None:
    """Raises DecodeError for a rate, a number of channels or a size that is refused."""
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise DecodeError(f"sound at {rate:,} Hz; {LOWEST_RATE:,} to {HIGHEST_RATE:,} Hz are read")
    if not 1 <= channels <= MAX_CHANNELS:
        raise DecodeError(f"sound of {channels:,} channels; 1 to {MAX_CHANNELS} are read")
    if (size := math.ceil(seconds * rate) * channels * 4) > MAX_SOUND_BYTES:
        raise DecodeError(
            f"{seconds:g} s of {channels} channels at {rate:,} Hz are {size:,} bytes; the limit is {MAX_SOUND_BYTES:,}"
        )


def _resampled(wave: np.ndarray, found: int, rate: int) -> np.ndarray:
    # It takes half a second to import, in every worker of every modality.
    from scipy.signal import resample_poly

    common = math.gcd(found, rate)
    return np.asarray(resample_poly(wave, rate // common, found // common), dtype=np.float32)


def _read_soundfile(data: bytes, seconds: float) -> tuple[np.ndarray, int]:
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        if file.format not in FORMATS:
            raise DecodeError(f"sound in {file.format}, which is not read here; these are: {', '.join(FORMATS)}")
        check_sound(file.samplerate, file.channels, min(seconds, file.frames / max(file.samplerate, 1)))
        samples = file.read(frames=math.ceil(seconds * file.samplerate), dtype="float32", always_2d=True)
        return samples.mean(axis=1), int(file.samplerate)


def _read_av(data: bytes, seconds: float) -> tuple[np.ndarray, int]:
    with opened(data, "not sound that soundfile or FFmpeg can read") as container:
        if not container.streams.audio:
            raise DecodeError("no sound track")
        stream = container.streams.audio[0]
        check_codec(stream)
        rate = int(stream.rate)
        # One channel is kept: the resampler averages frame by frame.
        check_sound(rate, stream.channels, 0.0)
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=rate)
        parts: list[np.ndarray] = []
        have, wanted = 0, math.ceil(seconds * rate)
        for frame in container.decode(stream):
            for piece in resampler.resample(frame):
                parts.append(piece.to_ndarray()[0])
                have += parts[-1].size
            if have >= wanted:
                break
    return (np.concatenate(parts)[:wanted] if parts else np.zeros(0, np.float32)), rate
