"""Where one sample's raw input of one modality lies, and how its bytes are read.

A `Media` is a small picklable value: planning lists them, worker processes read them. Nothing is decoded here. The
digest of the bytes is what tells later whether a source has changed, whatever its path or its modification time say.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import xxhash


@dataclass(frozen=True, slots=True)
class FileMedia:
    """A media file (image, sound, video or text).

    Frames are taken of the clip's first `seconds`, where given; of sound every encoder takes 30 s at most.
    """

    path: str
    seconds: float | None = None

    def read(self) -> bytes:
        """The file's bytes. Raises OSError where it cannot be read."""
        return Path(self.path).read_bytes()

    def digest(self) -> str:
        """128-bit content hash, read in blocks so that a long video needs no memory of its size."""
        hasher = xxhash.xxh3_128()
        with open(self.path, "rb", buffering=0) as file:
            while block := file.read(1 << 20):
                hasher.update(block)
        if self.seconds is not None:
            # What is used of the file is part of the source: another limit means other features.
            hasher.update(f"first {self.seconds:g} s".encode())
        return hasher.hexdigest()

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True, slots=True)
class TextMedia:
    """A text that stands in the dataset's table itself."""

    text: str

    def read(self) -> bytes:
        return self.text.encode("utf-8", errors="surrogatepass")

    def digest(self) -> str:
        return xxhash.xxh3_128_hexdigest(self.read())

    def __str__(self) -> str:
        return repr(self.text[:60])


@dataclass(frozen=True, slots=True)
class ArrayMedia:
    """Row `row` of array `key` of an .npz file: an image of shape (H, W) or (H, W, 3), uint8."""

    path: str
    key: str
    row: int

    def array(self) -> np.ndarray:
        return np.asarray(_npz_array(self.path, self.key)[self.row])

    def read(self) -> bytes:
        buffer = io.BytesIO()
        np.save(buffer, self.array(), allow_pickle=False)
        return buffer.getvalue()

    def digest(self) -> str:
        return xxhash.xxh3_128_hexdigest(self.read())

    def __str__(self) -> str:
        return f"{self.path}[{self.key}][{self.row}]"


Media = FileMedia | TextMedia | ArrayMedia


@lru_cache(maxsize=4)
def _npz_array(path: str, key: str) -> np.ndarray:
    with np.load(path, allow_pickle=False) as archive:
        return np.asarray(archive[key])
