"""`food101`: UPMC Food-101, photographs of 101 dishes with the titles of the web pages they stood on.

Expected under `root` (or `root/upmcfood101`), as Kaggle's gianmarco96/upmcfood101 unpacks:

    images/{train,test}/<class>/<class>_<n>.jpg
    texts/train_titles.csv, texts/test_titles.csv     no header: image file name, title, class; titles may be quoted

or the jsonl form of MMBT and QMF, which is read where it is there, with the splits it gives:

    train.jsonl, test.jsonl, perhaps dev.jsonl        {"id", "label", "text", "img": a path under root}

Get it: kaggle.com/datasets/gianmarco96/upmcfood101 (Wang et al., ICME workshops 2015). An image without a title, and a
title without its image, stay as samples with that modality missing; of two titles for one image the first is kept. A
truncated image is found by extraction.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...cache.errors import UserError
from ..collection import Collection
from ..media import TextMedia
from .assembly import assemble, said
from .page import Finding, Page, require
from .reading import IMAGE, files_in, inside, read_rows, read_text, source, unpacked
from .splitting import carve_validation

SUMMARY = "UPMC Food-101: 90,704 photographs of 101 dishes, each with the title of its web page (needs --root)"
MODALITIES = ("text", "vision")
VALIDATION = 5_000
PAGE = Page(
    layout=__doc__ or "",
    splits="train and test as published; 5,000 of train, stratified, validate (as MMBT's) where no dev is given",
    classes="101 dishes in the order of their sorted names",
    licence="see the source; the photographs are other people's, gathered from web searches",
    source="kaggle.com/datasets/gianmarco96/upmcfood101",
    citation="Wang, Kumar, Thome, Cord, Precioso: Recipe recognition with large multimodal food dataset. ICMEW 2015",
    published={"train+val": 67_988, "test": 22_716},
)


@dataclass(frozen=True)
class _Row:
    split: str
    stem: str
    label: str
    title: str
    image: Path | None


def look(root: Path) -> list[Finding]:
    """What is there of the jsonl form, else of the csv form."""
    root = unpacked(root, "upmcfood101")
    if (root / "train.jsonl").is_file():
        optional = Finding("dev.jsonl", (root / "dev.jsonl").is_file(), False, "validation is carved from train")
        return [*(Finding(f"{half}.jsonl", (root / f"{half}.jsonl").is_file()) for half in ("train", "test")), optional]
    titles = [
        Finding(f"texts/{half}_titles.csv", (root / "texts" / f"{half}_titles.csv").is_file())
        for half in ("train", "test")
    ]
    images = [Finding(f"images/{half}/*/*.jpg", len(_images(root, half))) for half in ("train", "test")]
    return titles + images


def load(root: Path) -> Collection:
    """The samples under `root`. Raises NotFound listing what is missing."""
    require("food101", root, look(root), PAGE.source)
    root = unpacked(root, "upmcfood101")
    jsonl = (root / "train.jsonl").is_file()
    rows = list(_from_jsonl(root) if jsonl else _from_titles(root))
    classes = {label: place for place, label in enumerate(sorted({row.label for row in rows}))}
    labels = [classes[row.label] for row in rows]
    splits, carved = carve_validation([row.split for row in rows], labels, wanted=VALIDATION)
    return assemble(
        "food101",
        "classification",
        list(classes),
        {"id": [f"{row.split}-{row.stem}" for row in rows], "split": splits, "label": labels},
        {
            "text": [TextMedia(row.title) if row.title else None for row in rows],
            "vision": [source(row.image) for row in rows],
        },
        {"layout": "MMBT jsonl" if jsonl else "titles csv"},
        (carved, told_share(rows), said(sum(not r.title for r in rows), "image has no title", "images have no title")),
    )


def told_share(rows: list[_Row]) -> str:
    """How many titles give the answer away, as a note."""
    titled = [row for row in rows if row.title]
    telling = sum(row.label.replace("_", " ").lower() in row.title.replace("_", " ").lower() for row in titled)
    share = 100 * telling / max(len(titled), 1)
    return f"{share:.1f} % of the titles ({telling:,} of {len(titled):,}) contain the name of their class."


def _from_titles(root: Path) -> Iterator[_Row]:
    for half in ("train", "test"):
        images = _images(root, half)
        titled: set[str] = set()
        for name, title, label, *_ in read_rows(root / "texts" / f"{half}_titles.csv", 3):
            if name not in titled:
                yield _Row(half, Path(name).stem, label.strip(), title.strip(), images.get(name))
            titled.add(name)
        for name, path in images.items():
            if name not in titled:
                yield _Row(half, path.stem, path.parent.name, "", path)


def _from_jsonl(root: Path) -> Iterator[_Row]:
    for file, split in (("train", "train"), ("dev", "val"), ("test", "test")):
        path = root / f"{file}.jsonl"
        lines = read_text(path).split("\n") if path.is_file() else []
        for line_number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"{path}, line {line_number}"
            try:
                row: dict[str, Any] = json.loads(line)
                image = inside(root, str(row["img"]), where) if row.get("img") else None
                stem, label = str(row.get("id", image.stem if image else line_number)), str(row["label"])
            except (json.JSONDecodeError, KeyError, AttributeError, TypeError) as error:
                raise UserError(f"{where} is not an object of id, label, text and img: {error}") from None
            yield _Row(split, stem, label, str(row.get("text") or "").strip(), image if _there(image) else None)


def _images(root: Path, half: str) -> dict[str, Path]:
    return files_in(root / "images" / half, IMAGE, levels=1)


def _there(path: Path | None) -> bool:
    return path is not None and path.is_file()
