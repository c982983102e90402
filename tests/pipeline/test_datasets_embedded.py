"""`digits` and `av_mnist`: what they say they are, and what they say when the raw data is not there."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from pgm.cache.errors import NotFound, UserError
from pgm.pipeline import Collection, load_dataset
from pgm.pipeline.datasets import digits as digits_module
from pgm.pipeline.media import ArrayMedia, FileMedia
from PIL import Image


def test_digits_are_1797_real_files_in_three_modalities(digits: Collection, digits_root: Path) -> None:
    assert len(digits) == 1797
    assert set(digits.media) == {"text", "audio", "vision"}
    for folder, pattern in (("images", "*.png"), ("audio", "*.wav"), ("texts", "*.txt")):
        assert len(list((digits_root / folder).glob(pattern))) == 1797
    with Image.open(digits_root / "images" / "0000.png") as image:
        assert image.size == (56, 56)
    assert any("generated" in note for note in digits.card.notes)
    assert any("real" in note for note in digits.card.notes)


def test_digits_splits_are_stratified(digits: Collection) -> None:
    assert digits.card.splits == {"train": 1257, "val": 180, "test": 360}
    labels = np.array(digits.samples["label"])
    splits = np.array(digits.samples["split"].to_pylist())
    for split in digits.card.splits:
        share = np.bincount(labels[splits == split], minlength=10) / (splits == split).sum()
        assert np.abs(share - np.bincount(labels) / len(labels)).max() < 0.01


def test_a_broken_off_generation_is_begun_again_and_gives_the_same_files(digits_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "broken off"
    (root / "texts").mkdir(parents=True)
    (root / "texts" / "0000.txt").write_text("half")
    (root / "texts" / "stray.txt").write_text("from an older version")
    assert len(load_dataset("digits", root)) == 1797
    assert not (root / "texts" / "stray.txt").exists()
    for name in ("labels.csv", "texts/0000.txt", "images/0003.png", "audio/0100.wav", "texts/1796.txt"):
        assert (root / name).read_bytes() == (digits_root / name).read_bytes()


def test_tones_hold_the_digits_two_dtmf_frequencies() -> None:
    """ITU-T Q.23: 7 is 852 + 1209 Hz. The first generator seed whose tone is not silenced shows both peaks."""
    for seed in range(20):
        wave = digits_module.tone(7, np.random.default_rng(seed))
        spectrum = np.abs(np.fft.rfft(wave))
        peaks = sorted(int(k) for k in np.argsort(spectrum)[-2:] * 16000 / len(wave))
        if all(abs(peak - hertz) < 10 for peak, hertz in zip(peaks, (852, 1209), strict=True)):
            return
    pytest.fail("no seed of twenty gave a tone with its two frequencies as the strongest")


def test_each_modality_is_corrupted(digits: Collection, digits_root: Path) -> None:
    names = [digits_module.CLASSES[label] for label in digits.samples["label"].to_pylist()]
    texts = [(digits_root / "texts" / f"{i}.txt").read_text() for i in digits.ids]
    right = sum(text == name for text, name in zip(texts, names, strict=True)) / len(names)
    assert 0.1 < right < 0.6
    levels = [
        np.abs(np.fft.rfft(soundfile.read(digits_root / "audio" / f"{i}.wav")[0])).max() for i in digits.ids[:100]
    ]
    assert max(levels) > 10 * min(levels)


def test_av_mnist_keeps_images_and_recordings_of_the_splits_apart(av_root: Path) -> None:
    pairs = load_dataset("av_mnist", av_root)
    assert pairs.card.splits == {"train": 108, "val": 12, "test": 20}
    indices: dict[str, set[int]] = {}
    rows = zip(pairs.samples.to_pylist(), pairs.media["vision"], pairs.media["audio"], strict=True)
    for sample, image, sound in rows:
        assert isinstance(image, ArrayMedia)
        assert isinstance(sound, FileMedia)
        assert image.key == ("x_test" if sample["split"] == "test" else "x_train")
        digit, _, index = Path(sound.path).stem.split("_")
        assert int(digit) == sample["label"]
        indices.setdefault(sample["split"], set()).add(int(index))
    assert indices["test"] <= {0, 1}
    assert indices["val"] <= {5, 6}
    assert indices["train"] <= {10, 11}


def test_av_mnist_pairs_the_same_way_every_time(av_root: Path) -> None:
    assert load_dataset("av_mnist", av_root).media == load_dataset("av_mnist", av_root).media


@pytest.mark.parametrize("missing", ["mnist", "fsdd"])
def test_half_a_root_names_what_was_looked_for(av_root: Path, tmp_path: Path, missing: str) -> None:
    shutil.copytree(av_root, tmp_path / "half")
    shutil.rmtree(tmp_path / "half" / missing)
    with pytest.raises(NotFound, match=rf"missing .*{missing}") as caught:
        load_dataset("av_mnist", tmp_path / "half")
    other = {"mnist": "fsdd", "fsdd": "mnist"}[missing]
    assert f"found    {tmp_path / 'half' / other}" in str(caught.value)


def test_av_mnist_without_its_files_says_where_they_were_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGM_DATA", str(tmp_path))
    with pytest.raises(UserError, match=r"were looked for in .*av_mnist"):
        load_dataset("av_mnist")


def test_real_av_mnist_has_the_published_counts(shared_data: Path) -> None:
    pairs = load_dataset("av_mnist", shared_data)
    assert pairs.card.splits == {"train": 55_000, "val": 5_000, "test": 10_000}


def test_a_typo_in_a_datasets_name_suggests_the_nearest() -> None:
    with pytest.raises(NotFound, match="Did you mean 'digits'"):
        load_dataset("digitz")


def test_a_limit_keeps_every_split_in_proportion_and_order(digits: Collection) -> None:
    few = digits.limited(200)
    assert few.card.splits == {"train": 140, "val": 20, "test": 40}
    assert few.ids == sorted(few.ids)
    assert few.ids == digits.limited(200).ids
    with pytest.raises(UserError, match="keeps no sample"):
        digits.limited(0)
