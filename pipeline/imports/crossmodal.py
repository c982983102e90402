"""Deep features of the cross-modal retrieval papers, as their repositories hand them round.

    MRL    one .h5:     train_imgs_deep (N, 4096), train_text or train_texts (N, 300), train_*_labels; test_*, valid_*
    DSCMR  many .mat:   train_img.mat, train_txt.mat, train_img_lab.mat, test_img.mat, ...; all given together

Labels are numbers from 0 or from 1, or one column a class. Images are the modality vision.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...cache.errors import UserError
from .arrays import tidy
from .containers import Opened, array_of
from .imported import SPLIT_NAMES, Imported, Options, PackedTokens
from .padding import frames_of, pack

NAME = re.compile(r"(train|test|val|valid)_(?:(img|image|txt|text)s?)?(?:_?(deep|feat\w*|doc2vec))?(_?lab(?:el)?s?)?")
Place = tuple[Opened, str]


def arrays_by_role(files: Sequence[Opened]) -> dict[tuple[str, str], Place]:
    """(split, "vision", "text" or "labels") -> the file and key that hold it."""
    found: dict[tuple[str, str], Place] = {}
    for file in files:
        for key in file.names:
            match = NAME.fullmatch(key.lower())
            if match is None:
                continue
            split, medium, _, label = match.groups()
            role = "labels" if label else {"i": "vision", "t": "text"}.get((medium or " ")[0], "")
            if role:
                found.setdefault((SPLIT_NAMES[split], role), (file, key))
    return found


def recognises(files: Sequence[Opened]) -> bool:
    """Whether training and test images, texts and labels are all there."""
    if any(file.kind not in ("hdf5", "mat", "mat73", "npz") for file in files):
        return False
    found = arrays_by_role(files)
    return all((split, role) in found for split in ("train", "test") for role in ("vision", "text", "labels"))


def read(files: Sequence[Opened], options: Options) -> Imported:
    """One vector a sample, the file's own splits."""
    found = arrays_by_role(files)
    splits = [split for split in ("train", "val", "test") if (split, "labels") in found]
    labels = class_numbers([values(found[split, "labels"]) for split in splits])
    counts = [len(values(found[split, "labels"])) for split in splits]
    modalities = {}
    for role in options.modalities or ("vision", "text"):
        if any((split, role) not in found for split in splits):
            raise UserError(f"{files[0].path.name} has no {role!r} in every split; it has vision and text.")
        places = [found[split, role] for split in splits]
        arrays = [frames_of(values(place)) for place in places]
        if [len(array) for array in arrays] != counts:
            raise UserError(
                f"The {role} arrays have {', '.join(str(len(a)) for a in arrays)} rows in {', '.join(splits)} and the "
                f"labels {', '.join(map(str, counts))}; they must be as many."
            )
        lengths = [np.full(len(array), array.shape[1], np.int64) for array in arrays]
        origin = [{"file": file.path.name, "digest": file.digest, "key": key} for file, key in places]
        source = {**origin[0], "layout": "crossmodal", "parts": origin}
        modalities[role] = PackedTokens(pack(arrays, lengths), np.concatenate(lengths), source)
    numbered = [(split, row) for split, count in zip(splits, counts, strict=True) for row in range(count)]
    return Imported(
        modalities,
        labels,
        [f"{split}_{row:05d}" for split, row in numbered],
        [split for split, _ in numbered],
        task="retrieval",
    )


def values(place: Place) -> NDArray[Any]:
    """One array; a row vector of labels, as MATLAB writes them, is turned."""
    file, key = place
    array = tidy(array_of(file.names[key], key, file.path))
    return array.T if array.ndim == 2 and array.shape[0] == 1 and array.shape[1] > 1 and "lab" in key.lower() else array


def class_numbers(parts: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
    """(N,) classes from 0, whether they were numbered from 0, from 1, or had a column each."""
    if all(part.ndim == 2 and part.shape[1] > 1 for part in parts):
        return np.concatenate([part.argmax(axis=1) for part in parts]).astype(np.int64)
    numbers = np.concatenate([part.reshape(-1) for part in parts]).astype(np.int64)
    return numbers - 1 if numbers.min(initial=0) >= 0 and 0 not in numbers else numbers
