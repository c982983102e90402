"""`meld`: MELD, 13,708 utterances of the series Friends with text, sound, video and one of seven emotions.

Expected under `root` (or `root/MELD.Raw`), as MELD.Raw.tar.gz and the three archives in it unpack:

    train_sent_emo.csv, dev_sent_emo.csv, test_sent_emo.csv       (train's also in train/)
    train/train_splits/dia<D>_utt<U>.mp4
    dev/dev_splits_complete/dia<D>_utt<U>.mp4
    test/output_repeated_splits_test/dia<D>_utt<U>.mp4            beside clips that belong to no utterance

Get it: github.com/declare-lab/MELD. The csv files alone give the text alone. A clip that is not there (dev dia110_utt7)
is a missing modality and its utterance stays; a corrupt one (train dia125_utt3) is found by extraction. Some clips are
minutes long: their first 30 s are used. Dialogue and utterance numbers are unique only within a split, so that ids
begin with the split, and gaps in them are real. Beside the emotion stands the sentiment, -1, 0 or 1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ..collection import Collection
from ..media import Media, TextMedia
from .assembly import assemble, said
from .page import Finding, Page, require
from .reading import class_number, files_in, number, read_table, source, unpacked

SUMMARY = "MELD: 13,708 utterances of Friends with text, sound, video and one of seven emotions (needs --root)"
MODALITIES = ("text", "audio", "vision")
SENTIMENTS = ("negative", "neutral", "positive")
CLASSES = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
# Our split -> the csv's name and where its clips lie.
PARTS = {
    "train": ("train_sent_emo.csv", "train/train_splits"),
    "val": ("dev_sent_emo.csv", "dev/dev_splits_complete"),
    "test": ("test_sent_emo.csv", "test/output_repeated_splits_test"),
}
COLUMNS = ("Dialogue_ID", "Utterance_ID", "Utterance", "Speaker", "Emotion", "Sentiment")
LONGEST_SECONDS = 30.0
CLIP = re.compile(r"dia\d+_utt\d+\.mp4")
PAGE = Page(
    layout=__doc__ or "",
    splits="train, dev and test as published; a dialogue is a group",
    classes=", ".join(CLASSES),
    licence="GPL-3.0 for the repository with the annotations; see the source for the clips",
    source="github.com/declare-lab/MELD",
    citation="Poria et al.: MELD: A multimodal multi-party dataset for emotion recognition in conversations. ACL 2019",
    published={"train": 9_989, "val": 1_109, "test": 2_610},
)


def look(root: Path) -> list[Finding]:
    """The three tables, which are needed, and the clips of each split, which are not."""
    root = unpacked(root, "MELD.Raw", "MELD")
    tables = [Finding(name, _table(root, name) is not None) for name, _ in PARTS.values()]
    clips = [
        Finding(f"{folder}/dia*_utt*.mp4", len(_clips(root, folder)[0]), False, f"{split} has text alone")
        for split, (_, folder) in PARTS.items()
    ]
    return tables + clips


def load(root: Path) -> Collection:
    """The utterances under `root`, by dialogue and number. Raises NotFound listing what is missing."""
    require("meld", root, look(root), PAGE.source)
    root = unpacked(root, "MELD.Raw", "MELD")
    columns: dict[str, list[object]] = {name: [] for name in ("id", "split", "label", "group", "speaker", "sentiment")}
    texts: list[TextMedia] = []
    paths: list[Path | None] = []
    strays = 0
    for split, (name, folder) in PARTS.items():
        table = _table(root, name)
        assert table is not None, f"{name} was there a moment ago"
        rows: list[tuple[int, int, int, int, dict[str, str]]] = []
        for line, row in enumerate(read_table(table, COLUMNS), 2):
            where = f"{table}, line {line}"
            dialogue, utterance = (int(number(row[key], f"{where}, {key}")) for key in COLUMNS[:2])
            label = class_number(row["Emotion"], CLASSES, f"{where}, Emotion")
            sign = class_number(row["Sentiment"], SENTIMENTS, f"{where}, Sentiment") - 1
            rows.append((dialogue, utterance, label, sign, row))
        clips, others = _clips(root, folder)
        for dialogue, utterance, label, sign, row in sorted(rows, key=lambda found: found[:2]):
            columns["id"].append(f"{split}_dia{dialogue}_utt{utterance}")
            columns["split"].append(split)
            columns["label"].append(label)
            columns["group"].append(f"{split}_dia{dialogue}")
            columns["speaker"].append(row["Speaker"].strip())
            columns["sentiment"].append(sign)
            texts.append(TextMedia(row["Utterance"].strip()))
            paths.append(clips.pop(f"dia{dialogue}_utt{utterance}.mp4", None))
        strays += len(clips) + others
    clip_media = [source(path, LONGEST_SECONDS) for path in paths]
    notes = [
        "Dialogue and utterance numbers repeat across splits: ids begin with the split.",
        said(sum(path is None for path in paths), "utterance has no clip", "utterances have no clip"),
        said(strays, "clip belongs to no utterance and is left out", "clips belong to no utterance and are left out"),
        f"Frames are taken of a clip's first {LONGEST_SECONDS:.0f} s." if any(paths) else "",
    ]
    media: dict[str, Sequence[Media | None]] = {"text": texts, "audio": clip_media, "vision": clip_media}
    return assemble("meld", "emotion", CLASSES, columns, media, {"layout": "MELD.Raw"}, notes)


def _table(root: Path, name: str) -> Path | None:
    """A split's csv, in the root or in the folder of its split."""
    half = name.partition("_")[0]
    return next((path for path in (root / name, root / half / name) if path.is_file()), None)


def _clips(root: Path, folder: str) -> tuple[dict[str, Path], int]:
    """Clips of one split by name, and how many files beside them are named otherwise."""
    found: dict[str, Path] = {}
    for candidate in (root / Path(folder).name, root / folder):
        found |= files_in(candidate, (".mp4",))
    named = {name: path for name, path in found.items() if CLIP.fullmatch(name)}
    return named, len(found) - len(named)
