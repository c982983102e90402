"""How adapters read tables, texts and file names, whatever encoding and folder an archive left them in."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from ...cache.errors import NotFound, UserError
from ..media import FileMedia

VIDEO = (".mp4", ".flv", ".avi", ".mkv", ".mov")
IMAGE = (".jpg", ".jpeg", ".png")
# C1 control codes are cp1252 quotes and dashes that somebody read as latin-1.
_C1 = {code: text for code in range(0x80, 0xA0) if (text := bytes([code]).decode("cp1252", errors="ignore"))}


def unpacked(root: Path, *names: str) -> Path:
    """The first of the folders `names` under `root` (what an archive unpacks to), else `root` itself."""
    return next((root / name for name in names if (root / name).is_dir()), root)


def read_text(path: Path) -> str:
    """A text file's content as Unicode, cp1252 quotes included. Raises UserError where it cannot be read."""
    # Here, as decoding brings FFmpeg and scipy, and listing datasets needs neither.
    from ..decode import decode_text

    try:
        return decode_text(path.read_bytes()).translate(_C1)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error


def read_table(path: Path, columns: Sequence[str], delimiter: str = ",") -> list[dict[str, str]]:
    """The rows of a table with a header, every value as text, so that id 007 stays 007.

    Raises NotFound where it lacks one of `columns`.
    """
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), delimiter=delimiter, restval="")
    there = [name.strip() for name in reader.fieldnames or ()]
    reader.fieldnames = there
    if absent := [name for name in columns if name not in there]:
        raise NotFound(f"{path} has no column {', '.join(map(repr, absent))}; it has {', '.join(there) or 'none'}.")
    # What stands beyond the last column has no name and is of no use here.
    return [{name: value for name, value in row.items() if name is not None} for row in reader]


def read_rows(path: Path, width: int, delimiter: Literal[",", "\t"] = ",") -> list[list[str]]:
    """The rows of a table without a header, each of at least `width` cells; blank lines are left out.

    Raises UserError naming the first line that is too short.
    """
    rows: list[list[str]] = []
    text = io.StringIO(read_text(path), newline="")
    # A tab-separated list has no quoting: a quote in it is a character.
    reader = csv.reader(text, delimiter="\t", quoting=csv.QUOTE_NONE) if delimiter == "\t" else csv.reader(text)
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) < width:
            raise UserError(f"{path}, line {reader.line_num}: {cells!r} has fewer than {width} cells.")
        rows.append(cells)
    return rows


def number(cell: str, where: str) -> float:
    """A cell as a number. Raises UserError saying where it stands."""
    try:
        return float(cell)
    except ValueError:
        raise UserError(f"{where} holds {cell!r}, where a number is expected.") from None


def class_number(cell: str, classes: Sequence[str], where: str) -> int:
    """The index of a class name, whatever its case. Raises UserError saying where it stands and what is known."""
    names = [name.lower() for name in classes]
    if cell.strip().lower() not in names:
        raise UserError(f"{where} holds {cell!r}; known are {', '.join(classes)}.")
    return names.index(cell.strip().lower())


def files_in(folder: Path, suffixes: Sequence[str], levels: int = 0) -> dict[str, Path]:
    """Files of these endings by name, in `folder` or `levels` folders below it, sorted; macOS's "._" twins left out."""
    pattern = "/".join(["*"] * (levels + 1))
    return {
        path.name: path
        for path in sorted(folder.glob(pattern))
        if path.suffix.lower() in suffixes and not path.name.startswith("._")
    }


def by_stem(files: Mapping[str, Path]) -> dict[str, Path]:
    """The same files by name without ending."""
    return {path.stem: path for path in files.values()}


def source(path: Path | None, seconds: float | None = None) -> FileMedia | None:
    """A file as a sample's source; None where there is none. seconds: how much of a long clip is used."""
    return None if path is None else FileMedia(str(path), seconds)


def inside(root: Path, relative: str, where: str) -> Path:
    """`relative` under `root`. Raises UserError for a path that leaves it."""
    path = Path(os.path.normpath(root / relative))
    if not path.is_relative_to(os.path.normpath(root)):
        raise UserError(
            f"{where} names {relative!r}, which lies outside the root {root}. Paths in a table must stay under it; "
            "name the folder that holds them all with --root."
        )
    return path
