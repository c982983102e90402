"""`mosi`: CMU-MOSI, 2,199 opinion segments of 93 YouTube monologues, each with a sentiment from -3 to 3.

Expected under `root` (or `root/MOSI`), the layout of MMSA:

    label.csv                           video_id, clip_id, text, label, mode and more, in any order
    Raw/<video_id>/<clip_id>.mp4        frames and sound track

or the segmented layout of the CMU-MultimodalSDK's CMU_MOSI.zip (see mosi_sdk.py):

    Raw/Transcript/Segmented/<video>.*                  lines <n>_DELIM_<TEXT>
    Raw/Video/Segmented/<video>_<n>.mp4                 Raw/Audio/WAV_16000/Segmented/<video>_<n>.wav
    a .tsv of id, split, label, or the SDK's .csd of opinion labels

Get it: github.com/thuiar/MMSA (its data page), or github.com/CMU-MultiComp-Lab/CMU-MultimodalSDK. A clip that is not
there is a missing modality; its utterance stays.
"""

from __future__ import annotations

from pathlib import Path

from ...cache.errors import UserError
from ..collection import Collection
from ..media import TextMedia
from . import mosi_sdk
from .assembly import assemble, said
from .page import Finding, Page, require
from .reading import VIDEO, by_stem, files_in, number, read_table, source, unpacked
from .splitting import SPLIT_NAMES, carve_validation

SUMMARY = "CMU-MOSI: 2,199 spoken opinions with text, sound, video and a sentiment score (needs --root)"
MODALITIES = ("text", "audio", "vision")
COLUMNS = ("video_id", "clip_id", "text", "label", "mode")
FOLDERS = ("MOSI", "CMU_MOSI")
PAGE = Page(
    layout=__doc__ or "",
    splits="52, 10 and 31 videos: MMSA's mode column, the SDK's standard folds; a video is a group",
    classes="none: a score from -3 (negative) to 3 (positive)",
    licence="see the source; for research",
    source="github.com/thuiar/MMSA or github.com/CMU-MultiComp-Lab/CMU-MultimodalSDK",
    citation="Zadeh, Zellers, Pincus, Morency: MOSI: Multimodal corpus of sentiment intensity. arXiv:1606.06259",
    published={"train": 1_284, "val": 229, "test": 686},
)


def look(root: Path) -> list[Finding]:
    """What is there of MMSA's layout, or of the SDK's where label.csv is absent and its transcripts are there."""
    root = unpacked(root, *FOLDERS)
    table = (root / "label.csv").is_file()
    if not table and mosi_sdk.is_there(root):
        return mosi_sdk.look(root)
    clips = len([path for path in root.glob("Raw/*/*") if path.suffix.lower() in VIDEO])
    layouts = "label.csv" if table else f"label.csv (MMSA), or {mosi_sdk.TRANSCRIPTS}/* (CMU-MultimodalSDK)"
    return [Finding(layouts, table), Finding("Raw/*/*.mp4", clips, False, "text alone")]


def load(root: Path) -> Collection:
    """The utterances under `root`. Raises NotFound listing what is missing, UserError for a label out of range."""
    require("mosi", root, look(root), PAGE.source)
    root = unpacked(root, *FOLDERS)
    utterances = _from_table(root) if (root / "label.csv").is_file() else mosi_sdk.read(root)
    for row in utterances:
        if not -3 <= row.label <= 3:
            raise UserError(f"Clip {row.id} has the label {row.label}; MOSI's run from -3 to 3.")
    groups = [row.video for row in utterances]
    splits, carved = [row.split for row in utterances], ""
    if "" in splits:
        splits, carved = mosi_sdk.drawn(groups)
    splits, more = carve_validation(splits, None, groups)
    absent = sum(row.clip is None for row in utterances)
    return assemble(
        "mosi",
        "sentiment",
        (),
        {
            "id": [row.id for row in utterances],
            "split": splits,
            "label": [row.label for row in utterances],
            "group": groups,
        },
        {
            "text": [TextMedia(row.text) if row.text else None for row in utterances],
            "audio": [source(row.sound) for row in utterances],
            "vision": [source(row.clip) for row in utterances],
        },
        {"layout": "MMSA" if (root / "label.csv").is_file() else "CMU-MultimodalSDK"},
        (carved, more, said(absent, "utterance has no video clip", "utterances have no video clip")),
    )


def _from_table(root: Path) -> list[mosi_sdk.Utterance]:
    path = root / "label.csv"
    folders: dict[str, dict[str, Path]] = {}
    found = []
    for line, row in enumerate(read_table(path, COLUMNS), 2):
        video, clip, mode = row["video_id"].strip(), row["clip_id"].strip(), row["mode"].strip().lower()
        if mode not in SPLIT_NAMES:
            raise UserError(f"{path}, line {line}: mode {row['mode']!r} is none of train, valid, test.")
        if video not in folders:
            folders[video] = by_stem(files_in(root / "Raw" / video, VIDEO))
        media = folders[video].get(clip)
        label = number(row["label"], f"{path}, line {line}, label")
        found.append(
            mosi_sdk.Utterance(video, clip, SPLIT_NAMES[mode], label, row["text"].strip(), clip=media, sound=media)
        )
    return found
