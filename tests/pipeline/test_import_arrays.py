"""Arrays enter the cache with ids, splits, labels and lengths intact; what does not fit is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from pgm.cache import open_dataset
from pgm.cache.errors import NotFound, UserError
from pgm.pipeline.imports import ArrayModality, import_arrays
from pgm.pipeline.imports.commands import import_command
from typer.testing import CliRunner

N = 9


def arrays() -> dict[str, Any]:
    generator = np.random.default_rng(0)
    return {
        "vectors": generator.normal(size=(N, 4)) * 300,
        "tokens": generator.normal(size=(N, 5, 3)).astype(np.float32),
        "sizes": np.array([5, 1, 0, 2, 3, 5, 4, 1, 2]),
        "y": np.array(["cat", "dog", "cat"] * 3),
        "part": np.array(["train"] * 5 + ["valid"] * 2 + ["test"] * 2),
        "names": np.array([f"clip{i}" for i in range(N)]),
        "video": np.arange(N) // 3,
    }


def run(*arguments: object) -> Any:
    app = typer.Typer()
    app.command()(import_command)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None:
        raise result.exception
    return result


def test_an_npz_enters_whole(tmp_path: Path) -> None:
    given = arrays()
    np.savez(tmp_path / "mine.npz", **given)
    options = ["--modality", "vision", "--tokens", "tokens", "--modality", "text", "--tokens", "vectors"]
    options += ["--lengths", "vision=sizes", "--labels", "y", "--split", "part", "--ids", "names", "--group", "video"]
    run("mydata", tmp_path / "mine.npz", *options, "--features", tmp_path / "features")
    dataset = open_dataset(tmp_path / "features", "mydata")
    assert dataset.card.classes == ("cat", "dog")
    assert dataset.samples["id"].to_pylist() == given["names"].tolist()
    assert dataset.samples["split"].to_pylist() == ["train"] * 5 + ["val"] * 2 + ["test"] * 2
    assert dataset.samples["label"].to_pylist() == [0, 1, 0] * 3
    assert dataset.samples["group"].to_pylist() == [str(v) for v in given["video"]]
    vision, text = dataset.features("vision"), dataset.features("text")
    assert vision.status[2] == "missing"
    for row in range(N):
        assert np.array_equal(text[row], given["vectors"][row : row + 1].astype(np.float32))
        if row != 2:
            assert np.array_equal(vision[row], given["tokens"][row, : given["sizes"][row]])
    assert vision.identity.fields["provenance"] == "imported"
    assert vision.identity.fields["file"] == "mine.npz"
    assert len(dataset.card.source["vision"]["digest"]) == 32
    assert vision.index.source[[0, 1, 3]].any(axis=1).all()


def test_stacked_train_and_test_arrays_need_no_split(tmp_path: Path) -> None:
    given = arrays()
    np.savez(tmp_path / "x.npz", a=given["vectors"][:6], b=given["vectors"][6:], y=np.arange(N) % 2)
    run("d", tmp_path / "x.npz", "--modality", "text", "--tokens", "a,b", "--labels", "y", "--features", tmp_path)
    dataset = open_dataset(tmp_path, "d")
    assert dataset.samples["split"].to_pylist() == ["train"] * 6 + ["test"] * 3
    assert np.array_equal(dataset.features("text")[7][0], given["vectors"][7].astype(np.float32))


def test_a_missing_split_is_made_and_said(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.ones((50, 2)), y=np.arange(50) % 2)
    result = run("d", tmp_path / "x.npz", "--modality", "t", "--tokens", "a", "--labels", "y", "--features", tmp_path)
    assert "No split was given" in result.stderr
    dataset = open_dataset(tmp_path, "d")
    assert dataset.card.splits == {"train": 35, "val": 5, "test": 10}
    assert "No split was given" in dataset.card.notes[0]


def test_importing_twice_commits_nothing_the_second_time(tmp_path: Path) -> None:
    given = arrays()
    first, second = (
        import_arrays(tmp_path, "d", {"text": ArrayModality(given["vectors"])}, given["y"], given["part"])
        for _ in range(2)
    )
    assert first.version == second.version
    assert first.features("text").version.number == second.features("text").version.number == 1


def test_changed_rows_alone_are_written_and_the_version_of_before_can_still_be_opened(tmp_path: Path) -> None:
    given = arrays()
    before = import_arrays(tmp_path, "d", {"text": ArrayModality(given["vectors"])}, given["y"], given["part"])
    changed = given["vectors"].copy()
    changed[4] += 1
    after = import_arrays(tmp_path, "d", {"text": ArrayModality(changed)}, given["y"], given["part"])
    new, old = after.features("text"), before.features("text")
    assert len(new.version.segments) == 2
    assert new.version.written["segments"] == 1
    assert np.flatnonzero(new.checksums != old.checksums).tolist() == [4]
    assert np.array_equal(new[4][0], changed[4].astype(np.float32))
    assert np.array_equal(old[4][0], given["vectors"][4].astype(np.float32))


def test_other_lengths_of_the_same_array_are_another_version(tmp_path: Path) -> None:
    given = arrays()
    for sizes in (given["sizes"], np.full(N, 5)):
        dataset = import_arrays(tmp_path, "d", {"v": ArrayModality(given["tokens"], sizes)}, given["y"], given["part"])
    store = dataset.features("v")
    assert store.version.number == 2
    assert store.lengths.tolist() == [5] * N
    first = open_dataset(tmp_path, "d", 1).features("v")
    assert first.lengths.tolist() == given["sizes"].tolist()


def many(rows: int) -> dict[str, Any]:
    generator = np.random.default_rng(1)
    return {"tokens": generator.normal(size=(rows, 4, 64)).astype(np.float16), "y": np.arange(rows) % 2}


def test_an_array_that_grew_by_a_tenth_writes_a_tenth_and_equals_one_imported_whole(tmp_path: Path) -> None:
    given = many(2200)
    part = ["train", "test"] * 1100
    grown = [
        import_arrays(tmp_path, "d", {"v": ArrayModality(given["tokens"][:rows])}, given["y"][:rows], part[:rows])
        for rows in (2000, 2200)
    ][1].features("v")
    whole = import_arrays(tmp_path / "whole", "d", {"v": ArrayModality(given["tokens"])}, given["y"], part).features(
        "v"
    )
    assert grown.content == whole.content
    assert grown.version.written["bytes"] < 0.12 * sum(
        store.version.written["bytes"] for store in (open_dataset(tmp_path, "d", 1).features("v"), grown)
    )


@pytest.mark.parametrize(
    ("source", "store", "kept"),
    [
        ("float16", None, "float16"),
        ("float32", None, "float32"),
        ("float64", None, "float32"),
        ("int16", None, "float32"),
        ("float32", "float16", "float16"),
        ("float32", "int8", "int8"),
    ],
)
def test_the_type_of_the_file_is_kept_unless_another_is_asked_for(
    tmp_path: Path, source: str, store: str | None, kept: str
) -> None:
    values = (np.random.default_rng(0).normal(size=(N, 3, 8)) * 100).astype(source)
    np.savez(tmp_path / "x.npz", a=values, y=np.arange(N) % 2)
    options = ["--store", store] if store else []
    run("d", tmp_path / "x.npz", "--modality", "v", "--tokens", "a", "--labels", "y", "--features", tmp_path, *options)
    found = open_dataset(tmp_path, "d").features("v")
    assert found.store.stored == kept
    assert found.identity.fields["stored_dtype"] == kept
    tolerance = 1.0 if kept == "int8" else 0.1 if kept == "float16" != source else 0.0
    np.testing.assert_allclose(found[3].astype(np.float64), values[3].astype(np.float64), atol=tolerance)


def test_what_a_type_cannot_hold_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    given = arrays()
    array = {"text": ArrayModality(given["vectors"] * 1000)}
    with pytest.raises(UserError, match=r"float16 has numbers up to 65504\. Use --store float32"):
        import_arrays(tmp_path, "d", array, given["y"], given["part"], store="float16")
    assert not (tmp_path / "d").exists()


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.array([{"no": 1}, None], dtype=object), y=np.arange(2))
    with pytest.raises(UserError, match="pickled objects, which are never loaded"):
        run("d", tmp_path / "x.npz", "--modality", "t", "--tokens", "a", "--labels", "y", "--features", tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": np.ones((N - 1, 2))}, rf"expected numbers of shape \({N}, D\)"),
        ({"tokens": np.ones(N)}, "expected numbers of shape"),
        ({"lengths": np.full(N, 9)}, "from 0 to 5"),
        ({"split": ["train"] * 8 + ["holdout"]}, "has split 'holdout'; use train, val or test"),
        ({"split": ["train"] * 8}, "they must be as many"),
        ({"labels": np.linspace(0, 1, N)}, "is this --task sentiment"),
        ({"classes": ["cat", "cow"]}, "Label 'dog' is none of the classes cat, cow"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    given = arrays()
    array = ArrayModality(change.get("tokens", given["tokens"]), change.get("lengths"))
    labels, split = change.get("labels", given["y"]), change.get("split", given["part"])
    with pytest.raises(UserError, match=message):
        import_arrays(tmp_path, "d", {"text": array}, labels, split, classes=change.get("classes"))
    assert not (tmp_path / "d").exists()


def test_unknown_keys_and_files_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.ones((4, 2)), y=np.arange(4))
    with pytest.raises(NotFound, match=r"has no array 'b'; it has a \(4, 2\) float64, y"):
        run("d", tmp_path / "x.npz", "--modality", "t", "--tokens", "b", "--labels", "y", "--features", tmp_path)
    with pytest.raises(NotFound, match="No file"):
        run("d", tmp_path / "none.npz", "--modality", "t", "--tokens", "b", "--labels", "y", "--features", tmp_path)
