"""`mvsa_single` and `mvsa_multiple`: tweets with their picture, judged positive, neutral or negative.

Expected under `root` (or `root/MVSA_Single`, `root/MVSA`):

    labelResultAll.txt      a header, then "<id><TAB><text label>,<image label>"; in MVSA-Multiple three such pairs
    data/<id>.jpg, data/<id>.txt                            texts in mixed encodings

Get it: mcrlab.net/research/mvsa-sentiment-analysis-on-multi-view-social-data.

The label of a post is made from its text's and its picture's as most published work does: equal ones stand, a neutral
one gives way to the other, and positive against negative drops the post (MVSA-Single: 4,511 remain). In MVSA-Multiple
each side is first the majority of three annotators, and a post where all three differ is dropped. `mvsa_single_equal`
is the other convention: only posts whose two labels are equal (2,592, as QMF uses).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ...cache.errors import UserError
from ..collection import Collection
from .assembly import assemble, said
from .page import Finding, Page, require
from .reading import IMAGE, by_stem, files_in, read_rows, source, unpacked
from .splitting import SEED, draw_splits

SUMMARY = "MVSA-Single: 4,511 tweets with a picture and a three-way sentiment (needs --root)"
SUMMARY_EQUAL = "MVSA-Single's 2,592 tweets whose text and picture have the same label (needs --root)"
SUMMARY_MULTIPLE = "MVSA-Multiple: 17,024 tweets with a picture, sentiment by three annotators (needs --root)"
MODALITIES = ("text", "vision")
CLASSES = ("negative", "neutral", "positive")
LABELS = "labelResultAll.txt"
FOLDERS = {"mvsa_single": ("MVSA_Single", "MVSA-Single"), "mvsa_multiple": ("MVSA", "MVSA_Multiple", "MVSA-Multiple")}
FOLDERS["mvsa_single_equal"] = FOLDERS["mvsa_single"]


def _page(total: int) -> Page:
    return Page(
        layout=__doc__ or "",
        splits="none published: 70/10/20, stratified by label, drawn with a fixed seed",
        classes=", ".join(CLASSES),
        licence="see the source; the posts are other people's",
        source="mcrlab.net/research/mvsa-sentiment-analysis-on-multi-view-social-data",
        citation="Niu, Zhu, Pang, El Saddik: Sentiment analysis on multi-view social data. MMM 2016",
        published={"train+val+test": total},
    )


PAGES = {"mvsa_single": _page(4_511), "mvsa_single_equal": _page(2_592), "mvsa_multiple": _page(17_024)}


def look(name: str, root: Path) -> list[Finding]:
    """The labels, which are needed, and texts and pictures, of which one kind will do."""
    root = unpacked(root, *FOLDERS[name])
    texts, images = (len(files_in(root / "data", suffixes)) for suffixes in ((".txt",), IMAGE))
    return [
        Finding(LABELS, (root / LABELS).is_file()),
        Finding("data/*.txt", texts, not images, "pictures alone"),
        Finding("data/*.jpg", images, not texts, "texts alone"),
    ]


def load(name: str, root: Path) -> Collection:
    """The posts under `root` by the rule of dataset `name`. Raises NotFound listing what is missing, UserError for the
    labels of another dataset."""
    require(name, root, look(name, root), PAGES[name].source)
    root = unpacked(root, *FOLDERS[name])
    annotators = 3 if name == "mvsa_multiple" else 1
    posts: dict[str, int] = {}
    dropped = 0
    for row in read_rows(root / LABELS, 2, delimiter="\t")[1:]:
        label = judged(_pairs(row, annotators, root / LABELS), equal_only=name == "mvsa_single_equal")
        dropped += label is None
        if label is not None:
            posts[row[0].strip()] = CLASSES.index(label)
    ids, labels = list(posts), list(posts.values())
    texts, images = (by_stem(files_in(root / "data", suffixes)) for suffixes in ((".txt",), IMAGE))
    splits, how = draw_splits(len(ids), labels, None)
    media = {"text": [source(texts.get(i)) for i in ids], "vision": [source(images.get(i)) for i in ids]}
    return assemble(
        name,
        "classification",
        CLASSES,
        {"id": ids, "split": splits, "label": labels},
        media,
        {"labels": LABELS, "rule": "equal labels only" if name == "mvsa_single_equal" else "conflicts dropped"},
        (
            f"No split comes with it: 70/10/20 drawn {how} with seed {SEED}.",
            said(dropped, "post dropped by the label rule", "posts dropped by the label rule"),
            said(media["text"].count(None), "post has no text", "posts have no text"),
            said(media["vision"].count(None), "post has no picture", "posts have no picture"),
        ),
    )


def judged(pairs: list[tuple[str, str]], *, equal_only: bool = False) -> str | None:
    """The label of a post from (text, image) labels of one or three annotators; None drops the post."""
    sides = [_majority([pair[side] for pair in pairs]) for side in (0, 1)]
    if None in sides or (equal_only and sides[0] != sides[1]):
        return None
    polar = {label for label in sides if label != "neutral"}
    return "neutral" if not polar else polar.pop() if len(polar) == 1 else None


def _majority(labels: list[str]) -> str | None:
    label, votes = Counter(labels).most_common(1)[0]
    return label if votes * 2 > len(labels) else None


def _pairs(row: list[str], annotators: int, path: Path) -> list[tuple[str, str]]:
    """(text, image) labels of each annotator. Raises UserError where the row is of the other dataset's form."""
    pairs = [tuple(label.strip().lower() for label in cell.split(",")) for cell in row[1:] if cell.strip()]
    if len(pairs) != annotators or any(len(pair) != 2 or set(pair) - set(CLASSES) for pair in pairs):
        raise UserError(
            f"{path}, id {row[0]}: expected {annotators} text,image label pair(s) of {', '.join(CLASSES)}, found "
            f"{row[1:]}. MVSA-Single has one pair a post (mvsa_single), MVSA-Multiple three (mvsa_multiple)."
        )
    return [(pair[0], pair[1]) for pair in pairs]
