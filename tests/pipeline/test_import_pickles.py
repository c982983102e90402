"""A pickle from elsewhere gives arrays and containers, or is refused by the name of what it asked for."""

from __future__ import annotations

import collections
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from pgm.cache.errors import NotFound, UserError
from pgm.pipeline.imports.pickles import load_pickle


def loaded(tmp_path: Path, content: bytes) -> Any:
    (tmp_path / "x.pkl").write_bytes(content)
    return load_pickle(tmp_path / "x.pkl")


def short(text: str) -> bytes:
    """SHORT_BINUNICODE."""
    return b"\x8c" + struct.pack("<B", len(text)) + text.encode()


class Calls:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, Any]:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_comes_back_as_it_was(tmp_path: Path, protocol: int) -> None:
    objects = np.empty(2, object)
    objects[:] = [np.ones((2, 3), np.float32), np.zeros((1, 3))]
    value = {
        "f": np.arange(6.0).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3)),
        "turned": np.arange(24.0).reshape(2, 3, 4).transpose(1, 0, 2),
        "text": np.array(["a", "bcd"]),
        "bytes": np.array([b"x_1", b"y"]),
        "flags": np.array([True, False]),
        "none": np.zeros((0, 4)),
        "objects": objects,
        "scalar": np.float32(1.5),
        "word": np.str_("word"),
        "plain": [1, 2.5, None, "é", b"\xff\x00", (1, (2, 3)), {4, 5}, frozenset([6]), True, 10**30],
        3: collections.OrderedDict(a=1),
        "default": collections.defaultdict(list, a=[1]),
    }
    value["again"] = value["f"]
    found = loaded(tmp_path, pickle.dumps(value, protocol=protocol))
    assert list(found) == list(value)
    for name in ("f", "fortran", "turned", "text", "bytes", "flags", "none"):
        assert type(found[name]) is np.ndarray
        assert found[name].dtype.newbyteorder("=") == value[name].dtype.newbyteorder("=")
        assert np.array_equal(found[name], value[name])
    assert found["again"] is found["f"]
    assert [type(item) for item in found["objects"]] == [np.ndarray, np.ndarray]
    assert all(np.array_equal(a, b) for a, b in zip(found["objects"], objects, strict=True))
    assert found["scalar"] == 1.5
    assert found["word"] == "word"
    assert found["plain"] == value["plain"]
    assert found[3] == {"a": 1}
    assert found["default"] == {"a": [1]}


@settings(max_examples=30, deadline=None)
@given(
    arrays_of.arrays(
        st.sampled_from(["<f4", ">f8", "i8", "u1", "?", "c8", "S3", "U2"]), arrays_of.array_shapes(min_side=0)
    ),
    st.integers(0, pickle.HIGHEST_PROTOCOL),
)
def test_any_array_comes_back(tmp_path_factory: pytest.TempPathFactory, array: Any, protocol: int) -> None:
    found = loaded(tmp_path_factory.mktemp("x"), pickle.dumps([array, array.T], protocol=protocol))
    known = pickle.loads(pickle.dumps(array, protocol=protocol))
    assert found[0].tobytes() == known.tobytes()
    assert found[0].dtype == known.dtype
    assert found[1].shape == array.T.shape


def test_a_pickle_of_python_2_is_read_as_latin1(tmp_path: Path) -> None:
    numbers = repr(np.array([1.5, -2.0]).tobytes())[1:].encode()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I2\ntcnumpy\ndtype\n(S'f8'\nI0\n"
        b"I1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS" + numbers + b"\ntb"
    )
    found = loaded(tmp_path, b"(dS'\\xe9t\\xe9'\n" + array + b"sS'id'\n(lS'a_1'\naS'b_2'\nas.")
    assert found["id"] == ["a_1", "b_2"]
    assert np.array_equal(found["été"], [1.5, -2.0])


def test_numpy_1_called_its_modules_otherwise(tmp_path: Path) -> None:
    for protocol in (2, 3):
        old = pickle.dumps([np.arange(3.0), np.float64(2)], protocol=protocol).replace(b"numpy._core", b"numpy.core")
        found = loaded(tmp_path, old)
        assert np.array_equal(found[0], [0, 1, 2])
        assert found[1] == 2


def dotted(module: str, name: str, argument: bytes) -> bytes:
    """STACK_GLOBAL of a name with dots in it, called with one argument."""
    return b"\x80\x04" + short(module) + short(name) + b"\x93" + argument + b"\x85R."


OBJECT_TYPE = (  # numpy.dtype("O8") whose state denies that it holds objects
    b"cnumpy\ndtype\n(VO8\nI00\nI01\ntR(I3\nV|\nNNNI-1\nI-1\nI0\ntb"
)
RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR"

HOSTILE = {
    "system": (pickle.dumps(Calls(os.system, "touch MARK")), r"posix\.system"),
    "system by name": (b"cos\nsystem\n(S'touch MARK'\ntR.", r"os\.system"),
    "instance": (b"(S'touch MARK'\nios\nsystem\n.", r"os\.system"),
    "eval": (pickle.dumps(Calls(eval, "open('MARK', 'w')")), r"builtins\.eval"),
    "eval of Python 2": (b'c__builtin__\neval\n(S\'open("MARK", "w")\'\ntR.', r"__builtin__\.eval"),
    "getattr": (pickle.dumps(Calls(getattr, [], "append")), r"builtins\.getattr"),
    "dots through numpy": (dotted("numpy", "core.os.system", short("touch MARK")), r"numpy\.core\.os\.system"),
    "dots through an allowed class": (dotted("numpy", "dtype.__class__", short("x")), r"numpy\.dtype\.__class__"),
    "dots through a container": (dotted("builtins", "dict.__base__.__subclasses__", b")"), r"dict\.__base__"),
    "numpy.load": (b"cnumpy\nload\n(S'MARK'\ntR.", r"numpy\.load"),
    "a class": (pickle.dumps(Path("x")), r"pathlib\.\w*Path"),
    "reconstructor": (b"ccopyreg\n_reconstructor\n(tR.", r"copyreg\._reconstructor"),
    "any numpy type": (pickle.dumps(np.float64), r"numpy\.float64"),
    "masked array": (pickle.dumps(np.ma.masked_array([1])), r"numpy\.ma"),
    "persistent id": (b"Pelsewhere\n.", "the persistent object 'elsewhere'"),
    "codec": (b"c_codecs\nencode\n(VMARK\nVrot13\ntR.", r"_codecs\.encode with 'rot13'"),
    "many bytes": (b"c__builtin__\nbytes\n(L999999999999L\ntR.", "bytes of a int"),
    "structured": (pickle.dumps(np.zeros(2, [("a", "i4")])), "an array of type 'V4'"),
    "a change of what is allowed": (b"cnumpy\ndtype\n}V_call\nNsb.", r"a change of numpy\.dtype"),
    "a type called": (b"cnumpy\nndarray\n((L4L\nttR.", "a call of a type"),
    "pointers": (
        RECONSTRUCT + b"(I1\n(I1\nt" + OBJECT_TYPE + b"I00\nS'AAAAAAAA'\ntb.",
        "an object array whose contents are not a list",
    ),
    "fewer objects than it says": (
        RECONSTRUCT + b"(I1\n(I3\ntcnumpy\ndtype\n(VO8\ntRI00\n(lI1\natb.",
        "an object array whose contents are not a list of as many",
    ),
    "an object scalar": (
        b"cnumpy.core.multiarray\nscalar\n(" + OBJECT_TYPE + b"S'AAAAAAAA'\ntR.",
        "scalar of type obj",
    ),
    "too few bytes": (
        RECONSTRUCT + b"(I1\n(I9\ntcnumpy\ndtype\n(Vf8\ntRI00\nS'AAAAAAAA'\ntb.",
        "8 bytes for 9 values of float64",
    ),
    "a shape below zero": (
        RECONSTRUCT + b"(I1\n(I-9\ntcnumpy\ndtype\n(Vf8\ntRI00\nS'AAAAAAAA'\ntb.",
        r"an array of shape \(-9,\)",
    ),
    "another object's memory": (
        b"cnumpy.core.numeric\n_frombuffer\n(" + RECONSTRUCT + b"cnumpy\ndtype\n(Vf8\ntR(I1\ntVC\ntR.",
        "an array made from a Rebuilt",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pickle_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    content, asked = HOSTILE[name]
    with pytest.raises(UserError, match=rf"x\.pkl asks for .*{asked}.* only numpy arrays and builtin containers"):
        loaded(tmp_path, content)
    assert not (tmp_path / "MARK").exists()


def test_the_payloads_would_run_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pickle.loads(HOSTILE["system by name"][0])
    assert (tmp_path / "MARK").exists()


@pytest.mark.parametrize("content", [b"", b"\x80\x04", b"not a pickle", b"]]]" + b"e" * 9 + b".", b"\x80\x05\x97."])
def test_a_damaged_pickle_is_said_to_be_one(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UserError, match=r"x\.pkl is not a readable pickle"):
        loaded(tmp_path, content)


def test_deep_nesting_and_absent_files_are_errors_of_the_user(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nests its containers too deeply"):
        loaded(tmp_path, b"]" * 100_000 + b"a" * 99_999 + b".")
    with pytest.raises(NotFound, match="No file"):
        load_pickle(tmp_path / "none.pkl")


def test_a_list_that_holds_itself_ends(tmp_path: Path) -> None:
    circle: list[Any] = [np.ones(2)]
    circle.append((circle, circle[0]))
    found = loaded(tmp_path, pickle.dumps(circle))
    assert found[1][0] is found
    assert type(found[1][1]) is np.ndarray
