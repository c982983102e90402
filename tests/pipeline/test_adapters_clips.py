"""Clips and dialogues in published layouts, with the traps of each: MOSI, MELD, CREMA-D, IEMOCAP."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import av
import h5py
import numpy as np
import pytest
import soundfile
from pgm.cache import CachedDataset
from pgm.cache.errors import NotFound, UserError
from pgm.pipeline import Collection, EncoderSpec, ExtractOptions, extract, load_dataset
from pgm.pipeline.datasets.mosi_sdk import standard_fold
from pgm.pipeline.decode import decode_frames
from pgm.pipeline.media import FileMedia

Encoded = Callable[[Collection], CachedDataset]


def clip(path: Path, frames: int = 4, rate: int = 10, codec: str = "libx264") -> Path:
    """A video of 32x32 frames growing brighter, with a sound track of the same length."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        picture = container.add_stream(codec, rate=rate)
        picture.width = picture.height = 32
        picture.pix_fmt = "yuv420p"
        sound = container.add_stream("aac" if codec == "libx264" else "mp3", rate=22_050)
        for number in range(frames):
            pixels = np.full((32, 32, 3), 255 * number // max(frames - 1, 1), np.uint8)
            container.mux(picture.encode(av.VideoFrame.from_ndarray(pixels)))
        container.mux(picture.encode(None))
        wave = 0.1 * np.sin(np.arange(22_050 * frames // rate) / 9).astype(np.float32)
        samples = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
        samples.sample_rate = 22_050
        container.mux(sound.encode(samples))
        container.mux(sound.encode(None))
    return path


def wav(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.sin(np.arange(4000) / 7), 16_000)
    return path


def table(path: Path, rows: list[dict[str, object]], delimiter: str = ",") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def statuses(dataset: CachedDataset, modality: str) -> dict[str, str]:
    return dict(zip(dataset.samples["id"].to_pylist(), map(str, dataset.features(modality).status), strict=True))


def column(dataset: CachedDataset, name: str) -> dict[str, object]:
    return dict(zip(dataset.samples["id"].to_pylist(), dataset.samples[name].to_pylist(), strict=True))


MOSI = [
    ("-3g5yACwYnA", "1", "train", 2.4), ("-3g5yACwYnA", "10", "train", -0.6), ("00123", "2", "train", 0.0),
    ("00123", "3", "valid", -3.0), ("zz", "1", "test", 3.0), ("zz", "2", "test", 1.2),
]  # fmt: skip


@pytest.fixture
def mmsa(tmp_path: Path) -> Path:
    """Columns in the order of no release, ids that look like numbers, one clip missing, one corrupt."""
    root = tmp_path / "data" / "MOSI"
    rows: list[dict[str, object]] = [
        {"annotation": "Neutral", "mode": mode, "label_T": 1, "text": f'SO "{n}", 007', "label": label, "label_A": 0,
         "clip_id": n, "label_V": 0, "video_id": video}
        for video, n, mode, label in MOSI
    ]  # fmt: skip
    table(root / "label.csv", rows)
    (root / "label.csv").write_bytes(b"\xef\xbb\xbf" + (root / "label.csv").read_bytes())
    for video, n, *_ in MOSI:
        clip(root / "Raw" / video / f"{n}.mp4")
    (root / "Raw" / "00123" / "2.mp4").unlink()
    (root / "Raw" / "zz" / "2.mp4").write_bytes(b"\0" * 500)
    (root / "Raw" / "zz" / "._1.mp4").write_bytes(b"macOS")
    return root


def test_mosi_in_mmsas_layout(mmsa: Path, encoded: Encoded) -> None:
    collection = load_dataset("mosi", mmsa.parent)
    assert collection.ids == [f"{video}_{n}" for video, n, *_ in MOSI]
    assert "1,284 published" in collection.warnings[0]
    dataset = encoded(collection)
    assert (dataset.card.task, dataset.card.classes) == ("sentiment", ())
    assert dataset.card.splits == {"train": 3, "val": 1, "test": 2}
    assert np.allclose(list(column(dataset, "label").values()), [label for *_, label in MOSI])
    assert column(dataset, "group")["00123_2"] == "00123"
    for modality in ("audio", "vision"):
        found = statuses(dataset, modality)
        assert found["00123_2"] == "missing"
        assert found["zz_2"] == "failed"
        assert list(found.values()).count("ok") == 4
    assert set(statuses(dataset, "text").values()) == {"ok"}
    assert "1 utterance has no video clip." in dataset.card.notes


def test_mosi_says_what_is_wrong_with_its_table(mmsa: Path, tmp_path: Path) -> None:
    text = (mmsa / "label.csv").read_text()
    (mmsa / "label.csv").write_text(text.replace("-3.0", "-30"))
    with pytest.raises(UserError, match=r"Clip 00123_3 has the label -30.0; MOSI's run from -3 to 3"):
        load_dataset("mosi", mmsa)
    (mmsa / "label.csv").write_text(text.replace("-3.0", "none"))
    with pytest.raises(UserError, match=r"label.csv, line 5, label holds 'none'"):
        load_dataset("mosi", mmsa)
    (mmsa / "label.csv").write_text(text.replace("mode", "fold"))
    with pytest.raises(NotFound, match=r"has no column 'mode'; it has .*fold"):
        load_dataset("mosi", mmsa)
    with pytest.raises(NotFound, match=r"missing  label.csv \(MMSA\), or Raw/Transcript/Segmented"):
        load_dataset("mosi", tmp_path)
    with pytest.raises(NotFound, match="no such folder"):
        load_dataset("mosi", tmp_path / "nowhere")


def sdk(root: Path, videos: int) -> list[str]:
    """Two segments a video, in the SDK's folders; the first video's second segment has no media."""
    names = [f"v_{v}" for v in range(videos)]
    for name in names:
        path = root / "Raw" / "Transcript" / "Segmented" / f"{name}.annotprocessed"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"1_DELIM_IT\x92S GOOD\n2_DELIM_OR NOT\n")
        for n in (1, 2):
            if (name, n) != ("v_0", 2):
                clip(root / "Raw" / "Video" / "Segmented" / f"{name}_{n}.mp4")
                wav(root / "Raw" / "Audio" / "WAV_16000" / "Segmented" / f"{name}_{n}.wav")
    return names


def test_mosi_in_the_sdks_layout_with_a_table(tmp_path: Path, encoded: Encoded) -> None:
    names = sdk(tmp_path / "sdk", 3)
    rows: list[dict[str, object]] = [
        {"id": f"{name}_{n}", "split": split, "label": n - 1.5}
        for name, split in zip(names, ("train", "valid", "test"), strict=True)
        for n in (1, 2)
    ]
    table(tmp_path / "sdk" / "mosi.tsv", rows, "\t")
    dataset = encoded(load_dataset("mosi", tmp_path / "sdk"))
    assert dataset.samples["id"].to_pylist() == [row["id"] for row in rows]
    assert dataset.card.splits == {"train": 2, "val": 2, "test": 2}
    assert statuses(dataset, "vision")["v_0_2"] == statuses(dataset, "audio")["v_0_2"] == "missing"
    assert set(statuses(dataset, "text").values()) == {"ok"}


def test_mosi_in_the_sdks_layout_with_its_csd(tmp_path: Path) -> None:
    names = sdk(tmp_path / "sdk", 5)
    with h5py.File(tmp_path / "sdk" / "CMU_MOSI_Opinion_Labels.csd", "w") as file:
        for place, name in enumerate(names):
            file[f"Opinion Segment Labels/data/{name}/features"] = np.array([[place / 2], [-place / 2]])
            file[f"Opinion Segment Labels/data/{name}/intervals"] = np.zeros((2, 2))
    collection = load_dataset("mosi", tmp_path / "sdk")
    samples = {row["id"]: row for row in collection.samples.to_pylist()}
    assert samples["v_3_1"]["label"] == 1.5
    assert samples["v_3_2"]["label"] == -1.5
    assert len({(row["group"], row["split"]) for row in samples.values()}) == 5
    assert any("not the standard folds" in note for note in collection.card.notes)
    with h5py.File(tmp_path / "sdk" / "CMU_MOSI_Opinion_Labels.csd", "a") as file:
        for name in ("WKA5OygbEKI", "c7UH_rxdZv4"):
            file[f"Opinion Segment Labels/data/{name}/features"] = np.zeros((1, 1))
    folds = load_dataset("mosi", tmp_path / "sdk")
    assert folds.card.splits == {"train": 10, "val": 1, "test": 1}
    assert not any("drawn" in note for note in folds.card.notes)
    (tmp_path / "sdk" / "CMU_MOSI_Opinion_Labels.csd").write_bytes(b"no HDF5")
    with pytest.raises(UserError, match="no computational sequence"):
        load_dataset("mosi", tmp_path / "sdk")


def test_the_sdks_standard_folds_are_those_of_the_published_features(shared_data: Path) -> None:
    with np.load(shared_data / "mosi" / "mosi_utterance.npz") as arrays:
        published = dict(zip(arrays["video_id"].tolist(), arrays["split_standard"].tolist(), strict=True))
    assert {video: standard_fold(video) for video in published} == published
    assert [list(published.values()).count(split) for split in ("train", "val", "test")] == [52, 10, 31]


FOLDERS = {"train": "train/train_splits", "dev": "dev/dev_splits_complete", "test": "test/output_repeated_splits_test"}


@pytest.fixture
def meld(tmp_path: Path) -> Path:
    """Each split with dialogue 0 of utterances 0 and 2 (a gap) and 11, in this wrong order, and dialogue 10."""
    root = tmp_path / "MELD.Raw"
    for half, folder in FOLDERS.items():
        places = [(10, 0), (0, 11), (0, 0), (0, 2)]
        rows: list[dict[str, object]] = [
            {"Sr No.": n, "Utterance": "You\u2019ve, \u0092well\u0092", "Speaker": "Ross",
             "Emotion": "joy" if u else "Anger", "Sentiment": "positive" if u else "Negative",
             "Dialogue_ID": d, "Utterance_ID": u}
            for n, (d, u) in enumerate(places)
        ]  # fmt: skip
        table(root / (f"train/{half}_sent_emo.csv" if half == "train" else f"{half}_sent_emo.csv"), rows)
        for d, u in places:
            clip(root / folder / f"dia{d}_utt{u}.mp4")
    (root / FOLDERS["dev"] / "dia0_utt2.mp4").unlink()
    (root / FOLDERS["train"] / "dia10_utt0.mp4").write_bytes(b"\0" * 2000)
    clip(root / FOLDERS["train"] / "dia0_utt11.mp4", frames=80, rate=2)
    clip(root / FOLDERS["test"] / "dia7_utt1.mp4")
    clip(root / FOLDERS["test"] / "final_videos_testdia0_utt0.mp4")
    (root / FOLDERS["test"] / "._dia0_utt0.mp4").write_bytes(b"macOS")
    return root


def test_meld(meld: Path, encoded: Encoded) -> None:
    collection = load_dataset("meld", meld.parent)
    texts = [getattr(media, "text", None) for media in collection.media["text"]]
    assert set(texts) == {"You\u2019ve, \u2019well\u2019"}
    dataset = encoded(collection)
    names = [f"dia{d}_utt{u}" for d, u in ((0, 0), (0, 2), (0, 11), (10, 0))]
    assert dataset.samples["id"].to_pylist() == [f"{s}_{name}" for s in ("train", "val", "test") for name in names]
    assert dataset.card.splits == {"train": 4, "val": 4, "test": 4}
    assert dataset.card.classes[4:] == ("joy", "disgust", "anger")
    assert dataset.samples["label"].to_pylist() == [6, 4, 4, 6] * 3
    assert dataset.samples["sentiment"].to_pylist() == [-1, 1, 1, -1] * 3
    assert set(column(dataset, "group").values()) == {f"{s}_dia{d}" for s in ("train", "val", "test") for d in (0, 10)}
    for modality in ("audio", "vision"):
        found = statuses(dataset, modality)
        assert found["val_dia0_utt2"] == "missing"
        assert found["train_dia10_utt0"] == "failed"
        assert list(found.values()).count("ok") == 10
    notes = " ".join(dataset.card.notes)
    for said in ("ids begin with the split", "1 utterance has no clip", "2 clips belong to no utterance", "first 30 s"):
        assert said in notes


def test_only_the_beginning_of_an_overlong_clip_is_used(meld: Path, tmp_path: Path) -> None:
    long = meld / FOLDERS["train"] / "dia0_utt11.mp4"
    shades = [np.asarray(f).mean() for f in decode_frames(long.read_bytes(), 4)]
    begun = [np.asarray(f).mean() for f in decode_frames(long.read_bytes(), 4, seconds=30)]
    assert np.allclose(begun, np.array(shades) * 30 / 40, atol=6)
    assert FileMedia(str(long), 30.0).digest() != FileMedia(str(long)).digest()
    collection = load_dataset("meld", meld).only(["vision"])
    options = ExtractOptions({"vision": EncoderSpec("vision", frames=2)}, executor="serial", max_failures=1.0)
    [finished] = extract(collection, tmp_path / "two frames", options)
    assert (finished.failed, finished.missing) == (1, 1)


def test_melds_tables_alone_give_the_text_alone(shared_data: Path, encoded: Encoded) -> None:
    collection = load_dataset("meld", shared_data / "meld")
    assert collection.card.splits == {"train": 9_989, "val": 1_109, "test": 2_610}
    assert collection.warnings == ("Nothing of audio and vision was found under the root: the dataset has text alone.",)
    labels, splits = np.array(collection.samples["label"]), np.array(collection.samples["split"].to_pylist())
    assert np.bincount(labels[splits == "train"]).tolist() == [4710, 1205, 268, 683, 1743, 271, 1109]
    assert np.bincount(labels[splits == "test"]).tolist() == [1256, 281, 50, 208, 402, 68, 345]
    assert len(set(collection.samples["group"].to_pylist())) == 1038 + 114 + 280
    dataset = encoded(collection.limited(60))
    assert set(statuses(dataset, "text").values()) == {"ok"}
    assert dataset.card.splits == {"train": 44, "val": 5, "test": 11}


def test_crema_d(tmp_path: Path, encoded: Encoded) -> None:
    root = tmp_path / "CREMA-D"
    codes = ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")
    train = [f"{actor}_DFA_{code}_XX" for actor in range(1001, 1005) for code in codes]
    test = ["1001_IEO_ANG_HI", "1009_IEO_NEU_LO"]
    for name, clips in (("train.csv", train), ("test.csv", test)):
        root.mkdir(exist_ok=True)
        (root / name).write_text("".join(f"{c},{c.split('_')[2]}\n" for c in clips))
        for c in clips:
            wav(root / "AudioWAV" / f"{c}.wav")
            clip(root / "VideoFlash" / f"{c}.flv", codec="flv", frames=2)
    (root / "AudioWAV" / f"{train[0]}.wav").unlink()
    (root / "VideoFlash" / f"{train[1]}.flv").unlink()
    (root / "VideoFlash" / f"{train[2]}.flv").rename(root / "VideoFlash" / f"{train[2]}.mp4")
    soundfile.write(root / "AudioWAV" / f"{train[3]}.wav", np.zeros(0), 16_000)
    dataset = encoded(load_dataset("crema_d", tmp_path))
    assert dataset.samples["id"].to_pylist() == train + test
    assert dataset.samples["label"].to_pylist() == [*range(6)] * 4 + [5, 0]
    assert dataset.card.splits == {"train": 18, "val": 6, "test": 2}
    actors = {
        (group, split) for group, split in zip(*(column(dataset, c).values() for c in ("group", "split")), strict=True)
    }
    assert len([1 for group, split in actors if split == "val"]) == 1
    assert len([1 for group, split in actors if split == "train"]) == 3
    audio, vision = statuses(dataset, "audio"), statuses(dataset, "vision")
    assert (audio[train[0]], audio[train[3]], vision[train[1]], vision[train[2]]) == (
        "missing", "failed", "missing", "ok",
    )  # fmt: skip
    assert any("is both in train and in test" in note or "are both in train" in note for note in dataset.card.notes)
    (root / "test.csv").write_text("1001_IEO_ANG_HI,MAD\n")
    with pytest.raises(UserError, match=r"test.csv, line 1 holds 'MAD'; known are NEU, HAP"):
        load_dataset("crema_d", root)


def test_iemocap(tmp_path: Path, encoded: Encoded) -> None:
    root = tmp_path / "IEMOCAP_full_release"
    emotions = ("neu", "exc", "hap", "sad", "ang", "xxx", "fru")
    for session in range(1, 6):
        for dialogue in (f"Ses0{session}F_impro01", f"Ses0{session}M_script01_1"):
            folder = root / f"Session{session}"
            evaluated, spoken = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""], []
            for place, code in enumerate(emotions):
                name = f"{dialogue}_{'FM'[place % 2]}{place:03d}"
                # As in the corpus, not in the order of time; the annotators' own lines below.
                evaluated[2:2] = [
                    f"[{place}.2901 - {place}.9]\t{name}\t{code}\t[2.5, 2.5, 2.5]",
                    "C-E2:\tNeutral;\t()",
                    "A-E3:\tval 3; act 2; dom  2;\t()",
                ]
                spoken.append(f"{name} [00{place}.2901-00{place}.9000]: Excuse me [LAUGHTER]: you.")
                wav(folder / "sentences" / "wav" / dialogue / f"{name}.wav")
            for sub, lines in (("EmoEvaluation", evaluated), ("transcriptions", [*spoken, "M: (noise)"])):
                path = folder / "dialog" / sub / f"{dialogue}.txt"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("\n".join(lines))
                path.with_name(f"._{dialogue}.txt").write_bytes(b"\0macOS")
    gone = "Ses02F_impro01_F000"
    (root / "Session2" / "sentences" / "wav" / "Ses02F_impro01" / f"{gone}.wav").unlink()
    (root / "Session3" / "dialog" / "transcriptions" / "Ses03F_impro01.txt").write_text("")
    collection = load_dataset("iemocap", tmp_path)
    assert "1,241 published" in collection.warnings[0]
    assert collection.media["text"][0].text == "Excuse me [LAUGHTER]: you."  # type: ignore[union-attr]
    dataset = encoded(collection)
    assert len(dataset.samples) == 5 * 2 * 5
    assert dataset.samples["label"].to_pylist()[:5] == [0, 1, 1, 2, 3]
    assert dataset.card.splits == {"train": 35, "val": 5, "test": 10}
    splits, groups = column(dataset, "split"), column(dataset, "group")
    assert {groups[s] for s, split in splits.items() if split == "test"} == {"Ses05F_impro01", "Ses05M_script01_1"}
    assert len({groups[s] for s, split in splits.items() if split == "val"}) == 1
    assert column(dataset, "speaker")[gone] == "Ses02F"
    assert statuses(dataset, "audio")[gone] == "missing"
    assert statuses(dataset, "text")["Ses03F_impro01_M001"] == "missing"
    assert "20 utterances of other emotions are left out." in dataset.card.notes
    (root / "Session4" / "dialog").rename(root / "Session4" / "elsewhere")
    with pytest.raises(NotFound, match=r"missing  Session4/dialog/EmoEvaluation/Ses\*\.txt  \(needed\)"):
        load_dataset("iemocap", root)
