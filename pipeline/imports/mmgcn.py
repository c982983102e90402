"""MMGCN's utterance features of MELD (MELD_features_raw1.pkl): a tuple of ten.

    (videoIDs, videoSpeakers, videoLabels, videoText, videoAudio, videoVisual, videoSentence, trainVid, testVid, extra)

The first seven are dicts keyed by dialogue, one entry an utterance: text 600, audio 300, visual 342 numbers, labels in
MELD's order. The dialogue is the group. The file does not mark MELD's dev dialogues: trainVid holds train and dev, 1152
together, and dev was 114 of them, so the last 114 validate; of a smaller file the last tenth.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...cache.errors import UserError
from ..datasets.meld import CLASSES
from .arrays import digest_of, tidy
from .containers import Opened
from .imported import Imported, Options, PackedTokens
from .padding import pack_list

PLACES = {"text": 3, "audio": 4, "vision": 5}
LABELS, TRAIN, TEST, PARTS = 2, 7, 8, 10
DEV, WHOLE = 114, 1152


def recognises(files: Sequence[Opened]) -> bool:
    """Whether the one file is a tuple of ten that begins with dicts."""
    value = files[0].value
    return len(files) == 1 and isinstance(value, tuple | list) and len(value) == PARTS and isinstance(value[2], dict)


def read(files: Sequence[Opened], options: Options) -> Imported:
    """The utterances of the training dialogues, then of the test dialogues, in the file's order."""
    file = files[0]
    value: Any = file.value
    train, test = in_order(value[TRAIN]), in_order(value[TEST])
    labels, warnings = value[LABELS], []
    if shared := [dialogue for dialogue in train if dialogue in set(test)]:
        warnings.append(f"{len(shared):,} dialogues stand in trainVid and testVid; they are kept for test only.")
        train = [dialogue for dialogue in train if dialogue not in set(test)]
    if unknown := [dialogue for dialogue in [*train, *test] if dialogue not in labels]:
        raise UserError(f"{file.path.name} lists dialogue {unknown[0]!r}, which has no labels.")
    held = DEV if len(train) >= WHOLE - 2 else len(train) // 10
    validating = set(train[len(train) - held :])
    notes = [
        f"The file does not mark MELD's dev dialogues: the last {held:,} of the {len(train):,} in trainVid validate."
    ]
    if left := len(labels) - len(train) - len(test):
        notes.append(f"{left:,} dialogues stand in neither trainVid nor testVid and were left out.")
    where = [(dialogue, place) for dialogue in [*train, *test] for place in range(len(labels[dialogue]))]
    names = utterances(value[0])
    tested = set(test)
    return Imported(
        {name: modality(file, name, where, labels) for name in options.modalities or PLACES},
        tidy([np.ravel(labels[dialogue])[place] for dialogue, place in where]),
        [f"dia{dialogue}_utt{names.get(dialogue, {}).get(place, place)}" for dialogue, place in where],
        ["test" if d in tested else "val" if d in validating else "train" for d, _ in where],
        [f"dia{dialogue}" for dialogue, _ in where],
        "emotion",
        CLASSES,
        tuple(notes),
        tuple(warnings),
    )


def modality(file: Opened, name: str, where: Sequence[tuple[Any, int]], labels: dict[Any, Any]) -> PackedTokens:
    """One vector an utterance. Raises UserError where a dialogue has other numbers of vectors and labels."""
    if name not in PLACES:
        raise UserError(f"{file.path.name} has no modality {name!r}; it has {', '.join(PLACES)}.")
    vectors: Any = file.value[PLACES[name]]
    for dialogue in dict.fromkeys(dialogue for dialogue, _ in where):
        found, wanted = len(vectors.get(dialogue, ())), len(labels[dialogue])
        if found not in (0, wanted):
            raise UserError(
                f"Dialogue {dialogue!r} of {file.path.name} has {wanted} labels and {found} {name} vectors."
            )
    # A dialogue without vectors lacks the modality; its utterances are kept.
    rows = [np.asarray(vectors[d][place]) if len(vectors.get(d, ())) else None for d, place in where]
    tokens, lengths = pack_list(rows)
    return PackedTokens(tokens, lengths, file.source(f"{PLACES[name]}", layout="mmgcn", lengths=digest_of(lengths)))


def in_order(dialogues: Any) -> list[Any]:
    """Dialogue keys in the file's order; a set has none, so it is sorted."""
    if isinstance(dialogues, set | frozenset):
        return sorted(dialogues, key=lambda key: (not isinstance(key, int), key if isinstance(key, int) else str(key)))
    return [key.item() if isinstance(key, np.generic) else key for key in dialogues]


def utterances(value: Any) -> dict[Any, dict[int, int]]:
    """Dialogue -> place -> utterance number, where videoIDs holds numbers; MELD's have gaps."""
    if not isinstance(value, dict):
        return {}
    found = {}
    for dialogue, listed in value.items():
        numbers = tidy(list(listed)) if len(listed) else np.zeros(0)
        if numbers.dtype.kind in "iu" and len(set(numbers.tolist())) == len(numbers):
            found[dialogue] = dict(enumerate(numbers.tolist()))
    return found
