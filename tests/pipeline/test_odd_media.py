"""One extraction over a folder of odd, broken and hostile files: each bad one has its reason, each good one is encoded,
and nothing is asked of the network or of another program."""

from __future__ import annotations

import csv
import io
import os
import platform
import re
import signal
import stat
import struct
import subprocess
import sys
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from pgm.cache import CachedDataset, open_dataset
from PIL import Image

SEALED = Path(__file__).with_name("sealed_process.py")
RATE = 16_000
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8))
WAVE = 0.3 * np.sin(np.arange(RATE // 2) / 7)


def image_bytes(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def sound_bytes(kind: str, subtype: str | None = None, wave: np.ndarray = WAVE) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, RATE, format=kind, subtype=subtype)
    return buffer.getvalue()


def wav(rate: int, channels: int, declared: int, data: bytes = bytes(4000)) -> bytes:
    """A 16-bit WAV whose header says what it is told to."""
    head = struct.pack("<HHIIHH", 1, channels, rate, rate * channels * 2 & 0xFFFFFFFF, max(1, channels) * 2, 16)
    body = b"WAVEfmt " + struct.pack("<I", 16) + head + b"data" + struct.pack("<I", declared) + data
    return b"RIFF" + struct.pack("<I", min(declared + 36, 0xFFFFFFFF)) + body


def png_of(width: int, height: int) -> bytes:
    """A PNG that declares a size and holds nothing of it."""
    packed = b"\x89PNG\r\n\x1a\n"
    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    for kind, data in ((b"IHDR", size), (b"IDAT", zlib.compress(b""))):
        packed += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return packed


def clip(frames: int, sound: bool = False, uneven: bool = False, codec: str = "mpeg4", container: str = "mp4") -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        video = file.add_stream(codec, rate=10) if frames or not sound else None
        audio = file.add_stream("aac", rate=RATE, layout="mono") if sound else None
        if video is not None:
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
            for number in range(frames):
                frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 * number, np.uint8), format="rgb24")
                frame.pts, frame.time_base = number**2 if uneven else number, Fraction(1, 10)
                file.mux(video.encode(frame))
            file.mux(video.encode()) if frames else file.start_encoding()
        if audio is not None:
            piece = av.AudioFrame.from_ndarray(WAVE.astype(np.float32)[None], "fltp", "mono")
            piece.sample_rate, piece.time_base, piece.pts = RATE, Fraction(1, RATE), 0
            file.mux(audio.encode(piece))
            file.mux(audio.encode())
    return buffer.getvalue()


def turned(data: bytes) -> bytes:
    """An MP4 whose track is shown turned by 90 degrees."""
    at = data.index(b"tkhd") + 44
    return data[:at] + struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30) + data[at + 36 :]


def exif(orientation: int) -> Image.Exif:
    made = Image.Exif()
    made[0x0112] = orientation
    return made


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes(255 - byte for byte in data[at : at + 40]) + data[at + 40 :]


JPEG, PNG = image_bytes(PICTURE, "JPEG"), image_bytes(PICTURE, "PNG")
PALETTE = PICTURE.convert("P", palette=Image.Palette.ADAPTIVE)
DDS_FORMAT = struct.pack("<2I4s5I", 32, 4, b"XXXX", *[0] * 5)
DDS = b"DDS " + struct.pack("<7I", 124, 0x1007, 8, 8, 16, 0, 0) + bytes(44) + DDS_FORMAT + bytes(200)
SDP = b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
CONCAT = b"ffconcat version 1.0\nfile good.mp4\nfile good.mp4\n"
PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:9,\ngood.mp4\n#EXT-X-ENDLIST\n"

# File -> its bytes and, where it cannot be encoded, a part of the reason that must be recorded.
PICTURES: dict[str, tuple[bytes, str | None]] = {
    "good.jpg": (JPEG, None),
    "good.png": (PNG, None),
    "png named.jpg": (PNG, None),
    "progressive.jpg": (image_bytes(PICTURE, "JPEG", progressive=True), None),
    "cmyk.jpg": (image_bytes(PICTURE.convert("CMYK"), "JPEG"), None),
    "grey16.png": (image_bytes(Image.fromarray(np.arange(3072, dtype=np.uint16).reshape(48, 64) * 21), "PNG"), None),
    "palette.png": (image_bytes(PALETTE, "PNG", transparency=0), None),
    "animated.gif": (image_bytes(PALETTE, "GIF", save_all=True, append_images=[PALETTE.rotate(90)]), None),
    "interlaced.gif": (image_bytes(PALETTE, "GIF", interlace=1), None),
    "turned.jpg": (image_bytes(PICTURE, "JPEG", exif=exif(6)), None),
    "nonsense exif.jpg": (image_bytes(PICTURE, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), None),
    "nonsense icc.jpg": (image_bytes(PICTURE, "JPEG", icc_profile=b"no profile"), None),
    "whole.avif": (image_bytes(PICTURE, "AVIF"), None),
    "whole.webp": (image_bytes(PICTURE, "WEBP"), None),
    "whole.tiff": (image_bytes(PICTURE, "TIFF", compression="tiff_lzw"), None),
    "whole.bmp": (image_bytes(PICTURE, "BMP"), None),
    "whole.ppm": (image_bytes(PICTURE, "PPM"), None),
    "one pixel.png": (image_bytes(Image.new("RGB", (1, 1)), "PNG"), None),
    "thin.png": (image_bytes(Image.new("RGB", (1, 90)), "PNG"), None),
    "thread.png": (image_bytes(Image.new("RGB", (1, 60_000)), "PNG"), "100 times"),
    "bomb.png": (png_of(60_000, 60_000), "limit"),
    "empty.jpg": (b"", "empty file"),
    "cut.jpg": (JPEG[: len(JPEG) // 2], "broken image"),
    "cut.png": (PNG[: len(PNG) // 2], "broken image"),
    "cut.avif": (image_bytes(PICTURE, "AVIF")[:-400], "HEIF or AVIF"),
    "flipped.webp": (flipped(image_bytes(PICTURE, "WEBP", lossless=True), 25), "broken image"),
    "surface.dds": (DDS, "neither"),
    "drawing.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n", "neither"),
    "drawing.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'><image href='http://127.0.0.1/x'/></svg>", "neither"),
    "layers.psd": (b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 8, 8, 8, 3) + bytes(900), "neither"),
    "icon.ico": (image_bytes(PICTURE, "ICO", sizes=[(16, 16)]), "neither"),
    "apple.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200), "HEIF"),
    "text.jpg": (b"no picture at all", "neither"),
    "sound.png": (sound_bytes("WAV"), "no video track"),
    "good.mp4": (clip(6, sound=True), None),
    "good.webm": (clip(6, codec="libvpx-vp9", container="webm"), None),
    "turned.mp4": (turned(clip(6)), None),
    "uneven.mp4": (clip(6, uneven=True), None),
    "no picture.mp4": (clip(0, sound=True), "no video track"),
    "no frame.mp4": (clip(0), "no video track"),
    "cut.mp4": (clip(6)[:900], "neither"),
    "session.mp4": (SDP, "not a container"),
    "list.mp4": (CONCAT, "not a container"),
    "playlist.mp4": (PLAYLIST, "neither"),
}
SOUNDS: dict[str, tuple[bytes, str | None]] = {
    "good.wav": (sound_bytes("WAV"), None),
    "8 bit.wav": (sound_bytes("WAV", "PCM_U8"), None),
    "24 bit.wav": (sound_bytes("WAV", "PCM_24"), None),
    "ulaw.wav": (sound_bytes("WAV", "ULAW"), None),
    "float.wav": (sound_bytes("WAV", "FLOAT"), None),
    "good.aiff": (sound_bytes("AIFF"), None),
    "good.flac": (sound_bytes("FLAC"), None),
    "good.ogg": (sound_bytes("OGG"), None),
    "good.mp3": (sound_bytes("MP3"), None),
    "good.sph": (sound_bytes("NIST"), None),
    "track.mp4": (clip(6, sound=True), None),
    "promises more.wav": (wav(RATE, 1, 2_000_000_000), None),
    "nan.wav": (sound_bytes("WAV", "FLOAT", np.array([0.0, np.nan])), "not finite"),
    "infinite.wav": (sound_bytes("WAV", "FLOAT", np.array([0.0, np.inf])), "not finite"),
    "fast.wav": (wav(2_147_483_629, 1, 4000), "2,147,483,629 Hz"),
    "slow.wav": (wav(0, 1, 4000), "sound"),
    "no channel.wav": (wav(RATE, 0, 4000), "channels|sound|codec"),
    "many channels.wav": (wav(RATE, 900, 4000), "900 channels"),
    "no sample.wav": (sound_bytes("WAV", wave=np.zeros(0)), "zero samples"),
    "odd header.sph": (b"NIST_1A\n   1024\nchannel_count -i \xff\xfe\nend_head\n" + bytes(2000), "sound"),
    "cut.flac": (sound_bytes("FLAC")[:60], "sound"),
    "silent.mp4": (clip(6), "no sound track"),
    "empty.wav": (b"", "empty file"),
    "text.wav": (b"no sound at all " * 9, "sound"),
    "matrix.mat": (sound_bytes("MAT5"), "MAT5"),
    "session.wav": (SDP, "sound"),
}
TEXTS = {"a": "plain", "b": "", "c": "nul \0 inside", "d": "\ufeffmarked", "e": "line\nbreak", "f": "x" * 10_000_000}


SPECIAL = {"folder.jpg": "a folder", "pipe.jpg": "a pipe", "socket.jpg": "a socket", "zeros.jpg": "a device"}
EXPECTED = {
    **{f"image/{name}": why for name, (_, why) in PICTURES.items()},
    **{f"image/{name}": why for name, why in SPECIAL.items()},
    "image/absent.jpg": "not found",
    "image/secret.jpg": "Permission denied" if os.geteuid() else None,
    **{f"audio/{name}": why for name, (_, why) in SOUNDS.items()},
}


def make(root: Path) -> None:
    """The folder, and a table with one row a file."""
    for column, made in (("image", PICTURES), ("audio", SOUNDS)):
        (root / column).mkdir()
        for name, (data, _) in made.items():
            (root / column / name).write_bytes(data)
    pictures = root / "image"
    (pictures / "folder.jpg").mkdir()
    os.mkfifo(pictures / "pipe.jpg")
    (pictures / "zeros.jpg").symlink_to("/dev/zero")
    os.mknod(pictures / "socket.jpg", stat.S_IFSOCK | 0o600)
    (pictures / "secret.jpg").write_bytes(JPEG)
    (pictures / "secret.jpg").chmod(0)
    with (root / "table.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "image", "audio", "text"])
        for name in EXPECTED:
            table.writerow([name, name, "", "word"] if name.startswith("image") else [name, "", name, "word"])
        for name, text in TEXTS.items():
            table.writerow([f"text/{name}", "", "", text])


pytestmark = pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"), reason="seals a process by Linux system calls"
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> CachedDataset:
    """What one command made of the folder."""
    root = tmp_path_factory.mktemp("odd")
    make(root)
    columns = "--id-column id --image-column image --audio-column audio --text-column text"
    options = f"extract table.csv {columns} --encoders tiny --max-failures 1 --executor serial --features features"
    command = [sys.executable, str(SEALED), *options.split()]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, (done.returncode, done.stderr[-3000:])
    return open_dataset(root / "features", "table")


@pytest.mark.parametrize(("column", "modality"), [("image", "vision"), ("audio", "audio")])
def test_every_bad_file_has_its_reason_and_every_good_one_beside_it_is_encoded(
    dataset: CachedDataset, column: str, modality: str
) -> None:
    store = dataset.features(modality)
    wrong: list[str] = []
    for row, (name, status) in enumerate(zip(dataset.samples["id"].to_pylist(), store.status, strict=True)):
        error = store.error(row)
        if not name.startswith(column):
            continue
        why = EXPECTED[name]
        good = status == "ok" and np.abs(store[row]).max() > 0 if why is None else status == "failed"
        if not good or (why and not re.search(why, error)) or "\n" in error or len(error) > 500:
            wrong.append(f"{name}: {status} {error!r}, expected {why!r}")
    assert not wrong, "\n".join(wrong)
    assert sum(why is not None for why in EXPECTED.values()) >= 40


def test_every_text_is_a_text(dataset: CachedDataset) -> None:
    status = dict(zip(dataset.samples["id"].to_pylist(), dataset.features("text").status, strict=True))
    assert {status[f"text/{name}"] for name in TEXTS} == {"ok"}


@pytest.mark.parametrize("deed", ["open a socket", "start a program"])
def test_the_sealed_process_is_sealed(deed: str) -> None:
    done = subprocess.run([sys.executable, str(SEALED), deed], capture_output=True)
    assert done.returncode == -signal.SIGSYS
