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
    assert len(vision.identity.fields["digest"]) == 32


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


def test_importing_twice_finds_the_same_store(tmp_path: Path) -> None:
    given = arrays()
    for _ in range(2):
        import_arrays(tmp_path, "d", {"text": ArrayModality(given["vectors"])}, given["y"], given["part"])
    assert len(open_dataset(tmp_path, "d").stores) == 1
    import_arrays(tmp_path, "d", {"text": ArrayModality(given["vectors"] + 1)}, given["y"], given["part"])
    assert len(open_dataset(tmp_path, "d").stores) == 2


def test_other_lengths_of_the_same_array_are_another_store(tmp_path: Path) -> None:
    given = arrays()
    for sizes in (given["sizes"], np.full(N, 5)):
        import_arrays(tmp_path, "d", {"v": ArrayModality(given["tokens"], sizes)}, given["y"], given["part"])
    assert sorted(info.counts["missing"] for info in open_dataset(tmp_path, "d").stores) == [0, 1]


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
