"""Pickles from elsewhere, read without running anything they name.

A pickle is a program: it names callables and calls them. This reader answers a fixed list of names, none of which
reaches the named object itself; each is a stand-in that builds a plain numpy array, scalar or container. numpy's own
dtype and array constructors are not exposed either, because their state can describe memory that is not there.
Any other name is refused, and the refusal says which one was asked for.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ...cache.errors import NotFound, UserError

# No structured types: nothing published needs them, and their state is the intricate part.
KINDS = re.compile(r"[<>=|]?[?biufcSUO]\d*")


class Refused(pickle.UnpicklingError):
    """The pickle asks for something that is not plain data."""


class Kind:
    """numpy.dtype as a pickle describes it: built from its short name, byte order taken from the state."""

    def __init__(self, name: Any, *_: Any) -> None:
        name = text_of(name)
        if not KINDS.fullmatch(name):
            raise Refused(f"an array of type {name!r}")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: Any) -> None:
        order = text_of(state[1])
        if order in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(order)
        if self.dtype.kind in "SU" and len(state) > 5 and int(state[5]) > 0:
            self.dtype = np.dtype(f"{self.dtype.byteorder}{self.dtype.kind}{_width(self.dtype, int(state[5]))}")


class Rebuilt(np.ndarray[Any, Any]):
    """An array whose contents arrive after it was made; they are checked against its shape and type first."""

    def __setstate__(self, state: Any) -> None:
        *_, shape, kind, fortran, content = state
        shape, dtype = sizes(shape), dtype_of(kind)
        count = prod(shape)
        if dtype.kind == "O":
            if not isinstance(content, list) or len(content) != count:
                raise Refused("an object array whose contents are not a list of as many objects")
        else:
            content = raw_bytes(content)
            if len(content) != count * dtype.itemsize:
                raise Refused(f"{len(content)} bytes for {count} values of {dtype}")
        super().__setstate__((1, shape, dtype, bool(fortran), content))  # type: ignore[arg-type]


class StandIn:
    """A callable that a pickle may name; it cannot be given attributes or state."""

    __slots__ = ("_call", "_name")
    _call: Callable[..., Any]
    _name: str

    def __init__(self, name: str, call: Callable[..., Any]) -> None:
        object.__setattr__(self, "_name", name)
        object.__setattr__(self, "_call", call)

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setattr__(self, name: str, value: Any) -> None:
        raise Refused(f"a change of {self._name}")

    def __setstate__(self, state: Any) -> None:
        raise Refused(f"a change of {self._name}")


def text_of(value: Any) -> str:
    """A short name that Python 2 may have written as bytes."""
    if isinstance(value, bytes):
        return value.decode("latin1")
    if not isinstance(value, str):
        raise Refused(f"a {type(value).__name__} where a type's name belongs")
    return value


def sizes(shape: Any) -> tuple[int, ...]:
    """A shape of plain, non-negative numbers."""
    if not isinstance(shape, tuple) or any(type(size) is not int or size < 0 for size in shape):
        raise Refused(f"an array of shape {shape!r}")
    return shape


def raw_bytes(content: Any) -> bytes | bytearray:
    """The bytes of an array; of nothing else, because another object's memory could be taken away under it."""
    if isinstance(content, str):
        return content.encode("latin1")
    if type(content) not in (bytes, bytearray):
        raise Refused(f"an array made from a {type(content).__name__}")
    return content  # type: ignore[no-any-return]


def dtype_of(kind: Any) -> np.dtype[Any]:
    """The dtype behind a stand-in."""
    if not isinstance(kind, Kind):
        raise Refused(f"a {type(kind).__name__} where a dtype belongs")
    dtype: np.dtype[Any] = kind.dtype
    return dtype


def reconstruct(*_: Any) -> Rebuilt:
    """`numpy.core.multiarray._reconstruct`: an empty array, filled by the state that follows."""
    return Rebuilt((0,), np.uint8)


def scalar(kind: Any, content: Any = b"") -> Any:
    """`numpy.core.multiarray.scalar`: one value from its bytes."""
    dtype = dtype_of(kind)
    if dtype.kind == "O":
        raise Refused("a numpy scalar of type object")
    raw = raw_bytes(content)
    if len(raw) != dtype.itemsize:
        raise Refused(f"{len(raw)} bytes for one {dtype}")
    return np.frombuffer(raw, dtype)[0] if raw else dtype.type()


def from_buffer(buffer: Any, kind: Any, shape: Any, order: Any = "C", axes: Any = None) -> Any:
    """`numpy.core.numeric._frombuffer`: an array from its bytes, as protocol 5 writes it."""
    array = np.frombuffer(raw_bytes(buffer), dtype_of(kind))
    if order == "K" and axes is not None:
        return array.reshape(sizes(shape)).transpose(sizes(axes))
    return array.reshape(sizes(shape), order="F" if order == "F" else "C")


def encode(text: Any, encoding: Any = "latin1") -> bytes:
    """`_codecs.encode`, which is how bytes are written in Python 2's protocol."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise Refused(f"_codecs.encode with {encoding!r}")
    return text.encode("latin1")


def plain_bytes(content: Any = b"", *encoding: Any) -> bytes:
    """`bytes`: of nothing, of text or of small numbers; never of a length."""
    if isinstance(content, str):
        return encode(content, *encoding)
    if not isinstance(content, (bytes, bytearray, list)):
        raise Refused(f"bytes of a {type(content).__name__}")
    return bytes(content)


def container(make: Callable[..., Any]) -> Callable[..., Any]:
    """A builtin container of at most one container."""

    def build(*values: Any) -> Any:
        if len(values) > 1 or any(not isinstance(value, (list, tuple, dict, set, frozenset)) for value in values):
            raise Refused(f"{make.__name__} of something that is no container")
        return make(*values)

    return build


def empty_dict(*_: Any) -> dict[Any, Any]:
    """`defaultdict`, whose factory nobody needs when reading."""
    return {}


def refuse_call(*_: Any) -> Any:
    """A type that is only ever passed on."""
    raise Refused("a call of a type")


def _width(dtype: np.dtype[Any], size: int) -> int:
    return size // 4 if dtype.kind == "U" else size


def _named() -> dict[tuple[str, str], StandIn]:
    table: dict[tuple[str, str], Callable[..., Any]] = {
        ("numpy", "ndarray"): refuse_call,
        ("numpy", "dtype"): Kind,
        ("_codecs", "encode"): encode,
        ("collections", "OrderedDict"): container(dict),
        ("collections", "defaultdict"): empty_dict,
    }
    for core in ("numpy.core", "numpy._core"):
        table[f"{core}.multiarray", "_reconstruct"] = reconstruct
        table[f"{core}.multiarray", "scalar"] = scalar
        table[f"{core}.numeric", "_frombuffer"] = from_buffer
    for builtins in ("builtins", "__builtin__"):
        for make in (list, dict, tuple, set, frozenset):
            table[builtins, make.__name__] = container(make)
        for content in ("bytes", "bytearray"):
            table[builtins, content] = plain_bytes
        for number in (int, float, bool, str):
            table[builtins, number.__name__] = refuse_call
    return {name: StandIn(".".join(name), call) for name, call in table.items()}


ALLOWED = _named()


class PlainUnpickler(pickle.Unpickler):
    """Answers only the names in ALLOWED, and no persistent ids."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise Refused(f"{module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        raise Refused(f"the persistent object {pid!r}")


def load_pickle(path: Path) -> Any:
    """What a pickle of numpy arrays and builtin containers holds; Python 2's strings are read as latin1.

    Raises NotFound, and UserError for a pickle that asks for anything else or cannot be read.
    """
    if not path.is_file():
        raise NotFound(f"No file {path} to import.")
    with path.open("rb") as file:
        try:
            return plain(PlainUnpickler(file, encoding="latin1").load())
        except Refused as error:
            raise UserError(
                f"{path.name} asks for {error}, and only numpy arrays and builtin containers are read from a pickle: "
                "anything else could run code. If you trust the file, load it in Python yourself and save its arrays "
                "with numpy.savez, or pass them to import_arrays."
            ) from error
        except RecursionError as error:
            raise UserError(f"{path.name} nests its containers too deeply to be a file of features.") from error
        except MemoryError as error:
            raise UserError(f"{path.name} describes more data than this machine's memory holds.") from error
        # A damaged or hostile pickle can raise nearly anything; none of it is our fault or worth a traceback.
        except Exception as error:
            raise UserError(f"{path.name} is not a readable pickle ({type(error).__name__}: {error}).") from error


def plain(value: Any) -> Any:
    """Arrays as plain numpy arrays, without a copy; lists and dicts are changed in place, each once."""
    # The first of each pair is kept so that its id stays its own.
    seen: dict[int, tuple[Any, Any]] = {}

    def walk(item: Any) -> Any:
        if not isinstance(item, (Rebuilt, list, tuple, dict)):
            return item
        if id(item) in seen:
            return seen[id(item)][1]
        new: Any = item
        if isinstance(item, tuple):
            inside = [walk(inner) for inner in item]
            new = tuple(inside) if any(a is not b for a, b in zip(inside, item, strict=True)) else item
        elif isinstance(item, Rebuilt):
            new = item.view(np.ndarray)
        seen[id(item)] = (item, new)
        if isinstance(item, dict):
            for key, inner in list(item.items()):
                item[key] = walk(inner)
        elif isinstance(item, list):
            for place, inner in enumerate(item):
                item[place] = walk(inner)
        elif isinstance(item, Rebuilt) and item.dtype.kind == "O" and item.ndim:
            for where in np.ndindex(item.shape):
                new[where] = walk(new[where])
        return new

    return walk(value)
