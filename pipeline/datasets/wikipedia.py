"""`wikipedia`: 2,866 sections of Wikipedia's featured articles, each with its picture, in ten categories: retrieval.

Expected under `root` (or `root/wikipedia_dataset`):

    trainset_txt_img_cat.list, testset_txt_img_cat.list     no header, tabs: text id, image id, category 1..10
    texts/<text id>.xml                                     the body stands between <text> and </text>
    images/<category>/<image id>.jpg

Get it: svcl.ucsd.edu/projects/crossmodal (Rasiwasia et al. 2010). The archive also holds raw_features.mat, features
that are ready made: `pgm import wikipedia raw_features.mat` takes those and needs no pictures.

`wikipedia` keeps the official 2,173/693 and carves validation from train, whole articles at a time. `wikipedia_231` is
the other convention (MRL and others): the first 231 of the 693 test pairs validate, 462 test, all of train trains.
"""

from __future__ import annotations

import re
from pathlib import Path
from xml.sax.saxutils import unescape

from ...cache.errors import UserError
from ..collection import Collection
from ..media import TextMedia
from .assembly import assemble, said
from .page import Finding, Page, require
from .reading import IMAGE, by_stem, files_in, number, read_rows, read_text, source, unpacked
from .splitting import carve_validation

SUMMARY = "Wikipedia: 2,866 article sections with their pictures in ten categories, for retrieval (needs --root)"
SUMMARY_231 = "The same with the first 231 test pairs as validation, the split of much published work (needs --root)"
MODALITIES = ("text", "vision")
CLASSES = (
    "art", "biology", "geography", "history", "literature", "media", "music", "royalty", "sport", "warfare",
)  # fmt: skip
LISTS = {"train": "trainset_txt_img_cat.list", "test": "testset_txt_img_cat.list"}
FIRST_OF_TEST = 231
BODY = re.compile(r"<text\b[^>]*>(.*?)</text>", re.DOTALL)
SOURCE = "svcl.ucsd.edu/projects/crossmodal"
CITATION = "Rasiwasia et al.: A new approach to cross-modal multimedia retrieval. ACM Multimedia 2010"
PAGE = Page(
    layout=__doc__ or "",
    splits="train 2,173 and test 693 as published; a tenth of train, by article, validates",
    classes=", ".join(CLASSES),
    licence="none stated; see the source",
    source=SOURCE,
    citation=CITATION,
    published={"train+val": 2_173, "test": 693},
)
PAGE_231 = Page(
    layout=__doc__ or "",
    splits="train 2,173 as published; of the 693 test pairs the first 231 validate and 462 test",
    classes=PAGE.classes,
    licence=PAGE.licence,
    source=SOURCE,
    citation=CITATION,
    published={"train": 2_173, "val": 231, "test": 462},
)


def look(root: Path) -> list[Finding]:
    """The two lists, the texts and the pictures: all are needed."""
    root = unpacked(root, "wikipedia_dataset")
    return [
        *(Finding(name, (root / name).is_file()) for name in LISTS.values()),
        Finding("texts/*.xml", len(files_in(root / "texts", (".xml",)))),
        Finding("images/*/*.jpg", len(files_in(root / "images", IMAGE, levels=1))),
    ]


def load(root: Path) -> Collection:
    """The pairs under `root`, validation carved from train. Raises NotFound listing what is missing."""
    return _load("wikipedia", root, val_of_test=0)


def load_231(root: Path) -> Collection:
    """The pairs under `root`, the first third (231) of test as validation."""
    return _load("wikipedia_231", root, val_of_test=FIRST_OF_TEST)


def _load(name: str, root: Path, val_of_test: int) -> Collection:
    hint = f"{SOURCE}. For raw_features.mat alone: pgm import wikipedia raw_features.mat"
    require(name, root, look(root), hint)
    root = unpacked(root, "wikipedia_dataset")
    xml, images = files_in(root / "texts", (".xml",)), by_stem(files_in(root / "images", IMAGE, levels=1))
    ids: list[str] = []
    splits: list[str] = []
    labels: list[int] = []
    texts: list[TextMedia | None] = []
    pictures: list[Path | None] = []
    for half, file in LISTS.items():
        rows = read_rows(root / file, 3, delimiter="\t")
        # A smaller test set keeps the share.
        validating = min(val_of_test, len(rows) // 3) if half == "test" else 0
        for line, (text_id, image_id, category, *_) in enumerate(rows):
            label = int(number(category, f"{file}, line {line + 1}, category"))
            if not 1 <= label <= len(CLASSES):
                raise UserError(f"{file}, line {line + 1}: category {label}; there are 1 to {len(CLASSES)}.")
            ids.append(text_id)
            splits.append("val" if line < validating else half)
            labels.append(label - 1)
            texts.append(_body(xml.get(f"{text_id}.xml")))
            pictures.append(images.get(image_id))
    # An id is the article's hash, a dash and the section: sections of one article stay together.
    articles = [text_id.rpartition("-")[0] or text_id for text_id in ids]
    shared = _shared_articles(articles, splits)
    splits, carved = carve_validation(splits, labels, articles)
    return assemble(
        name,
        "retrieval",
        CLASSES,
        {"id": ids, "split": splits, "label": labels, "group": articles},
        {"text": texts, "vision": [source(path) for path in pictures]},
        {"origin": "wikipedia_dataset", "lists": list(LISTS.values())},
        (
            carved,
            said(sum(text is None for text in texts), "pair has no text", "pairs have no text"),
            said(sum(path is None for path in pictures), "pair has no picture", "pairs have no picture"),
            said(
                shared,
                "test pair is a section of an article that train also has sections of (official lists)",
                "test pairs are sections of articles that train also has sections of (official lists)",
            ),
        ),
    )


def _body(path: Path | None) -> TextMedia | None:
    """The section's text; None for a file that is not there or has no <text>."""
    if path is None:
        return None
    found = BODY.search(read_text(path))
    return TextMedia(unescape(found[1]).strip()) if found else None


def _shared_articles(articles: list[str], splits: list[str]) -> int:
    """How many test pairs come from an article that train has too."""
    trained = {article for article, split in zip(articles, splits, strict=True) if split == "train"}
    return sum(split == "test" and article in trained for article, split in zip(articles, splits, strict=True))
