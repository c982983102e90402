"""Computational sequences of the CMU-MultimodalSDK (.csd): one HDF5 file a sequence, several read together.

    <root>/data/<video>/features (T, D) and /intervals (T, 2) in seconds; <root>/metadata/<key>: one JSON text each

<root> is the sequence's name and need not be the file's. One of the files holds labels: a row a segment, numbered from
1, `<video>_<n>`. A sequence that the SDK has aligned has one entry a segment, `<video>[n - 1]` or `<video>_<n>`; one
that it has not is cut here: a row belongs to the segment in which the middle of its interval lies. One row of features
is one token. The files know no splits: MOSI's videos go by the SDK's standard folds, others by a table, --split FILE.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...cache.errors import NotFound, UserError
from ...cache.store.identity import slug
from ..datasets.mosi_sdk import TEST_FOLD, VALID_FOLD, standard_fold
from .arrays import digest_of
from .containers import Opened
from .imported import Imported, Options, PackedTokens
from .label_table import read_label_table
from .padding import clean, pack_list

MEDIA = {
    "text": ("glove", "word", "text", "bert", "transcript", "phone"),
    "audio": ("covarep", "opensmile", "audio", "acoustic", "librosa"),
    "vision": ("facet", "openface", "vision", "visual", "video"),
}
MOSI_VIDEOS = 93
ALIGNED, CLIP = re.compile(r"(.+)\[(\d+)\]"), re.compile(r"(.+)_(\d+)")


@dataclass(frozen=True, eq=False)
class Stream:
    """One file: its root's name and the group that holds the videos."""

    file: Opened
    name: str
    data: Any


@dataclass(frozen=True)
class Segment:
    """What is labelled: segment `number` (from 1) of a video, from start to stop seconds."""

    video: str
    number: int
    start: float
    stop: float
    label: float

    @property
    def id(self) -> str:
        return f"{self.video}_{self.number}"


def recognises(files: Sequence[Opened]) -> bool:
    """Whether every file is a computational sequence."""
    return all(file.kind == "hdf5" and root_of(file) is not None for file in files)


def root_of(file: Opened) -> Stream | None:
    """The first root group, where it holds videos with features."""
    name: str = next(iter(file.value), "")
    root: Any = file.value[name] if name else None
    data: Any = root.get("data") if hasattr(root, "get") else None
    first: Any = next(iter(data.values()), None) if hasattr(data, "values") else None
    return Stream(file, name, data) if hasattr(first, "keys") and "features" in first else None


def read(files: Sequence[Opened], options: Options) -> Imported:
    """The labelled segments, with the features of each file beside them."""
    sequences = [one for one in map(root_of, files) if one is not None]
    labelled = [one for one in sequences if "label" in one.name.lower()]
    features = [one for one in sequences if one not in labelled]
    if len(labelled) != 1 or not features:
        raise UserError(
            f"These files hold {', '.join(repr(one.name) for one in sequences)}. Give one sequence of labels and at "
            "least one of features together: pgm import mosi labels.csd glove.csd covarep.csd"
        )
    names = options.modalities or tuple(medium_of(one.name) for one in features)
    if len(names) != len(features) or len(set(names)) != len(names):
        raise UserError(
            f"The feature files {', '.join(repr(one.name) for one in features)} need as many different names; give "
            "one --modality for each, in the order of the files."
        )
    labels = labelled[0]
    segments, notes = list(segments_of(labels)), label_notes(labels)
    if not segments:
        raise UserError(f"{labels.file.path.name} labels no segment.")
    splits = standard_folds(segments)
    if options.split is not None:
        splits, segments, said = split_by_table(segments, options)
        notes += said
    modalities = {}
    for name, sequence in zip(names, features, strict=True):
        modalities[name], said = cut(name, sequence, segments, labels)
        notes += said
    return Imported(
        modalities,
        np.array([one.label for one in segments]),
        [one.id for one in segments],
        splits,
        [one.video for one in segments],
        options.task or "sentiment",
        notes=tuple(notes),
    )


def medium_of(name: str) -> str:
    """text, audio or vision by the sequence's name; else the name itself."""
    return next((medium for medium, words in MEDIA.items() if any(w in name.lower() for w in words)), slug(name))


def segments_of(labels: Stream) -> Iterator[Segment]:
    """Every labelled segment: videos by name, as HDF5 lists them, segments as the file has them."""
    clips = all(CLIP.fullmatch(key) and len(entry["features"]) == 1 for key, entry in labels.data.items())
    for key, entry in labels.data.items():
        values, spans = entry["features"][()], entry["intervals"][()]
        if match := ALIGNED.fullmatch(key):
            yield Segment(match[1], int(match[2]) + 1, spans[0, 0], spans[-1, 1], float(np.ravel(values)[0]))
        elif clips and (match := CLIP.fullmatch(key)):
            yield Segment(match[1], int(match[2]), spans[0, 0], spans[-1, 1], float(np.ravel(values)[0]))
        else:
            for row, (start, stop) in enumerate(spans):
                yield Segment(key, row + 1, start, stop, float(np.ravel(values[row])[0]))


def label_notes(labels: Stream) -> list[str]:
    """Which column was read, where the labels have several."""
    width = next(iter(labels.data.values()))["features"].shape[-1]
    if width == 1:
        return []
    stored = labels.file.value[labels.name].get("metadata", {}).get("dimension names")
    names = json.loads(stored.asstr()[0]) if stored is not None else []
    said = f" ({', '.join(map(str, names))})" if names else ""
    return [f"{labels.name!r} has {width} columns{said}; the first is the label."]


def cut(name: str, sequence: Stream, segments: Sequence[Segment], labels: Stream) -> tuple[PackedTokens, list[str]]:
    """One modality of all segments. Raises UserError where none has any features."""

    @lru_cache(maxsize=1)  # segments of one video follow one another
    def video(key: str) -> tuple[NDArray[Any], NDArray[Any]]:
        entry = sequence.data[key]
        if "intervals" not in entry or len(entry["intervals"]) != len(entry["features"]):
            raise UserError(f"{key!r} of {sequence.file.path.name} has no interval for each row; it cannot be cut.")
        return entry["features"][()], entry["intervals"][()].mean(axis=1)

    def rows(segment: Segment) -> NDArray[Any] | None:
        for key in (f"{segment.video}[{segment.number - 1}]", segment.id):
            if key in sequence.data:
                whole: NDArray[Any] = sequence.data[key]["features"][()]
                return whole
        if segment.video not in sequence.data:
            return None
        features, middles = video(segment.video)
        return features[(middles >= segment.start) & (middles < segment.stop)]

    found = [rows(segment) for segment in segments]
    if not any(one is not None and len(one) for one in found):
        raise NotFound(
            f"{sequence.file.path.name} ({sequence.name!r}) has no features for any labelled segment: its first entry "
            f"is {next(iter(sequence.data))!r}, the labels' first {segments[0].id!r}."
        )
    tokens, lengths = pack_list(found)
    notes, missing = [], int((lengths == 0).sum())
    if cleaned := clean(tokens):
        notes.append(f"{name}: {cleaned:,} values that were infinite or NaN are now 0.")
    if missing:
        notes.append(f"{name}: {missing:,} of {len(segments):,} segments have no row of {sequence.name!r}.")
    more = {"layout": "csd", "labels": labels.file.digest, "lengths": digest_of(lengths)}
    return PackedTokens(tokens, lengths, sequence.file.source(sequence.name, **more)), notes


def standard_folds(segments: Sequence[Segment]) -> list[str] | None:
    """The SDK's folds where these are MOSI's videos; None for others."""
    videos = {one.video for one in segments}
    if len(videos) > MOSI_VIDEOS or not videos & VALID_FOLD or not videos & TEST_FOLD:
        return None
    return [standard_fold(one.video) for one in segments]


def split_by_table(segments: Sequence[Segment], options: Options) -> tuple[list[str], list[Segment], list[str]]:
    """Splits from a table of segments or of videos, and the segments it covers."""
    assert options.split is not None
    table = read_label_table(options.split, options.split_column)
    splits = table.splits()
    if splits is None:
        table.texts("split")  # says which columns there are
        raise AssertionError("a table without splits was read")
    whole = "id" not in table.columns and not {"video_id", "clip_id"} <= {*table.rows[0]}
    where = dict(zip(table.texts("group" if whole else "id"), splits, strict=True))
    kept = [one for one in segments if one.id in where or one.video in where]
    if not kept:
        raise NotFound(
            f"{options.split.name} names no labelled segment: its first is {next(iter(where))!r}, the labels' first "
            f"{segments[0].id!r}."
        )
    left = len(segments) - len(kept)
    notes = [f"{left:,} labelled segments stand in no row of {options.split.name} and were left out."] if left else []
    return [where.get(one.id, where.get(one.video, "")) for one in kept], kept, notes
