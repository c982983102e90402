"""The containers features come in, each opened as named arrays: recognised by content, because suffixes lie.

Large arrays are left on disk until they are asked for (.npz, .npy, HDF5, safetensors). Nothing pickled is loaded except
by the restricted reader in pickles.py.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ...cache.errors import NotFound, UserError
from ..media import FileMedia
from .arrow import read_arrow, read_parquet
from .imported import PackedTokens
from .pickles import load_pickle

Kind = Literal["npz", "npy", "mat", "mat73", "hdf5", "safetensors", "parquet", "arrow", "pickle", "folder"]
READ = ".npz, .npy, .mat, HDF5, safetensors, Parquet, Arrow and pickle files"
DAMAGED = (OSError, ValueError, KeyError, TypeError, NotImplementedError, EOFError, BadZipFile, zlib.error)
DEEPEST = 4  # levels of nested names in a pickle
MOST = 100_000  # names in a pickle


@dataclass(frozen=True, eq=False)
class Opened:
    """One file: names maps each array's name to the array or what reads it; value is a pickle's whole object, or the
    h5py file."""

    path: Path
    kind: Kind
    names: Mapping[str, Any]
    value: Any = None

    @cached_property
    def digest(self) -> str:
        """xxh3_128 of the file's bytes."""
        return FileMedia(str(self.path)).digest()

    def source(self, keys: str, **more: Any) -> dict[str, Any]:
        """What stands in a store's identity for the arrays `keys` of this file, and what else decided the tokens."""
        return {"file": self.path.name, "digest": self.digest, "key": keys, **more}


def kind_of(path: Path) -> Kind:
    """Which container a path holds. Raises NotFound, or UserError for none that is read."""
    if path.is_dir():
        return "folder"
    if not path.is_file():
        raise NotFound(f"No file {path} to import.")
    with path.open("rb") as file:
        head = file.read(520)
    suffix = path.suffix.lower()
    if head.startswith(b"PK\x03\x04") and suffix not in (".pt", ".pth"):
        return "npz"
    if head.startswith(b"MATLAB 7.3"):
        return "mat73"
    if head.startswith(b"\x89HDF\r\n\x1a\n") or head[512:520] == b"\x89HDF\r\n\x1a\n":
        return "hdf5"
    for magic, kind in ((b"\x93NUMPY", "npy"), (b"PAR1", "parquet"), (b"ARROW1", "arrow"), (b"FEA1", "arrow")):
        if head.startswith(magic):
            return kind  # type: ignore[return-value]
    if head.startswith(b"MATLAB 5.0") or suffix == ".mat":
        return "mat"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return "safetensors"
    if suffix in (".arrow", ".arrows", ".ipc") and head.startswith(b"\xff\xff\xff\xff"):
        return "arrow"
    if (head[:1] == b"\x80" and head[1:2] <= b"\x05") or suffix in (".pkl", ".pickle", ".p"):
        return "pickle"
    raise UserError(
        f"{path.name} is none of the files that are read: {READ}. Load it in Python and save its arrays with "
        "numpy.savez, or pass them to pgm.pipeline.imports.import_arrays."
    )


@contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """One file's arrays, readable while the context lasts. Raises NotFound and UserError."""
    kind = kind_of(path)
    with ExitStack() as stack:
        if kind == "folder":
            yield Opened(path, kind, {})
        elif kind == "pickle":
            value = load_pickle(path)
            yield Opened(path, kind, flattened(value), value)
        else:
            try:
                names, value = READERS[kind](path, stack)
            except DAMAGED as error:
                raise UserError(f"{path.name} is not readable as {kind}: {error}.") from error
            yield Opened(path, kind, names, value)


def array_of(value: Any, name: str, path: Path) -> NDArray[Any]:
    """A named thing as an array of numbers or text, or of objects where a file keeps a list of arrays."""
    if isinstance(value, PackedTokens):
        raise UserError(f"{name!r} of {path.name} holds a list for every sample; expected one value for each.")
    if isinstance(value, Lazy):
        value = value()
    if is_hdf5(value):
        import h5py

        value = value.asstr()[()] if h5py.check_string_dtype(value.dtype) else value[()]
    if isinstance(value, dict):
        raise UserError(f"{name!r} of {path.name} is a group of arrays, not an array.")
    try:
        return np.asarray(value)
    except ValueError:  # a list of arrays of different lengths
        array = np.empty(len(value), object)
        array[:] = list(value)
        return array


class Lazy:
    """An array that is read when it is called for; its shape and type are known before."""

    def __init__(self, read: Any, shape: tuple[int, ...], dtype: str) -> None:
        self.read, self.shape, self.dtype = read, shape, dtype

    def __call__(self) -> Any:
        return self.read()


def described(names: Mapping[str, Any], most: int = 20) -> str:
    """`text (2199, 100) float32, ...`: what a file holds, for an error."""
    told = []
    for name in list(names)[:most]:
        try:
            value = names[name]
        except DAMAGED:
            told.append(f"{name} (pickled objects, or damaged)")
            continue
        shape = getattr(value, "shape", None)
        kind = getattr(value, "dtype", "")
        told.append(f"{name} {shape} {kind}".rstrip() if shape is not None else f"{name} ({_sized(value)})")
    rest = f" and {len(names) - most:,} more" if len(names) > most else ""
    return (", ".join(told) or "nothing") + rest


def flattened(value: Any) -> dict[str, Any]:
    """A pickle's nested dicts as `train/text` -> array."""
    found: dict[str, Any] = {}

    def walk(item: Any, prefix: str, depth: int) -> None:
        if isinstance(item, dict) and depth < DEEPEST and len(found) < MOST:
            for key, inner in item.items():
                walk(inner, f"{prefix}/{tidy_key(key)}" if prefix else tidy_key(key), depth + 1)
        else:
            found[prefix or "array"] = item

    walk(value, "", 0)
    return found


def tidy_key(key: Any) -> str:
    """A dict's key as text; Python 2 may have written it as bytes."""
    return key.decode("latin1") if isinstance(key, bytes) else str(key)


def is_hdf5(value: Any) -> bool:
    """Whether a value is an h5py dataset, without importing h5py for other files."""
    return type(value).__module__.startswith("h5py")


def _sized(value: Any) -> str:
    return f"{type(value).__name__} of {len(value):,}" if hasattr(value, "__len__") else type(value).__name__


def _npz(path: Path, stack: ExitStack) -> tuple[Mapping[str, Any], Any]:
    # numpy does not close a file of its own that turns out to be no archive.
    file = stack.enter_context(path.open("rb"))
    return stack.enter_context(np.load(file, allow_pickle=False)), None


def _npy(path: Path, stack: ExitStack) -> tuple[Mapping[str, Any], Any]:
    return {path.stem: np.load(path, mmap_mode="r", allow_pickle=False)}, None


def _mat(path: Path, stack: ExitStack) -> tuple[Mapping[str, Any], Any]:
    from scipy.io import loadmat

    names: dict[str, Any] = {}

    def walk(name: str, value: Any) -> None:
        if value.dtype.names and value.size == 1:  # a structure
            for field in value.dtype.names:
                walk(f"{name}/{field}", value[field].item())
        else:
            # Lines of text come filled with blanks to one length.
            names[name] = np.char.rstrip(value) if value.dtype.kind == "U" else value

    for name, value in loadmat(path).items():
        if isinstance(value, np.ndarray):
            walk(name, value)
    return names, None


def _hdf5(path: Path, stack: ExitStack) -> tuple[Mapping[str, Any], Any]:
    import h5py

    file = stack.enter_context(h5py.File(path, "r"))
    names: dict[str, Any] = {}
    file.visititems(lambda name, item: names.update({name: item}) if isinstance(item, h5py.Dataset) else None)
    return names, file


def _mat73(path: Path, stack: ExitStack) -> tuple[Mapping[str, Any], Any]:
    """MATLAB 7.3 is HDF5 with every array's axes reversed, cells as references and text as numbers."""
    import h5py

    file = stack.enter_context(h5py.File(path, "r"))

    def read(item: Any) -> Any:
        if h5py.check_ref_dtype(item.dtype) is not None:
            cells = np.empty(item.size, object)
            cells[:] = [read(file[reference]) for reference in item[()].T.ravel()]
            return cells
        if item.attrs.get("MATLAB_empty"):
            return np.zeros((0, 0))
        values = item[()].T
        if item.attrs.get("MATLAB_class") == b"char":
            lines = ["".join(map(chr, row)).rstrip() for row in np.atleast_2d(values).tolist()]
            return np.array(lines)
        return values

    def lazy(item: Any) -> Lazy:
        return Lazy(lambda: read(item), tuple(reversed(item.shape)), str(item.dtype))

    names: dict[str, Any] = {}

    def add(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith("#"):
            names[name] = lazy(item)

    file.visititems(add)
    return names, file


def _safetensors(path: Path, stack: ExitStack) -> tuple[Mapping[str, Any], Any]:
    from safetensors import SafetensorError, safe_open

    try:
        file = stack.enter_context(safe_open(path, "np"))
        parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
    except SafetensorError as error:
        raise ValueError(str(error)) from error

    def lazy(name: str, kind: str) -> Lazy:
        def read() -> Any:
            if kind != "BF16":
                return file.get_tensor(name)
            with safe_open(path, "pt") as widened:  # numpy has no bfloat16
                return widened.get_tensor(name).float().numpy()

        return Lazy(read, tuple(parts[name].get_shape()), kind)

    return {name: lazy(name, part.get_dtype()) for name, part in parts.items()}, None


def _parquet(path: Path, stack: ExitStack) -> tuple[Mapping[str, Any], Any]:
    return read_parquet(path), None


def _arrow(path: Path, stack: ExitStack) -> tuple[Mapping[str, Any], Any]:
    return read_arrow(path), None


READERS = {
    "npz": _npz,
    "npy": _npy,
    "mat": _mat,
    "hdf5": _hdf5,
    "mat73": _mat73,
    "safetensors": _safetensors,
    "parquet": _parquet,
    "arrow": _arrow,
}
