"""`iemocap`: IEMOCAP, dyadic conversations of ten actors in five sessions, in the usual four emotions.

Expected under `root` (or `root/IEMOCAP_full_release`), N from 1 to 5:

    SessionN/dialog/EmoEvaluation/<dialogue>.txt            [start - end]<TAB><utterance><TAB><emotion><TAB>[V, A, D]
    SessionN/dialog/transcriptions/<dialogue>.txt           <utterance> [start-end]: <text>
    SessionN/sentences/wav/<dialogue>/<utterance>.wav       one sound file an utterance

Get it: sail.usc.edu/iemocap (on request). Excitement is merged into happiness; utterances of other emotions, and those
the annotators did not agree on, are left out, which leaves 5,531. Session 5 tests; validation is carved from sessions 1
to 4, whole dialogues at a time. The videos show both speakers for a whole dialogue and are not cut by utterance: they
are not read.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..collection import Collection
from ..media import TextMedia
from .assembly import assemble, said
from .page import Finding, Page, require
from .reading import files_in, read_text, source, unpacked
from .splitting import carve_validation

SUMMARY = "IEMOCAP: 5,531 utterances of acted conversations with text and sound in four emotions (needs --root)"
MODALITIES = ("text", "audio")
CLASSES = ("neutral", "happy", "sad", "angry")
CODES = {"neu": 0, "hap": 1, "exc": 1, "sad": 2, "ang": 3}
SESSIONS = range(1, 6)
TEST_SESSION = 5
EVALUATED = re.compile(r"\[\s*([\d.]+)\s*-\s*[\d.]+\s*\]\t(\S+)\t(\w+)\t")
SPOKEN = re.compile(r"(\S+)\s*\[[^\]]*\]:\s*(.*)")
PAGE = Page(
    layout=__doc__ or "",
    splits="session 5 tests (1,241 utterances); a tenth of the dialogues of sessions 1 to 4 validates",
    classes=f"{', '.join(CLASSES)} (excitement counts as happy)",
    licence="for research, on request; see the source",
    source="sail.usc.edu/iemocap",
    citation="Busso et al.: IEMOCAP: Interactive emotional dyadic motion capture database. LREV 2008",
    published={"train+val": 4_290, "test": 1_241},
)


def look(root: Path) -> list[Finding]:
    """Each session's labels, which are needed, and texts and sounds, of which one kind will do."""
    root = unpacked(root, "IEMOCAP_full_release", "IEMOCAP")
    evaluations = [
        Finding(f"Session{n}/dialog/EmoEvaluation/Ses*.txt", len(_files(root, n, "dialog/EmoEvaluation")))
        for n in SESSIONS
    ]
    texts = sum(len(_files(root, n, "dialog/transcriptions")) for n in SESSIONS)
    sounds = sum(len(_sounds(root, n)) for n in SESSIONS)
    return [
        *evaluations,
        Finding("Session*/dialog/transcriptions/Ses*.txt", texts, not sounds, "no text"),
        Finding("Session*/sentences/wav/*/*.wav", sounds, not texts, "no audio"),
    ]


def load(root: Path) -> Collection:
    """The utterances under `root`, in the order they were spoken. Raises NotFound listing what is missing."""
    require("iemocap", root, look(root), PAGE.source)
    root = unpacked(root, "IEMOCAP_full_release", "IEMOCAP")
    columns: dict[str, list[object]] = {name: [] for name in ("id", "split", "label", "group", "speaker")}
    texts: list[TextMedia | None] = []
    sounds: list[Path | None] = []
    others = 0
    for session in SESSIONS:
        wav = _sounds(root, session)
        spoken = _transcripts(root, session)
        for dialogue, path in _files(root, session, "dialog/EmoEvaluation").items():
            found = [(float(start), name, code) for start, name, code in EVALUATED.findall(read_text(path))]
            for _, name, code in sorted(found):
                if code not in CODES:
                    others += 1
                    continue
                columns["id"].append(name)
                columns["split"].append("test" if session == TEST_SESSION else "train")
                columns["label"].append(CODES[code])
                columns["group"].append(dialogue)
                # The last part of a name begins with F or M: one woman and one man a session.
                columns["speaker"].append(f"Ses{session:02d}{name.rpartition('_')[2][:1]}")
                texts.append(TextMedia(spoken[name]) if name in spoken else None)
                sounds.append(wav.get(f"{name}.wav"))
    groups = [str(group) for group in columns["group"]]
    splits, carved = carve_validation([str(split) for split in columns["split"]], columns["label"], groups)
    return assemble(
        "iemocap",
        "emotion",
        CLASSES,
        {**columns, "split": splits},
        {"text": texts, "audio": [source(path) for path in sounds]},
        {"layout": "IEMOCAP_full_release", "emotions": "4-way, excitement as happy"},
        (
            carved,
            said(others, "utterance of another emotion is left out", "utterances of other emotions are left out"),
            said(texts.count(None), "utterance has no transcript", "utterances have no transcript"),
            said(sounds.count(None), "utterance has no sound", "utterances have no sound"),
        ),
    )


def _files(root: Path, session: int, folder: str) -> dict[str, Path]:
    """Text files of a session's dialogues by dialogue."""
    files = files_in(root / f"Session{session}" / folder, (".txt",))
    return {path.stem: path for name, path in files.items() if name.startswith("Ses")}


def _transcripts(root: Path, session: int) -> dict[str, str]:
    """What was said, by utterance; lines of another form (notes of the transcribers) are left out."""
    lines = [
        SPOKEN.fullmatch(line.strip())
        for path in _files(root, session, "dialog/transcriptions").values()
        for line in read_text(path).splitlines()
    ]
    return {found[1]: found[2] for found in lines if found}


def _sounds(root: Path, session: int) -> dict[str, Path]:
    return files_in(root / f"Session{session}" / "sentences" / "wav", (".wav",), levels=1)
