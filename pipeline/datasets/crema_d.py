"""`crema_d`: CREMA-D, 7,442 clips of 91 actors speaking twelve sentences in six emotions.

Expected under `root` (or `root/CREMA-D`, `root/CREMAD`):

    train.csv, test.csv             the lists of OGM-GE: no header, <clip>,<LABEL>, as in 1001_DFA_ANG_XX,ANG
    AudioWAV/<clip>.wav             sound
    VideoFlash/<clip>.flv           frames (.mp4 as well)

Get it: github.com/CheyneyComputerScience/CREMA-D; the lists: github.com/GeWu-Lab/OGM-GE_CVPR2022. The lists share their
actors; validation is carved from train, whole actors at a time. A clip without its sound or its frames stays, with that
modality missing.
"""

from __future__ import annotations

from pathlib import Path

from ..collection import Collection
from .assembly import assemble, said
from .page import Finding, Page, require
from .reading import VIDEO, by_stem, class_number, files_in, read_rows, source, unpacked
from .splitting import carve_validation

SUMMARY = "CREMA-D: 7,442 acted clips with sound and video in six emotions (needs --root)"
MODALITIES = ("audio", "vision")
CODES = ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")
CLASSES = ("neutral", "happy", "sad", "fear", "disgust", "anger")
LISTS = {"train": "train.csv", "test": "test.csv"}
PAGE = Page(
    layout=__doc__ or "",
    splits="train and test of OGM-GE's lists; a tenth of train, by actor, validates",
    classes=", ".join(CLASSES),
    licence="Open Database License (ODbL); see the source",
    source="github.com/CheyneyComputerScience/CREMA-D, lists: github.com/GeWu-Lab/OGM-GE_CVPR2022",
    citation="Cao et al.: CREMA-D: Crowd-sourced emotional multimodal actors dataset. IEEE Trans. Affective Comp. 2014",
    published={"train+val": 6_698, "test": 744},
)


def look(root: Path) -> list[Finding]:
    """The lists, which are needed, and sound and frames, of which one kind will do."""
    root = unpacked(root, "CREMA-D", "CREMAD")
    sounds, clips = len(_sounds(root)), len(_clips(root))
    return [
        *(Finding(name, (root / name).is_file()) for name in LISTS.values()),
        Finding("AudioWAV/*.wav", sounds, not clips, "no audio"),
        Finding("VideoFlash/*.flv", clips, not sounds, "no vision"),
    ]


def load(root: Path) -> Collection:
    """The listed clips under `root`. Raises NotFound listing what is missing."""
    require("crema_d", root, look(root), PAGE.source)
    root = unpacked(root, "CREMA-D", "CREMAD")
    listed: dict[str, tuple[str, int]] = {}
    for half, name in LISTS.items():
        for line, (clip, code, *_) in enumerate(read_rows(root / name, 2), 1):
            listed[clip.strip()] = half, class_number(code, CODES, f"{root / name}, line {line}")
    ids, labels = list(listed), [label for _, label in listed.values()]
    halves = [half for half, _ in listed.values()]
    # A clip's name begins with the number of its actor.
    actors = [clip.partition("_")[0] for clip in ids]
    both = len({a for a, h in zip(actors, halves, strict=True) if h == "train"}.intersection(
        a for a, h in zip(actors, halves, strict=True) if h == "test"
    ))  # fmt: skip
    splits, carved = carve_validation(halves, labels, actors)
    sounds, clips = _sounds(root), _clips(root)
    media = {"audio": [source(sounds.get(clip)) for clip in ids], "vision": [source(clips.get(clip)) for clip in ids]}
    return assemble(
        "crema_d",
        "classification",
        CLASSES,
        {"id": ids, "split": splits, "label": labels, "group": actors},
        media,
        {"lists": list(LISTS.values())},
        (
            carved,
            said(both, "actor is both in train and in test", "actors are both in train and in test"),
            said(media["audio"].count(None), "clip has no sound", "clips have no sound"),
            said(media["vision"].count(None), "clip has no frames", "clips have no frames"),
        ),
    )


def _sounds(root: Path) -> dict[str, Path]:
    return by_stem(files_in(root / "AudioWAV", (".wav",)))


def _clips(root: Path) -> dict[str, Path]:
    return by_stem(files_in(root / "VideoFlash", VIDEO))
