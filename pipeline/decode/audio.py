"""Sound to mono float32 at the encoder's rate: soundfile first, PyAV for what it cannot read (AAC, video sound tracks).

Decided here: the format is told from the bytes, not from the file's name (an MP3 named .wav is read); channels are
averaged; resampling is polyphase (scipy); at most `seconds` are read, so that an hour-long recording costs what the
encoder uses of it. No sound at all, and samples that are not finite, are refused.
"""

from __future__ import annotations

import io
import math

import av
import numpy as np
import soundfile
from scipy.signal import resample_poly

from .errors import DecodeError

# Resampling filters look a little past the end; reading this much more keeps the cut exact.
MARGIN_SECONDS = 0.1


def decode_audio(data: bytes, rate: int, seconds: float) -> np.ndarray:
    """(n,) float32 at `rate` Hz, n <= seconds * rate. Raises DecodeError with the reason."""
    if not data:
        raise DecodeError("empty file")
    try:
        wave, found = _read_soundfile(data, seconds + MARGIN_SECONDS)
    except soundfile.LibsndfileError:
        wave, found = _read_av(data, seconds + MARGIN_SECONDS)
    if wave.size == 0:
        raise DecodeError("no sound in it: zero samples")
    if not np.isfinite(wave).all():
        raise DecodeError("samples that are not finite numbers")
    if found != rate:
        common = math.gcd(found, rate)
        wave = resample_poly(wave, rate // common, found // common).astype(np.float32)
    return np.ascontiguousarray(wave[: int(seconds * rate)], dtype=np.float32)


def _read_soundfile(data: bytes, seconds: float) -> tuple[np.ndarray, int]:
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        samples = file.read(frames=math.ceil(seconds * file.samplerate), dtype="float32", always_2d=True)
        return samples.mean(axis=1), int(file.samplerate)


def _read_av(data: bytes, seconds: float) -> tuple[np.ndarray, int]:
    try:
        with av.open(io.BytesIO(data), mode="r") as container:
            if not container.streams.audio:
                raise DecodeError("no sound track")
            stream = container.streams.audio[0]
            rate = int(stream.rate)
            resampler = av.AudioResampler(format="fltp", layout="mono", rate=rate)
            parts: list[np.ndarray] = []
            have, wanted = 0, math.ceil(seconds * rate)
            for frame in container.decode(stream):
                for piece in resampler.resample(frame):
                    parts.append(piece.to_ndarray()[0])
                    have += parts[-1].size
                if have >= wanted:
                    break
    except (av.FFmpegError, EOFError, IndexError) as error:
        raise DecodeError(f"not sound that soundfile or FFmpeg can read: {error}") from error
    return (np.concatenate(parts)[:wanted] if parts else np.zeros(0, np.float32)), rate
