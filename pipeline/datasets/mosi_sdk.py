"""CMU-MOSI as the CMU-MultimodalSDK's CMU_MOSI.zip lays it out: whole videos cut into numbered segments.

    Raw/Transcript/Segmented/<video>.*                 lines <n>_DELIM_<TEXT>
    Raw/Video/Segmented/<video>_<n>.mp4                frames
    Raw/Audio/WAV_16000/Segmented/<video>_<n>.wav      sound

The labels stand beside or above Raw, in a .tsv of id (<video>_<n>), split and label, or in the SDK's .csd of opinion
labels, whose row n - 1 of a video is segment n. A .csd knows no splits: its videos then go by the SDK's standard folds,
and where none of them is in those, whole videos are drawn 70/10/20.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...cache.errors import UserError
from .page import Finding
from .reading import VIDEO, by_stem, files_in, number, read_table, read_text
from .splitting import SEED, SPLIT_NAMES, draw_splits

TRANSCRIPTS = "Raw/Transcript/Segmented"
DELIMITER = "_DELIM_"
# The SDK's standard folds by video; the other 52 of the 93 train.
_VALID = (
    "WKA5OygbEKI X3j2zQgwYgE ZAIRrfG22O0 ZUXBRvtny7o _dI--eQ6qVU aiEXnCPZubE atnd_PF-Lbs bOL9jKpeJRs bvLlb-M3UXU "
    "c5xsKMxpXnc"
)
_TEST = (
    "c7UH_rxdZv4 cM3Yna7AavY cW1FSBF59ik cXypl4FnoZo d3_k5Xpfmik d6hH302o4v8 dq3Nf_lMPnE etzxEpPuc6I f9O3YtZ2VfI "
    "f_pcplsH_V0 fvVhgmXxadc iiK8YX8oH1E jUzDDGyPkXU k5Y_838nuGo lXPQBPVc5Cw nbWiPyCm4g0 nzpVDcQ0ywM ob23OKe5a9Q "
    "pLTX3ipuDJI phBUpBr1hSo rnaNMUZpvvg tIrG4oNLFzE tStelxIAHjw tmZoasNr4rU v0zCBqDeKcE vvZ4IcEtiZc vyB00TXsimI "
    "wMbj6ajWbic yDtzw_Y-7RU yvsjCA6Y5Fc zhpQhgha_KU"
)
VALID_FOLD, TEST_FOLD = frozenset(_VALID.split()), frozenset(_TEST.split())


@dataclass(frozen=True)
class Utterance:
    """One labelled segment; `split` is empty where nothing says it."""

    video: str
    number: str
    split: str
    label: float
    text: str
    clip: Path | None
    sound: Path | None

    @property
    def id(self) -> str:
        return f"{self.video}_{self.number}"


def is_there(root: Path) -> bool:
    """Whether `root` is of this layout."""
    return (root / TRANSCRIPTS).is_dir()


def look(root: Path) -> list[Finding]:
    """What is there; transcripts and labels are needed."""
    return [
        Finding(f"{TRANSCRIPTS}/*", len(_transcripts(root))),
        Finding("*.tsv of id, split, label, or *.csd of opinion labels", len(_label_files(root))),
        Finding("Raw/Video/Segmented/*.mp4", len(_videos(root)), False, "no vision"),
        Finding("Raw/Audio/WAV_16000/Segmented/*.wav", len(_sounds(root)), False, "no audio"),
    ]


def read(root: Path) -> list[Utterance]:
    """The labelled segments, by video and number; a segment without a label is left out."""
    texts: dict[tuple[str, str], str] = {}
    for path in _transcripts(root):
        texts |= {(path.stem, n): text for n, text in _lines(path)}
    table = _label_files(root)[0]
    labels = _from_tsv(table) if table.suffix == ".tsv" else _from_csd(table)
    videos, sounds = _videos(root), _sounds(root)
    return [
        Utterance(
            video, n, split, label, texts.get((video, n), ""), videos.get(f"{video}_{n}"), sounds.get(f"{video}_{n}")
        )
        for (video, n), (split, label) in sorted(labels.items(), key=lambda item: (item[0][0], int(item[0][1])))
    ]


def drawn(videos: list[str]) -> tuple[list[str], str]:
    """Splits of whole videos where the labels bring none, and the note that says so."""
    splits, how = draw_splits(len(videos), None, videos)
    return splits, f"The labels bring no splits: 70/10/20 drawn {how} (video) with seed {SEED}, not the standard folds."


def _transcripts(root: Path) -> list[Path]:
    return [p for p in sorted((root / TRANSCRIPTS).iterdir()) if p.is_file() and not p.name.startswith(".")]


def standard_fold(video: str) -> str:
    """The split of one of the 93 videos in the SDK's standard folds."""
    return "val" if video in VALID_FOLD else "test" if video in TEST_FOLD else "train"


def _lines(path: Path) -> list[tuple[str, str]]:
    parts = [line.partition(DELIMITER) for line in read_text(path).splitlines() if DELIMITER in line]
    return [(n.strip(), text.strip()) for n, _, text in parts]


def _from_tsv(path: Path) -> dict[tuple[str, str], tuple[str, float]]:
    labels = {}
    for line, row in enumerate(read_table(path, ("id", "split", "label"), delimiter="\t"), 2):
        video, _, n = row["id"].strip().rpartition("_")
        split = SPLIT_NAMES.get(row["split"].strip().lower(), "")
        if not n.isdecimal() or not split:
            raise UserError(f"{path}, line {line}: expected an id <video>_<n> and a split, found {row}.")
        labels[video, n] = split, number(row["label"], f"{path}, line {line}, label")
    return labels


def _from_csd(path: Path) -> dict[tuple[str, str], tuple[str, float]]:
    import h5py

    labels: dict[tuple[str, str], tuple[str, float]] = {}
    try:
        with h5py.File(path, "r") as file:
            # The root group is named as the sequence, whatever the file is called.
            [sequence] = file.values()
            standard = not (VALID_FOLD | TEST_FOLD).isdisjoint(sequence["data"])
            for video, entry in sequence["data"].items():
                split = standard_fold(video) if standard else ""
                labels |= {(video, str(n)): (split, float(row[0])) for n, row in enumerate(entry["features"][:], 1)}
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{path} is no computational sequence of the SDK: {error}") from error
    return labels


def _label_files(root: Path) -> list[Path]:
    """Candidates, the ones with splits first."""
    csd = [p for p in sorted((*root.glob("*.csd"), *root.glob("*/*.csd"))) if "label" in p.name.lower()]
    return [*sorted(root.glob("*.tsv")), *sorted((root / "Raw").glob("*.tsv")), *csd]


def _videos(root: Path) -> dict[str, Path]:
    return by_stem(files_in(root / "Raw" / "Video" / "Segmented", VIDEO))


def _sounds(root: Path) -> dict[str, Path]:
    return by_stem(files_in(root / "Raw" / "Audio" / "WAV_16000" / "Segmented", (".wav",)))
