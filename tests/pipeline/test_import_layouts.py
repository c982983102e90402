"""Each published layout, fabricated with its traps, comes out of the cache value by value as it went in."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import typer
from pgm.cache import CachedDataset, open_dataset
from pgm.cache.dataset.verify import verify_dataset, verify_store
from pgm.cache.errors import NotFound, UserError
from pgm.pipeline.imports.commands import import_command
from scipy.io import savemat
from typer.testing import CliRunner

RNG = np.random.default_rng(0)
MELD = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")


def run(*arguments: object) -> Any:
    app = typer.Typer()
    app.command()(import_command)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None:
        raise result.exception
    return result


def imported(tmp_path: Path, name: str, *arguments: object) -> tuple[CachedDataset, dict[str, Any]]:
    """The dataset in the cache, checked byte by byte, and what --json said."""
    root = tmp_path / "features"
    said = json.loads(run(name, *arguments, "--features", root, "--json").stdout)
    dataset = open_dataset(root, name)
    for report in (
        verify_dataset(dataset.storage),
        *(verify_store(store.storage) for store in dataset.stores.values()),
    ):
        assert not report.problems
    return dataset, said


def frames(*shape: int) -> Any:
    """Frames none of which is zero."""
    return RNG.uniform(0.5, 2, shape).astype(np.float32)


def padded(samples: list[Any], longest: int, front: bool = False) -> Any:
    array = np.zeros((len(samples), longest, samples[0].shape[1]), np.float32)
    for row, sample in enumerate(samples):
        array[row, (longest - len(sample) if front else 0) :][: len(sample)] = sample
    return array


def same(dataset: CachedDataset, modality: str, samples: list[Any]) -> None:
    store = dataset.features(modality)
    assert len(store) == len(samples)
    for row, sample in enumerate(samples):
        assert np.array_equal(store[row], np.atleast_2d(sample).astype(np.float32)), (modality, row)


def column(dataset: CachedDataset, name: str) -> list[Any]:
    values: list[Any] = dataset.samples[name].to_pylist()
    return values


SIZES = {"train": [3, 1, 4], "valid": [2], "test": [5, 2]}


def mmsa(text_bert: bool = True, lengths: bool = True) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """An unaligned pickle and what its samples are."""
    value: dict[str, Any] = {}
    real: dict[str, list[Any]] = {"text": [], "audio": [], "vision": []}
    for number, (split, sizes) in enumerate(SIZES.items()):
        text = [frames(size, 4) for size in sizes]
        audio = [frames(size + 1, 2) for size in sizes]
        vision = [frames(size, 3) for size in sizes]
        for name, samples in (("text", text), ("audio", audio), ("vision", vision)):
            real[name] += samples
        part: dict[str, Any] = {
            "raw_text": np.array([f"é{row}" for row in range(len(sizes))]),
            # Another length in every split: S is read, never assumed.
            "audio": padded(audio, 7 + number),
            "vision": padded(vision, 6),
            "text": padded(text, 6),
            "id": [f"vid{number}$_${row}" for row in range(len(sizes))],
            "annotations": [("Negative", "Neutral", "Positive")[row % 3] for row in range(len(sizes))],
            "classification_labels": np.array([row % 3 for row in range(len(sizes))], np.float32),
            "regression_labels": np.array([row - 1.2 for row in range(len(sizes))], np.float32),
        }
        if text_bert:
            mask = np.arange(6) < np.array(sizes)[:, None]
            part["text_bert"] = np.stack([np.full(mask.shape, 101), mask, np.zeros(mask.shape)], axis=1)
            # What the mask covers is text, though BERT left something behind it.
            part["text"][~mask] = 9
        if lengths:
            audio[0][-1] = part["audio"][0, sizes[0]] = 0  # a silent frame, which only the lengths tell from padding
            part["audio_lengths"] = [size + 1 for size in sizes]
            part["vision_lengths"] = np.array(sizes)
        value[split] = part
    return value, real


def save(path: Path, value: Any) -> Path:
    path.write_bytes(pickle.dumps(value))
    return path


@pytest.mark.parametrize("text_bert", [True, False])
@pytest.mark.parametrize("lengths", [True, False])
def test_mmsa(tmp_path: Path, text_bert: bool, lengths: bool) -> None:
    value, real = mmsa(text_bert, lengths)
    value["train"]["audio"][0, 1, 0] = -np.inf
    value["test"]["audio"][1, 0, 1] = np.nan
    real["audio"][0] = np.array([real["audio"][0][0], [0, real["audio"][0][1, 1]], *real["audio"][0][2:]])
    real["audio"][5] = np.array([[real["audio"][5][0, 0], 0], *real["audio"][5][1:]])
    dataset, said = imported(tmp_path, "mosi", save(tmp_path / "unaligned_50.pkl", value))
    assert said["layout"] == "mmsa"
    assert said["splits"] == {"train": 3, "val": 1, "test": 2}
    assert dataset.card.task == "sentiment"
    assert column(dataset, "split") == ["train"] * 3 + ["val"] + ["test"] * 2
    assert column(dataset, "id") == ["vid0$_$0", "vid0$_$1", "vid0$_$2", "vid1$_$0", "vid2$_$0", "vid2$_$1"]
    assert column(dataset, "group") == ["vid0"] * 3 + ["vid1"] + ["vid2"] * 2
    labels = np.concatenate([value[split]["regression_labels"] for split in SIZES])
    assert column(dataset, "label") == labels.astype(float).tolist()
    for modality, samples in real.items():
        same(dataset, modality, samples)
    assert dataset.card.notes == ("audio: 2 values that were infinite or NaN are now 0.",)
    assert dataset.card.source["audio"]["padding"] == "back"
    assert dataset.features("audio").identity.fields["provenance"] == "imported"


def test_mmsa_front_padded_and_without_any_frame(tmp_path: Path) -> None:
    value, real = mmsa(text_bert=False, lengths=False)
    for part, start in zip(value.values(), (0, 3, 4), strict=True):
        part["vision"] = padded(real["vision"][start : start + len(part["id"])], 8, front=True)
    value["test"]["vision"][0] = 0
    real["vision"][4] = np.zeros((1, 3))
    dataset, said = imported(tmp_path, "mosei", save(tmp_path / "aligned_50.pkl", value), "--modality", "vision")
    assert list(said["modalities"]) == ["vision"]
    assert dataset.card.source["vision"]["padding"] == "front"
    same(dataset, "vision", real["vision"])


def test_mmsa_for_classification(tmp_path: Path) -> None:
    value, _ = mmsa()
    dataset, said = imported(tmp_path, "mosi", save(tmp_path / "a.pkl", value), "--task", "classification")
    assert dataset.card.classes == ("negative", "neutral", "positive")
    assert said["modalities"]["audio"]["padding"] == "back"
    assert column(dataset, "label") == [0, 1, 2, 0, 0, 1]
    value["test"]["annotations"][0] = "Positive"  # label 0, as "Negative" elsewhere: no names then
    dataset, _ = imported(tmp_path / "2", "mosi", save(tmp_path / "a.pkl", value), "--task", "classification")
    assert dataset.card.classes == ("0", "1", "2")


def test_mmsa_that_does_not_fit_is_said(tmp_path: Path) -> None:
    value, _ = mmsa()
    value["valid"].pop("id")
    with pytest.raises(UserError, match=r"The val part of a.pkl has no 'id'; it has raw_text, audio"):
        run("mosi", save(tmp_path / "a.pkl", value), "--features", tmp_path)
    value, _ = mmsa()
    value["test"]["audio"] = value["test"]["audio"][:, :, :1]
    with pytest.raises(UserError, match=r"audio of a\.pkl: One modality has frames of 1, 2 numbers"):
        run("mosi", save(tmp_path / "a.pkl", value), "--features", tmp_path)
    value, _ = mmsa()
    with pytest.raises(UserError, match="no 'smell' in every split; it has text, audio, vision"):
        run("mosi", save(tmp_path / "a.pkl", value), "--modality", "smell", "--features", tmp_path)
    assert not (tmp_path / "mosi").exists()


def test_importing_a_pickle_twice_finds_its_stores(tmp_path: Path) -> None:
    value, _ = mmsa()
    first, _ = imported(tmp_path, "mosi", save(tmp_path / "a.pkl", value))
    before = list(first.storage.entries())
    again, _ = imported(tmp_path, "mosi", tmp_path / "a.pkl")
    assert list(again.storage.entries()) == before, "not a file is new or touched"
    assert len(again.stores) == 3


@pytest.mark.parametrize("kind", ["S", "object", "repeated"])
def test_mult(tmp_path: Path, kind: str) -> None:
    value: dict[str, Any] = {}
    real: dict[str, list[Any]] = {"text": [], "audio": [], "vision": []}
    for number, (split, sizes) in enumerate(SIZES.items()):
        part: dict[str, Any] = {}
        for name, dim in (("text", 4), ("audio", 2), ("vision", 3)):
            samples = [frames(size, dim) for size in sizes]
            part[name] = padded(samples, 9, front=True).astype(np.float64)
            real[name] += samples
        name = f"v{number}" if kind == "repeated" else f"v{number}_{{}}"
        rows = [[name.format(row).encode(), f"{row}.0".encode(), f"{row}.5".encode()] for row in range(len(sizes))]
        part["id"] = np.array(rows, object if kind == "object" else "S20")
        part["labels"] = np.arange(len(sizes), dtype=np.float32).reshape(-1, 1, 1) - 0.5
        value[split] = part
    value["train"]["audio"][2, -1, 0] = -np.inf
    real["audio"][2][-1, 0] = 0
    dataset, said = imported(tmp_path, "mosi", save(tmp_path / "mosi_data_noalign.pkl", value))
    assert said["layout"] == "mult"
    for modality, samples in real.items():
        same(dataset, modality, samples)
        assert dataset.card.source[modality]["padding"] == "front"
    ids = ["v0_0", "v0_1", "v0_2", "v1_0", "v2_0", "v2_1"]
    if kind == "repeated":
        ids = [f"{name}.0_{name[-1]}.5" for name in ids]
    assert column(dataset, "id") == ids
    assert column(dataset, "group") == ["v0", "v0", "v0", "v1", "v2", "v2"]
    assert column(dataset, "label") == [-0.5, 0.5, 1.5, -0.5, -0.5, 0.5]
    assert "1 values that were infinite" in said["notes"][0]


def test_mult_with_several_labels_a_sample_is_refused(tmp_path: Path) -> None:
    part = {"text": frames(2, 3, 4), "labels": np.ones((2, 4, 2)), "id": np.arange(2)}
    with pytest.raises(UserError, match=r"Labels of shape \(2, 4, 2\) are several a sample"):
        run("iemocap", save(tmp_path / "a.pkl", {"train": part, "test": part}), "--features", tmp_path)


def mmgcn(dialogues: int = 20, train: int = 15) -> tuple[Any, ...]:
    sizes = {dialogue: 1 + dialogue % 3 for dialogue in range(dialogues)}
    vectors = [{d: [frames(dim) for _ in range(n)] for d, n in sizes.items()} for dim in (6, 3, 4)]
    return (
        {d: [2 * place for place in range(n)] for d, n in sizes.items()},  # MELD's utterance numbers have gaps
        {d: [np.eye(9)[0]] * n for d, n in sizes.items()},
        {d: [(d + place) % 7 for place in range(n)] for d, n in sizes.items()},
        *vectors,
        {d: ["hi"] * n for d, n in sizes.items()},
        list(range(train)),
        set(range(train, dialogues)),
        None,
    )


def test_mmgcn(tmp_path: Path) -> None:
    value = mmgcn()
    value[5][3] = []  # a dialogue without pictures
    dataset, said = imported(tmp_path, "meld", save(tmp_path / "MELD_features_raw1.pkl", value))
    assert (said["layout"], dataset.card.task, dataset.card.classes) == ("mmgcn", "emotion", MELD)
    where = [(d, place) for d in range(20) for place in range(1 + d % 3)]
    assert column(dataset, "id") == [f"dia{d}_utt{2 * place}" for d, place in where]
    assert column(dataset, "group") == [f"dia{d}" for d, _ in where]
    assert column(dataset, "label") == [(d + place) % 7 for d, place in where]
    assert column(dataset, "split") == ["test" if d >= 15 else "val" if d == 14 else "train" for d, _ in where]
    assert "the last 1 of the 15 in trainVid validate" in said["notes"][0]
    same(dataset, "text", [value[3][d][place] for d, place in where])
    same(dataset, "audio", [value[4][d][place] for d, place in where])
    vision = dataset.features("vision")
    for row, (d, place) in enumerate(where):
        if d == 3:
            assert vision.status[row] == "missing"
        else:
            assert np.array_equal(vision[row][0], value[5][d][place])


def test_mmgcn_holds_out_melds_own_number_of_dialogues(tmp_path: Path) -> None:
    value = mmgcn(1160, 1152)
    dataset, _ = imported(tmp_path, "meld", save(tmp_path / "m.pkl", value), "--modality", "text")
    held = {g for g, s in zip(column(dataset, "group"), column(dataset, "split"), strict=True) if s == "val"}
    assert held == {f"dia{d}" for d in range(1152 - 114, 1152)}


def test_mmgcn_with_a_dialogue_in_both_splits_warns(tmp_path: Path) -> None:
    value = list(mmgcn())
    value[8] = [14, 15]
    dataset, said = imported(tmp_path, "meld", save(tmp_path / "m.pkl", tuple(value)))
    assert "1 dialogues stand in trainVid and testVid" in said["warnings"][0]
    assert "4 dialogues stand in neither" in said["notes"][1]
    splits = dict(zip(column(dataset, "group"), column(dataset, "split"), strict=True))
    assert splits["dia14"] == "test"
    value[3][2] = value[3][2] * 2
    with pytest.raises(UserError, match=r"Dialogue 2 of m\.pkl has 3 labels and 6 text vectors"):
        run("meld", save(tmp_path / "m.pkl", tuple(value)), "--features", tmp_path)


def wikipedia(folder: Path, names: bool = True) -> dict[str, Any]:
    arrays = {"I_tr": frames(4, 5), "T_tr": frames(4, 2), "I_te": frames(2, 5), "T_te": frames(2, 2)}
    savemat(folder / "raw_features.mat", arrays)
    rows = [f"t{row}-{row}.1\ti{row}\t{category}" for row, category in enumerate((10, 1, 2, 2, 5, 10))]
    (folder / "trainset_txt_img_cat.list").write_text("\n".join(rows[:4]) + "\n")
    (folder / "testset_txt_img_cat.list").write_text("\r\n".join(rows[4:]) + "\r\n")
    if names:
        (folder / "categories.list").write_text("\n".join("abcdefghij"))
    return arrays


@pytest.mark.parametrize("names", [True, False])
def test_wikipedia(tmp_path: Path, names: bool) -> None:
    arrays = wikipedia(tmp_path, names)
    dataset, said = imported(tmp_path, "wikipedia", tmp_path / "raw_features.mat")
    assert (said["layout"], dataset.card.task) == ("wikipedia", "retrieval")
    assert dataset.card.classes[::9] == (("a", "j") if names else ("art", "warfare"))
    assert column(dataset, "id")[:2] == ["t0-0.1", "t1-1.1"]
    assert column(dataset, "label") == [9, 0, 1, 1, 4, 9]
    assert column(dataset, "split") == ["train"] * 4 + ["test"] * 2
    same(dataset, "vision", [*arrays["I_tr"], *arrays["I_te"]])
    same(dataset, "text", [*arrays["T_tr"], *arrays["T_te"]])


def test_wikipedia_needs_its_lists_and_they_must_fit(tmp_path: Path) -> None:
    wikipedia(tmp_path)
    listing = tmp_path / "testset_txt_img_cat.list"
    listing.write_text("t4\ti4\t11\n")
    with pytest.raises(UserError, match=r"Line 1 of testset_txt_img_cat.list is .* category of 1 to 10"):
        run("wikipedia", tmp_path / "raw_features.mat", "--features", tmp_path)
    listing.write_text("t4\ti4\t1\n")
    with pytest.raises(UserError, match=r"has 2 rows of vision and testset_txt_img_cat.list 1 lines"):
        run("wikipedia", tmp_path / "raw_features.mat", "--features", tmp_path)
    listing.unlink()
    with pytest.raises(NotFound, match=r"No file .*testset_txt_img_cat\.list.*same folder"):
        run("wikipedia", tmp_path / "raw_features.mat", "--features", tmp_path)


def mosi(path: Path) -> dict[str, Any]:
    arrays: dict[str, Any] = {
        "ids": np.array([f"v{row // 2}_{row}" for row in range(6)]),
        "video_id": np.array([f"v{row // 2}" for row in range(6)]),
        "transcript": np.array(["hi"] * 6, object),  # pickled, and not needed
        "label_binary": np.arange(6) % 2,
        "label_sentiment": np.linspace(-3, 3, 6),
        "split_standard": np.array(["train", "train", "val", "val", "test", "test"]),
        "split_bclstm": np.array(["test", "test", "train", "train", "train", "train"]),
        "text": frames(6, 4),
        "audio": frames(6, 3),
        "video": frames(6, 2),
    }
    np.savez(path, **arrays)
    return arrays


def test_mosi_takes_the_honest_split(tmp_path: Path) -> None:
    arrays = mosi(tmp_path / "mosi_utterance.npz")
    dataset, said = imported(tmp_path, "mosi", tmp_path / "mosi_utterance.npz")
    assert (said["layout"], said["warnings"]) == ("mosi", [])
    assert column(dataset, "split") == arrays["split_bclstm"].tolist()
    assert column(dataset, "label") == arrays["label_sentiment"].tolist()
    assert column(dataset, "group") == arrays["video_id"].tolist()
    for modality, key in (("text", "text"), ("audio", "audio"), ("vision", "video")):
        same(dataset, modality, list(arrays[key]))


def test_mosi_warns_of_the_split_that_leaks(tmp_path: Path) -> None:
    arrays = mosi(tmp_path / "m.npz")
    result = run("mosi", tmp_path / "m.npz", "--split-column", "split_standard", "--features", tmp_path)
    assert "warning: split_standard leaks labels" in result.stderr
    dataset = open_dataset(tmp_path, "mosi")
    assert column(dataset, "split") == arrays["split_standard"].tolist()
    assert "leaks labels" in dataset.card.notes[0]
    with pytest.raises(NotFound, match="Did you mean 'split_standard'"):
        run("mosi", tmp_path / "m.npz", "--split-column", "split_standart", "--features", tmp_path)


def test_mosi_for_classification(tmp_path: Path) -> None:
    mosi(tmp_path / "m.npz")
    dataset, _ = imported(tmp_path, "mosi", tmp_path / "m.npz", "--task", "classification")
    assert dataset.card.classes == ("negative", "positive")
    assert column(dataset, "label") == [0, 1] * 3


def test_mrl_in_one_file(tmp_path: Path) -> None:
    arrays = {
        f"{split}_{what}": frames(n, d)
        for split, n in (("train", 5), ("valid", 1), ("test", 2))
        for what, d in (("imgs_deep", 6), ("text", 3))
    }
    with h5py.File(tmp_path / "wiki.h5", "w") as file:
        for name, array in arrays.items():
            file[name] = array
        for split, labels in (("train", [1, 2, 3, 4, 9]), ("valid", [5]), ("test", [6, 7])):
            file[f"{split}_labels"] = np.array(labels)[:, None]
    dataset, said = imported(tmp_path, "wikipedia", tmp_path / "wiki.h5")
    assert said["layout"] == "crossmodal"
    assert dataset.card.classes[0] == "art"
    assert column(dataset, "label") == [0, 1, 2, 3, 8, 4, 5, 6]
    assert column(dataset, "split") == ["train"] * 5 + ["val"] + ["test"] * 2
    same(dataset, "vision", [row for split in ("train", "valid", "test") for row in arrays[f"{split}_imgs_deep"]])
    same(dataset, "text", [row for split in ("train", "valid", "test") for row in arrays[f"{split}_text"]])


def test_dscmr_in_many_files(tmp_path: Path) -> None:
    arrays = {"train_img": frames(3, 4), "train_txt": frames(3, 2), "train_img_lab": np.eye(3)}
    arrays |= {"test_img": frames(2, 4), "test_txt": frames(2, 2), "test_img_lab": np.eye(3)[1:]}
    for name, array in arrays.items():
        savemat(tmp_path / f"{name}.mat", {name: array})
    files = [tmp_path / f"{name}.mat" for name in arrays]
    dataset, _ = imported(tmp_path, "pascal", *files)
    assert dataset.card.task == "retrieval"
    assert column(dataset, "label") == [0, 1, 2, 1, 2]
    same(dataset, "vision", [*arrays["train_img"], *arrays["test_img"]])
    savemat(tmp_path / "test_txt.mat", {"test_txt": frames(1, 2)})
    with pytest.raises(UserError, match="text arrays have 3, 1 rows in train, test and the labels 3, 2"):
        run("pascal", *files, "--features", tmp_path)


def per_sample(folder: Path) -> dict[str, Any]:
    folder.mkdir()
    arrays = {"a": frames(3, 4), "b": frames(4), "d": np.zeros((0, 4), np.float32), "stray": frames(1, 4)}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    (folder / "._a.npy").write_bytes(b"left by a Mac")
    return arrays


def test_a_folder_of_samples(tmp_path: Path) -> None:
    arrays = per_sample(tmp_path / "clip-large-FRA")
    np.save(tmp_path / "clip-large-FRA" / "e.npy", frames(2, 4))
    (tmp_path / "l.csv").write_text("name,split,label\na,train,joy\nb,train,anger\nc,dev,joy\nd,test,joy\n")
    dataset, said = imported(
        tmp_path, "mer", tmp_path / "clip-large-FRA", "--labels", tmp_path / "l.csv", "--modality", "vision"
    )
    assert said["layout"] == "per_sample"
    assert dataset.card.classes == ("anger", "joy")
    assert column(dataset, "split") == ["train", "train", "val", "test"]
    store = dataset.features("vision")
    assert store.status.tolist() == ["ok", "ok", "missing", "missing"]
    assert np.array_equal(store[0], arrays["a"])
    assert np.array_equal(store[1], arrays["b"][None])
    assert said["notes"] == [
        "vision: 2 of 4 samples have no file or an empty one.",
        "vision: 2 files belong to no row of the table and were left out.",
    ]


def test_two_folders_are_two_modalities_and_a_split_is_drawn(tmp_path: Path) -> None:
    ids = [f"s{row}" for row in range(30)]
    for folder in ("text", "audio"):
        (tmp_path / folder).mkdir()
        for one in ids:
            np.save(tmp_path / folder / f"{one}.npy", frames(2, 3))
    lines = [f"{one},{row % 2},d{row % 6}" for row, one in enumerate(ids)]
    (tmp_path / "l.csv").write_text("\n".join(["id,label,dialogue", *lines]))
    dataset, said = imported(tmp_path, "x", tmp_path / "text", tmp_path / "audio", "--labels", tmp_path / "l.csv")
    assert sorted(said["modalities"]) == ["audio", "text"]
    assert "70/10/20 drawn by group" in said["notes"][0]
    by_group: dict[str, set[str]] = {}
    for group, split in zip(column(dataset, "group"), column(dataset, "split"), strict=True):
        by_group.setdefault(group, set()).add(split)
    assert all(len(splits) == 1 for splits in by_group.values())
    assert column(dataset, "label") == [row % 2 for row in range(30)]


def test_a_folder_says_what_it_lacks(tmp_path: Path) -> None:
    per_sample(tmp_path / "f")
    with pytest.raises(UserError, match=r"says nothing of labels.*--labels FILE\.csv"):
        run("x", tmp_path / "f", "--features", tmp_path)
    (tmp_path / "l.csv").write_text("id,label\nzz,1\n")
    with pytest.raises(NotFound, match=r"it has 4 \.npy files such as a\.npy, and the table's first id is 'zz'"):
        run("x", tmp_path / "f", "--labels", tmp_path / "l.csv", "--features", tmp_path)
    (tmp_path / "l.csv").write_text("id,emotional state\na,1\n")
    with pytest.raises(NotFound, match=r"no column for the label .* it has id, emotional state"):
        run("x", tmp_path / "f", "--labels", tmp_path / "l.csv", "--features", tmp_path)
    np.save(tmp_path / "f" / "a.npy", np.array([{}], object), allow_pickle=True)
    (tmp_path / "l.csv").write_text("id,label\na,1\n")
    with pytest.raises(UserError, match=r"a\.npy is not a readable \.npy of numbers: Object arrays cannot be loaded"):
        run("x", tmp_path / "f", "--labels", tmp_path / "l.csv", "--features", tmp_path)


def test_a_layout_that_does_not_fit_or_does_not_exist_is_said(tmp_path: Path) -> None:
    mosi(tmp_path / "m.npz")
    with pytest.raises(NotFound, match=r"no layout 'mmsaa'. Did you mean 'mmsa'\? Known: mmsa, mult, mmgcn, csd"):
        run("mosi", tmp_path / "m.npz", "--layout", "mmsaa", "--features", tmp_path)
    with pytest.raises(UserError, match=r"--layout mmsa .* does not fit: m\.npz holds ids \(6,\)"):
        run("mosi", tmp_path / "m.npz", "--layout", "mmsa", "--features", tmp_path)
    np.savez(tmp_path / "x.npz", a=np.ones((3, 2)))
    with pytest.raises(UserError, match=r"No known layout .* x\.npz holds a \(3, 2\) float64.*--tokens KEY"):
        run("x", tmp_path / "x.npz", "--features", tmp_path)
    with pytest.raises(UserError, match="--layout reads a known file, --tokens names arrays"):
        run("x", tmp_path / "x.npz", "--layout", "mmsa", "--modality", "t", "--tokens", "a", "--labels", "y")
    with pytest.raises(UserError, match="layout mosi says itself what --ids and --labels would"):
        run("mosi", tmp_path / "m.npz", "--ids", "ids", "--labels", "x", "--features", tmp_path)
    with pytest.raises(UserError, match=r"--task is one of .*Did you mean 'sentiment'"):
        run("mosi", tmp_path / "m.npz", "--task", "sentimint", "--features", tmp_path)
