"""What docs/formats.md says of the bytes holds: its code runs, its reader without PgM agrees, its digests come out."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from pgm.cache import Identity, open_dataset

from .conftest import Made, make_store, published

PAGE = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
LENGTHS = [3, 6, 0, 9, 2, 7, 5, 4]
FORMATS = pytest.mark.parametrize("format", ["zarr", "hdf5"])


@pytest.fixture
def made(tmp_path: Path, format: str) -> Made:
    made = make_store(tmp_path / "features" / "digits", LENGTHS, failures={1: "cut off"}, format=format)
    published(made)
    return made


@FORMATS
def test_its_reader_without_pgm_agrees_with_ours(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    [_, plain] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert "pgm" not in plain
    known: dict[str, Any] = {}
    exec(compile(plain, "docs/formats.md", "exec"), known)
    assert known["samples"]["id"].to_pylist() == made.ids
    assert known["index"]["status"].tolist() == [0, 1, 2, 0, 0, 0, 0, 0]
    for row in np.flatnonzero(known["index"]["status"] == 0).tolist():
        assert np.array_equal(known["sample"](row), made.oracle[row])


@pytest.mark.parametrize("format", ["zarr"])
def test_its_use_of_pgm_runs(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    [use, _] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    use = use.replace("text--tiny-t5--1e06431e", made.store.identity.folder)
    known: dict[str, Any] = {}
    exec(compile(use, "docs/formats.md", "exec"), known)
    assert np.array_equal(known["same"][5], made.oracle[5])
    assert known["mask"].sum(axis=1).tolist() == [7, 3, 4]


@FORMATS
def test_names_and_digests_are_made_as_it_says(made: Made) -> None:
    identity = hashlib.sha256(canonical(made.store.identity)).hexdigest()
    assert made.path.name == f"text--t5-base--{identity[:8]}"
    sources = [f"{row // 2 + 1:032x}" for row in range(8)]
    there = [row for row in range(8) if row != 2]
    for number, name in enumerate(made.features.version.segments):
        hasher = hashlib.sha256(f"{identity} 0\n".encode())
        for row in there[4 * number : 4 * number + 4]:
            hasher.update(f"{len(made.ids[row])} {made.ids[row]} {sources[row]}\n".encode())
        place = made.path / "segments" / name
        files = (
            {"": place} if place.is_file() else {str(p.relative_to(place)): p for p in place.rglob("*") if p.is_file()}
        )
        content = xxhash.xxh3_64()
        for file in sorted(files):
            content.update(f"{file} {files[file].stat().st_size}\n".encode() + files[file].read_bytes())
        assert name.split(".")[0] == f"{hasher.hexdigest()[:16]}-{content.hexdigest()}"
    index, version = made.features.index, made.features.version
    columns = b"".join(getattr(index, name).tobytes() for name in ("checksum", "length", "status"))
    assert version.content == xxhash.xxh3_128_hexdigest(b"5 float16 8" + columns)
    assert xxhash.xxh3_64_hexdigest(with_head((made.path / "versions" / version.index).read_bytes())) in version.index


@pytest.mark.parametrize("format", ["zarr"])
def test_json_is_sealed_as_it_says(made: Made) -> None:
    sealed = [made.path / "store.json", *made.path.glob("versions/*.json"), *made.path.parent.glob("versions/*.json")]
    assert len(sealed) == 3
    for path in sealed:
        value = json.loads(path.read_text())
        seal = value.pop("checksum")
        assert seal == xxhash.xxh3_128_hexdigest((json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


@pytest.mark.parametrize("format", ["zarr"])
def test_what_it_says_lies_there_lies_there(made: Made) -> None:
    dataset = open_dataset(made.dataset.parent, "digits")
    names = {path.relative_to(made.path.parent).parts[0] for path in made.path.parent.rglob("*")}
    assert names == {"versions", "samples", made.path.name}
    assert {path.name for path in made.path.iterdir()} == {"store.json", "segments", "versions"}
    value = json.loads(next(made.path.glob("versions/*.json")).read_text())
    for field in value.keys() - {"number", "checksum", "written"}:
        assert f"`{field}`" in PAGE, field
    for field in json.loads(next(made.path.parent.glob("versions/*.json")).read_text()).keys() - {"pgm_dataset"}:
        assert f"`{field}`" in PAGE or field == "number", field
    assert dataset.presence["text"].tolist() == [True, True, False, *[True] * 5]


def canonical(identity: Identity) -> bytes:
    return json.dumps(identity.as_dict(), sort_keys=True, separators=(",", ":")).encode()


def with_head(content: bytes) -> bytes:
    """A single object's bytes as its digest takes them."""
    return f" {len(content)}\n".encode() + content
