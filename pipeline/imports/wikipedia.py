"""Wikipedia 2010 (Rasiwasia et al.): raw_features.mat with the list files that lie beside it.

    raw_features.mat               I_tr (2173, 128), T_tr (2173, 10), I_te (693, 128), T_te (693, 10)
    trainset_txt_img_cat.list      text_id <TAB> image_id <TAB> category 1..10, one line a row of *_tr
    testset_txt_img_cat.list       the same for *_te
    categories.list                the ten names (when it is not there: the published ones)

The text's id is the sample's: both ids are unique, and texts are what the retrieval papers list. One vector a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...cache.errors import NotFound, UserError
from ..datasets.wikipedia import CLASSES
from .containers import Opened, array_of
from .imported import Imported, Options, PackedTokens
from .padding import frames_of, pack

KEYS = {"vision": ("I_tr", "I_te"), "text": ("T_tr", "T_te")}
LISTS = ("trainset_txt_img_cat.list", "testset_txt_img_cat.list")
Row = tuple[str, str, int]


def recognises(files: Sequence[Opened]) -> bool:
    """Whether the one file holds the four arrays."""
    return len(files) == 1 and all(key in files[0].names for keys in KEYS.values() for key in keys)


def read(files: Sequence[Opened], options: Options) -> Imported:
    """Texts and images of the official 2173/693 split. Raises NotFound without the list files."""
    file = files[0]
    folder = file.path.parent
    names = categories(folder / "categories.list")
    lists = [listed(folder / name, len(names)) for name in LISTS]
    rows = [row for part in lists for row in part]
    modalities = {}
    for name in options.modalities or KEYS:
        if name not in KEYS:
            raise NotFound(f"{file.path.name} has no modality {name!r}; it has {', '.join(KEYS)}.")
        arrays = [frames_of(array_of(file.names[key], key, file.path)) for key in KEYS[name]]
        for array, part, listing in zip(arrays, lists, LISTS, strict=True):
            if len(array) != len(part):
                raise UserError(
                    f"{file.path.name} has {len(array):,} rows of {name} and {listing} {len(part):,} lines; they must "
                    "be as many, because the lists say what each row is."
                )
        lengths = [np.ones(len(array), np.int64) for array in arrays]
        source = file.source(",".join(KEYS[name]))
        modalities[name] = PackedTokens(pack(arrays, lengths), np.concatenate(lengths), source)
    return Imported(
        modalities,
        np.array([category - 1 for _, _, category in rows]),
        [text for text, _, _ in rows],
        ["train"] * len(lists[0]) + ["test"] * len(lists[1]),
        task="retrieval",
        classes=names,
    )


def categories(path: Path) -> Sequence[str]:
    """The category names, by the file or as published."""
    return path.read_text().split() if path.is_file() else CLASSES


def listed(path: Path, most: int) -> list[Row]:
    """(text id, image id, category) of each line. Raises NotFound or UserError, naming the line."""
    if not path.is_file():
        raise NotFound(
            f"No file {path}. The labels of raw_features.mat lie in {' and '.join(LISTS)}, which come with it; put "
            "them into the same folder."
        )
    rows: list[Row] = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip():
            continue
        cells = line.strip().split("\t")
        if len(cells) != 3 or not cells[2].isdigit() or not 1 <= int(cells[2]) <= most:
            raise UserError(
                f"Line {number} of {path.name} is {line!r}; expected text id, image id and a category of 1 to {most}, "
                "separated by tabs."
            )
        rows.append((cells[0], cells[1], int(cells[2])))
    return rows
