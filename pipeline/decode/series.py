"""A numeric series: an .npy array, a CSV table or a Parquet table, told by its first bytes, to (T, C) float32.

Decided here: time runs down the rows; a one-dimensional array is one channel; a CSV's first line is a header where it
is not numbers; an empty cell, `nan` or `null` is a value that was not measured (NaN); columns that are not numbers are
refused.
"""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from .errors import DecodeError
from .text import decode_text

MAX_VALUES = 64 << 20
MISSING = ["", "nan", "NaN", "NAN", "null", "NULL", "NA", "?"]


def decode_series(data: bytes) -> np.ndarray:
    """(T, C) float32, T and C at least 1. Raises DecodeError with the reason."""
    if not data:
        raise DecodeError("empty file")
    if data.startswith(b"\x93NUMPY"):
        values = _array(data)
    else:
        values = _columns(_parquet(data) if data.startswith(b"PAR1") else _csv(data))
    if not values.size:
        raise DecodeError(f"a series without values: shape {values.shape}")
    if values.size > MAX_VALUES:
        raise DecodeError(f"a series of {values.size:,} values; the limit is {MAX_VALUES:,}")
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(values, np.float32)
    if np.isinf(values).any():
        raise DecodeError("values that are infinite, or too large for float32")
    return values


def _array(data: bytes) -> np.ndarray:
    try:
        values = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DecodeError(f"broken .npy file: {error}") from error
    if values.dtype.kind not in "iufb" or values.ndim not in (1, 2):
        raise DecodeError(f"array of {values.dtype}, shape {values.shape}: a series is numbers (T,) or (T, channels)")
    return np.asarray(values[:, None] if values.ndim == 1 else values)


def _parquet(data: bytes) -> pa.Table:
    try:
        return pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as error:
        raise DecodeError(f"broken Parquet file: {error}") from error


def _csv(data: bytes) -> pa.Table:
    text = decode_text(data)
    first = text.lstrip().split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    try:
        return pc.read_csv(
            pa.BufferReader(text.encode()),
            read_options=pc.ReadOptions(autogenerate_column_names=_numbers(first, delimiter), use_threads=False),
            parse_options=pc.ParseOptions(delimiter=delimiter),
            convert_options=pc.ConvertOptions(null_values=MISSING, strings_can_be_null=True),
        )
    except pa.ArrowException as error:
        raise DecodeError(f"not a table of numbers: {error}") from error


def _numbers(line: str, delimiter: str) -> bool:
    """Whether a line is values rather than names."""
    try:
        return bool([float(cell) for cell in map(str.strip, line.split(delimiter)) if cell not in MISSING])
    except ValueError:
        return False


def _columns(table: pa.Table) -> np.ndarray:
    columns = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        kind = column.type
        if not any(test(kind) for test in (pa.types.is_integer, pa.types.is_floating, pa.types.is_null)):
            raise DecodeError(f"column {name!r} holds {kind}, and a series is numbers")
        columns.append(column.cast(pa.float64()).to_numpy())
    return np.stack(columns, 1) if columns else np.zeros((0, 0))
