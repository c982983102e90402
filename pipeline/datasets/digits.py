"""`digits`: the embedded tri-modal dataset, small enough to extract and train on in a minute.

Real: the 1,797 handwritten digits of scikit-learn's `load_digits` (8x8, UCI Optical Recognition of Handwritten Digits)
and their labels. Generated: for each digit a WAV with its DTMF key tone (ITU-T Q.23 frequencies) and a short text
naming it. Every modality is corrupted on its own with a fixed seed (occlusion; noise and drop-outs; typos and wrong
words), so that no modality suffices alone and fusing them pays. The files are written once under `root`:

    root/images/0000.png ...   56x56 grey         root/audio/0000.wav ...   16 kHz mono, 1.2 s
    root/texts/0000.txt ...    UTF-8              root/labels.csv           id,split,label
"""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np

from ..collection import Collection
from ..media import FileMedia
from .assembly import assemble
from .page import Finding, Page

SUMMARY = "1,797 real handwritten digits, each with a generated DTMF tone and a generated short text (embedded)"
MODALITIES = ("text", "audio", "vision")
SEED = 20251027
SAMPLE_RATE = 16_000
CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NOTES = (
    "Images: real (scikit-learn load_digits), enlarged to 56x56 and partly occluded.",
    "Audio: generated DTMF key tones (ITU-T Q.23) with noise and drop-outs. Text: generated digit names with typos.",
)
LOW_HZ, HIGH_HZ = (697, 770, 852, 941), (1209, 1336, 1477)
KEYPAD = {digit: divmod(digit - 1, 3) for digit in range(1, 10)} | {0: (3, 1)}
# How often a modality says nothing of its digit, or something wrong.
SILENT, WRONG_WORD, MOSTLY_HIDDEN = 0.30, 0.30, 0.45

PAGE = Page(
    layout=__doc__ or "",
    splits="70/10/20, stratified by label, drawn with a fixed seed",
    classes=", ".join(CLASSES),
    licence="see scikit-learn (the images); sounds and texts are made here",
    source="comes with scikit-learn; nothing to get",
    citation="Alpaydin, Kaynak: Optical recognition of handwritten digits. UCI Machine Learning Repository 1998",
    published={"train+val+test": 1_797},
)


def look(root: Path) -> list[Finding]:
    """The table written last; where it is not there, extraction makes the dataset first."""
    return [Finding("labels.csv", (root / "labels.csv").is_file(), False, "the dataset is made on first use")]


def load(root: Path) -> Collection:
    """The digits under `root`, written there first where they are not."""
    table = root / "labels.csv"
    if not table.exists():
        generate(root)
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    ids = [row["id"] for row in rows]
    return assemble(
        "digits",
        "classification",
        CLASSES,
        {"id": ids, "split": [row["split"] for row in rows], "label": [int(row["label"]) for row in rows]},
        {
            "text": [FileMedia(str(root / "texts" / f"{i}.txt")) for i in ids],
            "audio": [FileMedia(str(root / "audio" / f"{i}.wav")) for i in ids],
            "vision": [FileMedia(str(root / "images" / f"{i}.png")) for i in ids],
        },
        {"origin": "sklearn.datasets.load_digits", "generated": ["audio", "text"], "seed": SEED},
        NOTES,
    )


def generate(root: Path) -> None:
    """Write the dataset under `root`. `labels.csv` comes last, so that a broken-off run is begun again."""
    import soundfile
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    labels = digits.target.astype(int)
    splits = _stratified_splits(labels)
    for folder in ("images", "audio", "texts"):
        shutil.rmtree(root / folder, ignore_errors=True)
        (root / folder).mkdir(parents=True)
    for row, (pixels, label) in enumerate(zip(digits.images, labels, strict=True)):
        # One generator a sample and modality: changing how one is corrupted leaves the others' files as they are.
        rng_image, rng_tone, rng_text = (np.random.default_rng([SEED, row, m]) for m in range(3))
        name = f"{row:04d}"
        Image.fromarray(occluded(pixels, rng_image)).save(root / "images" / f"{name}.png")
        soundfile.write(root / "audio" / f"{name}.wav", tone(int(label), rng_tone), SAMPLE_RATE, subtype="PCM_16")
        (root / "texts" / f"{name}.txt").write_text(text(int(label), rng_text), encoding="utf-8")
    partial = root / "labels.csv.partial"
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "split", "label"])
        writer.writerows((f"{row:04d}", splits[row], label) for row, label in enumerate(labels))
    partial.rename(root / "labels.csv")


def _stratified_splits(labels: np.ndarray) -> np.ndarray:
    """70 % train, 10 % val, 20 % test, each with every class in proportion."""
    from sklearn.model_selection import train_test_split

    rows = np.arange(len(labels))
    rest, test = train_test_split(rows, test_size=0.2, random_state=SEED, stratify=labels)
    _, val = train_test_split(rest, test_size=0.125, random_state=SEED, stratify=labels[rest])
    splits = np.full(len(labels), "train", dtype=object)
    splits[val], splits[test] = "val", "test"
    return splits


def occluded(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A digit of (8, 8) values 0..16 as (56, 56) uint8, a rectangle of it covered by grey noise."""
    image = np.kron(pixels / 16.0, np.ones((7, 7)))
    height, width = rng.integers(30, 48, 2) if rng.random() < MOSTLY_HIDDEN else rng.integers(8, 24, 2)
    top, left = rng.integers(0, 57 - height), rng.integers(0, 57 - width)
    image[top : top + height, left : left + width] = rng.uniform(0, 1, (height, width))
    image += rng.normal(0, 0.12, image.shape)
    return np.asarray(np.clip(image, 0, 1) * 255, dtype=np.uint8)


def tone(digit: int, rng: np.random.Generator) -> np.ndarray:
    """1.2 s of the digit's DTMF tone at 16 kHz with drop-outs and noise; in some samples the noise alone."""
    time = np.arange(int(1.2 * SAMPLE_RATE)) / SAMPLE_RATE
    low, high = KEYPAD[digit]
    phase = rng.uniform(0, 2 * np.pi, 2)
    wave = np.sin(2 * np.pi * LOW_HZ[low] * time + phase[0]) + np.sin(2 * np.pi * HIGH_HZ[high] * time + phase[1])
    if rng.random() < SILENT:
        wave[:] = 0.0
    for _ in range(int(rng.integers(1, 4))):
        start = int(rng.integers(0, len(time)))
        wave[start : start + int(rng.uniform(0.1, 0.4) * SAMPLE_RATE)] = 0.0
    wave = 0.2 * wave + rng.normal(0, rng.uniform(0.05, 0.35), len(time))
    return np.asarray(np.clip(wave, -1, 1))


def text(digit: int, rng: np.random.Generator) -> str:
    """The digit's name with up to two typos; in some samples the name of another digit."""
    word = CLASSES[int(rng.integers(0, 10))] if rng.random() < WRONG_WORD else CLASSES[digit]
    letters = list(word)
    for _ in range(int(rng.integers(0, 3))):
        place = int(rng.integers(0, len(letters)))
        letters[place] = chr(ord("a") + int(rng.integers(0, 26)))
    return "".join(letters)
