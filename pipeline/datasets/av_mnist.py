"""`av_mnist`: MNIST images paired by digit with the spoken digits of FSDD, as the AV-MNIST literature does.

Expected under `root` (which must hold both):

    root/mnist/mnist.npz            x_train (60000, 28, 28) u8, y_train, x_test (10000, 28, 28), y_test
    root/fsdd/recordings/*.wav      Free Spoken Digit Dataset, {digit}_{speaker}_{index}.wav, 8 kHz mono

The pairing by digit is synthetic, drawn with a fixed seed. The official halves stay apart: a test pair joins an MNIST
test image with an FSDD recording of index 0-4. 5,000 training images, stratified, make val, with the recordings of
index 5-9; train pairs the rest with index 10-49. No image and no recording occurs in two splits.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...cache.errors import NotFound
from ..collection import SPLITS, Collection
from ..media import ArrayMedia, FileMedia, Media
from .assembly import assemble
from .page import Finding, Page
from .reading import files_in

SUMMARY = "70,000 MNIST images paired by digit with FSDD's spoken digits (needs --root)"
MODALITIES = ("audio", "vision")
SEED = 20251027
VALIDATION = 5_000
CLASSES = tuple(str(digit) for digit in range(10))
NOTES = ("Image and sound are paired by digit with a fixed seed: the pairing is synthetic, both media are real.",)

PAGE = Page(
    layout=__doc__ or "",
    splits="the official halves of both; 5,000 training images, stratified, validate",
    classes=", ".join(CLASSES),
    licence="FSDD: CC BY-SA 4.0; MNIST: see the source",
    source="MNIST as an .npz of x_train, y_train, x_test, y_test; github.com/Jakobovski/free-spoken-digit-dataset",
    citation="LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document recognition. Proc. IEEE 1998",
    published={"train": 55_000, "val": 5_000, "test": 10_000},
)


def look(root: Path) -> list[Finding]:
    """Both halves, which are needed."""
    recordings = root / "fsdd" / "recordings"
    return [
        Finding("mnist/mnist.npz", (root / "mnist" / "mnist.npz").is_file()),
        Finding("fsdd/recordings/*.wav", len(files_in(recordings, (".wav",)))),
    ]


def load(root: Path) -> Collection:
    """The pairs under `root`. Raises NotFound naming what was looked for where either half is absent."""
    npz, recordings = find(root)
    with np.load(npz, allow_pickle=False) as archive:
        labels = {"train": archive["y_train"].astype(int), "test": archive["y_test"].astype(int)}
    spoken = _recordings(recordings)
    rng = np.random.default_rng(SEED)
    ids: list[str] = []
    splits: list[str] = []
    vision: list[Media | None] = []
    audio: list[Media | None] = []
    for half in ("train", "test"):
        half_splits = _with_validation(labels[half]) if half == "train" else np.full(len(labels[half]), "test")
        for row, (digit, split) in enumerate(zip(labels[half], half_splits, strict=True)):
            choices = spoken[split, int(digit)]
            ids.append(f"{half}-{row:05d}")
            splits.append(str(split))
            vision.append(ArrayMedia(str(npz), f"x_{half}", row))
            audio.append(FileMedia(str(choices[int(rng.integers(0, len(choices)))])))
    digits = np.concatenate([labels["train"], labels["test"]])
    return assemble(
        "av_mnist",
        "classification",
        CLASSES,
        {"id": ids, "split": splits, "label": digits.tolist()},
        {"audio": audio, "vision": vision},
        {"images": "MNIST", "audio": "Free Spoken Digit Dataset", "pairing_seed": SEED},
        NOTES,
    )


def find(root: Path) -> tuple[Path, Path]:
    """The MNIST archive and the folder of recordings under `root`."""
    npz, recordings = root / "mnist" / "mnist.npz", root / "fsdd" / "recordings"
    found = {npz: npz.is_file(), recordings / "*.wav": any(recordings.glob("*.wav"))}
    if not all(found.values()):
        lines = [f"  {'found  ' if there else 'missing'}  {path}" for path, there in found.items()]
        raise NotFound(
            f"av_mnist needs MNIST and FSDD under --root {root}, and looked for:\n" + "\n".join(lines) + "\n"
            "MNIST: an .npz of x_train, y_train, x_test, y_test. FSDD: github.com/Jakobovski/free-spoken-digit-dataset"
        )
    return npz, recordings


def _with_validation(labels: np.ndarray) -> np.ndarray:
    """ "train" or "val" for each training image, every digit in proportion."""
    from sklearn.model_selection import train_test_split

    splits = np.full(len(labels), "train", dtype=object)
    held_out = min(VALIDATION, len(labels) // 10)
    _, val = train_test_split(np.arange(len(labels)), test_size=held_out, random_state=SEED, stratify=labels)
    splits[val] = "val"
    return splits


def _recordings(folder: Path) -> dict[tuple[str, int], list[Path]]:
    """Recordings by split and digit: index 0-4 is FSDD's own test half, 5-9 is ours for validation."""
    by_split = {(split, digit): list[Path]() for split in SPLITS for digit in range(10)}
    for path in sorted(folder.glob("*.wav")):
        digit, _, index = path.stem.split("_")
        split = "test" if int(index) < 5 else "val" if int(index) < 10 else "train"
        by_split[split, int(digit)].append(path)
    empty = [f"{split} digit {digit}" for (split, digit), paths in by_split.items() if not paths]
    if empty:
        raise NotFound(
            f"{folder} has no recording for {', '.join(empty)}: each digit needs some of index 0-4, 5-9 and 10 up."
        )
    return by_split
